"""Writes a task set: a folder with the tasks, the measured tests that they share, and the files of the repositories.

    tasks.jsonl          one task a line (see `task_files.py`)
    suites/NAME.json     measured tests (see `measured_suites.py`)
    repositories/NAME/   the files of a repository at one state, without its history
    README.md            the card of the set
    yield.json           what became of each kind of candidate

The folder appears at once, when it is complete. `load_tasks` reads it on any machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.formats.measured_suites import MeasuredSuite
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree

TASKS = "tasks.jsonl"
CARD = "README.md"
YIELD = "yield.json"
PARTS = (TASKS, CARD, YIELD, "suites", "repositories")
"""All that a task set consists of."""


@dataclass(frozen=True)
class SetTask:
    """A task of a set."""

    task: Task
    flaky: tuple[str, ...] = ()
    """See `MeasuredSuite.flaky`."""
    split: str = ""
    wrong_fix: Patch | None = None
    """A patch that passes the shown tests and breaks others."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of `origin`: the commit, the distance, the number of tests that guard the target."""


def check_writable(folder: Path) -> None:
    """Raises UserError if the folder holds other things than a task set."""
    if folder.is_dir() and any(path.name not in PARTS for path in folder.iterdir()):
        other = next(path.name for path in sorted(folder.iterdir()) if path.name not in PARTS)
        raise UserError(
            f"{folder} contains {other!r}, which is no part of a task set: pass a new folder with `out=FOLDER`"
        )


def write_task_set(folder: Path, tasks: Sequence[SetTask], card: str, yields: Sequence[Mapping[str, Any]]) -> None:
    """Write a task set, in place of the one that is there. The same tasks give the same bytes.

    Raises:
        UserError: the folder holds other things than a task set.
        OSError: the disk is full, for example; the earlier set is then unchanged.
    """
    check_writable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    if old.is_dir() and not folder.exists():
        old.rename(folder)  # a run was killed between the two renames below
    for left in (made, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        (made / "repositories").mkdir(parents=True)
        (made / "suites").mkdir()
        writer = _Writer(made)
        lines = [json.dumps(writer.entry(one), ensure_ascii=True) for one in tasks]
        (made / TASKS).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        (made / CARD).write_text(card, "utf-8")
        (made / YIELD).write_text(json.dumps(list(yields), indent=1) + "\n", "utf-8")
        if folder.is_dir():
            folder.rename(old)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


class _Writer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._roots: dict[Path, str] = {}
        self._suites: dict[str, str] = {}
        self._known: dict[tuple[int, tuple[str, ...]], str] = {}

    def entry(self, one: SetTask) -> dict[str, Any]:
        task = one.task
        base_patch = patch_to(task)
        value: dict[str, Any] = {
            "id": task.id,
            "instruction": task.instruction,
            "repository": self._root(task),
            **({"base_patch": base_patch.text} if base_patch.text else {}),
            "suite": self._suite(one),
            "fail_to_pass": list(task.fail_to_pass),
        }
        if task.unnamed:
            value["unnamed"] = list(task.unnamed)
        if task.reference is not None:
            value["reference"] = task.reference.text
        if task.failure:
            value["failure"] = task.failure
        if task.difficulty:
            value["difficulty"] = task.difficulty
        if task.target is not None:
            value["target"] = dict(vars(task.target))
        if task.shown.tests is not None:
            value["shown"] = {"tests": list(task.shown.tests)}
        if task.assurance:
            value["assurance"] = task.assurance
        if one.wrong_fix is not None:
            value["wrong_fix"] = one.wrong_fix.text
        if one.split:
            value["split"] = one.split
        value["origin"] = {"source": task.source, "kind": task.kind, "repository": task.repository, **one.facts}
        return value

    def _root(self, task: Task) -> str:
        root = task.base.root
        if root not in self._roots:
            names = set(self._roots.values())
            name = next(each for each in _numbered(root.name) if f"repositories/{each}" not in names)
            shutil.copytree(root, self._folder / "repositories" / name, symlinks=True)
            self._roots[root] = f"repositories/{name}"
        return self._roots[root]

    def _suite(self, one: SetTask) -> str:
        """The file of the task's suite; its stable tests are those that the task runs and does not name as failing."""
        task = one.task
        tests = tuple(sorted({*task.fail_to_pass, *task.pass_to_pass}))
        key = (id(task.suite), tests)
        if key not in self._known:
            measured = MeasuredSuite(task.suite, tests, task.requirements, task.limits, one.flaky)
            if measured.text not in self._suites:
                name = f"suites/{task.repository}-{len(self._suites) + 1}.json"
                (self._folder / name).write_text(measured.text, "utf-8")
                self._suites[measured.text] = name
            self._known[key] = self._suites[measured.text]
        return self._known[key]


def patch_to(task: Task) -> Patch:
    """The patch from the files in the task's folder to its base."""
    replaced, root = task.base.replaced, task.base.root
    paths = sorted({*replaced, *(path for path in task.base.removed if (root / path).is_file())})
    pristine = Tree(root)
    before = {path: pristine.read(path) for path in paths if (root / path).is_file()}
    after = {path: replaced[path] for path in paths if path in replaced}
    return Patch.between(before, after)


def _numbered(name: str) -> Sequence[str]:
    return [name, *(f"{name}-{number}" for number in range(2, 10_000))]
