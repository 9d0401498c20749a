"""What thousands of tasks share, found out once per scorer and safe for its threads."""

from __future__ import annotations

import hashlib
import json
import marshal
import threading
import weakref
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.scoring.repository_edits import complaint, edited_files
from regrade.evaluators.storage.digests import key_of


class Digests:
    """Digests of what is a task's own and, found out once, of what tasks share: pristine folders, what was measured."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[Path, Tree] = {}
        self._unedited: dict[int, dict[str, str]] = {}
        self._reaches: dict[tuple[int, frozenset[str], int, int], tuple[TestSuite, str]] = {}
        self._tasks: dict[int, tuple[weakref.ref[Task], str]] = {}

    def of_task(self, task: Task) -> str:
        """Of the files that its base changes, and of the ids of its tests; found out once for each object."""
        place = id(task)
        known = self._tasks.get(place)
        if known is not None and known[0]() is task:
            return known[1]
        parts = (
            sorted(task.base.replaced.items()),
            sorted(task.base.removed),
            task.fail_to_pass,
            task.pass_to_pass,
        )
        # It is a lot of text, and marshal is ten times as fast as repr or JSON. Later versions of its format depend on
        # which strings are the same object.
        digest = hashlib.sha256(marshal.dumps(parts, 2)).hexdigest()
        self._tasks[place] = (weakref.ref(task, lambda _: self._tasks.pop(place, None)), digest)
        return digest

    def of_root(self, root: Path) -> str:
        return self._pristine(root).digest

    def _pristine(self, root: Path) -> Tree:
        with self._lock:
            if root not in self._roots:
                self._roots[root] = _read(root)
            return self._roots[root]

    def check(self, task: Task) -> None:
        """Does the task's repository lie there as it did when it was found out which of its tests pass?

        Raises:
            UserError: files that decide that are others by now; says which, and what to do.
        """
        known, root = task.base.known, task.base.root
        if not known or self._unedited.get(id(known)) is known:
            return
        edited = edited_files(task, self._pristine(root).known)
        if edited:
            raise UserError(complaint(task, edited, is_newer=not edited_files(task, _read(root).known)))
        self._unedited[id(known)] = known  # held, so that no other mapping gets the same id

    def of_reach(self, suite: TestSuite) -> str:
        """Of all that was measured of a suite: which tests reach what, and the seconds that limits are made of."""
        if suite.reach is None and suite.seconds is None and not suite.imported:
            return ""
        key = (id(suite.reach), suite.imported, id(suite.companions), id(suite.seconds))
        with self._lock:
            if key not in self._reaches:
                # The suite is held, so that no other mapping gets the same id.
                self._reaches[key] = (suite, key_of([json.dumps(_measures(suite))]).hex())
            return self._reaches[key][1]


def _read(root: Path) -> Tree:
    """The folder as it lies there, with the digest of each file."""
    tree = Tree(root)
    _ = tree.digest
    return tree


def _measures(suite: TestSuite) -> list[Any]:
    mappings = (suite.reach, suite.companions, suite.seconds)
    return [sorted(suite.imported), *(None if found is None else sorted(found.items()) for found in mappings)]
