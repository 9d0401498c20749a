"""Digests of tasks and of what they share, computed once per scorer; thread-safe."""

from __future__ import annotations

import hashlib
import json
import marshal
import threading
import weakref
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.scoring.repository_edits import edit_message, edited_files
from regrade.evaluators.storage.digests import key_of

OF_TASK = frozenset({"base", "fail_to_pass", "pass_to_pass", "unnamed", "assurance", "suite", "limits", "requirements"})
"""Fields of `Task` on which all evidence depends. Evidence of some kinds depends on the others too."""
WITHOUT_EFFECT: Mapping[str, str] = {
    "base.known": "derived from the files of the root",
    "suite.checked_files": "only checks of the task itself list them",
    "suite.image.name": "the id of the image's content stands for it",
    "requirements": "the identity of the interpreter that they lead to stands for them",
}
"""Field of a task that no digest contains, and why no evidence depends on it."""


class Digests:
    """Digests of tasks, and of what many tasks share: pristine folders and measurements."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[Path, Tree] = {}
        self._unedited: dict[int, dict[str, str]] = {}
        self._reaches: dict[tuple[int, frozenset[str], int, int, int], tuple[TestSuite, str]] = {}
        self._tasks: dict[int, tuple[weakref.ref[Task], str]] = {}

    def of_task(self, task: Task) -> str:
        """Digest of the files that its base changes, its test ids and its level; computed once per object."""
        key = id(task)
        cached = self._tasks.get(key)
        if cached is not None and cached[0]() is task:
            return cached[1]
        level = [(task.assurance,)] if task.assurance else []
        tests = (task.fail_to_pass, task.pass_to_pass, task.unnamed, *level)
        parts: tuple[Any, ...] = (sorted(task.base.replaced.items()), sorted(task.base.removed), *tests)
        # On this much text, marshal is ten times as fast as repr or JSON. Later versions of its format depend on which
        # strings are the same object.
        digest = hashlib.sha256(marshal.dumps(parts, 2)).hexdigest()
        self._tasks[key] = (weakref.ref(task, lambda _: self._tasks.pop(key, None)), digest)
        return digest

    def of_description(self, task: Task) -> str:
        """Digest of the fields on which not all evidence depends: texts, reference, target, what an agent is shown."""
        parts = {field.name: getattr(task, field.name) for field in fields(Task) if field.name not in OF_TASK}
        reference = parts.pop("reference")
        return key_of([repr(sorted(parts.items())), reference.digest if reference is not None else ""]).hex()

    def of_root(self, root: Path) -> str:
        return self._pristine(root).digest

    def _pristine(self, root: Path) -> Tree:
        with self._lock:
            if root not in self._roots:
                self._roots[root] = _read(root)
            return self._roots[root]

    def check(self, task: Task) -> None:
        """Refuse a repository that was edited after its baseline was measured.

        Raises:
            UserError: files that affect its tests have changed; the message names them and the remedy.
        """
        digests, root = task.base.known, task.base.root
        if not digests or self._unedited.get(id(digests)) is digests:
            return
        edited = edited_files(task, self._pristine(root).known)
        if edited:
            raise UserError(edit_message(task, edited, is_newer=not edited_files(task, _read(root).known)))
        self._unedited[id(digests)] = digests  # referenced, so that no other mapping gets the same id

    def of_reach(self, suite: TestSuite) -> str:
        """Digest of a suite's measurements: its reach, and the seconds that its limits derive from."""
        unmeasured = suite.reach is None and suite.seconds is None and suite.slow is None
        if unmeasured and not suite.imported and not suite.companions:
            return ""
        key = (id(suite.reach), suite.imported, id(suite.companions), id(suite.seconds), id(suite.slow))
        with self._lock:
            if key not in self._reaches:
                # A reference to the suite, so that no other mapping gets the same id.
                self._reaches[key] = (suite, key_of([json.dumps(_measures(suite))]).hex())
            return self._reaches[key][1]


def _read(root: Path) -> Tree:
    """The current content of the folder, with the digest of each file."""
    tree = Tree(root)
    _ = tree.digest
    return tree


def _measures(suite: TestSuite) -> list[Any]:
    mappings = (suite.reach, suite.companions, suite.seconds, suite.slow)
    return [sorted(suite.imported), *(None if mapping is None else sorted(mapping.items()) for mapping in mappings)]
