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
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrade.datasets.formats.measured_suites import MeasuredSuite
from regrade.datasets.output_folders import check_parts, completed_folder
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
    check_parts(folder, PARTS, "task set")


def write_task_set(folder: Path, tasks: Sequence[SetTask], card: str, yields: Sequence[Mapping[str, Any]]) -> None:
    """Write a task set, in place of the one that is there. The same tasks give the same bytes.

    Raises:
        UserError: the folder holds other things than a task set.
        OSError: the disk is full, for example; the earlier set is then unchanged.
    """
    check_writable(folder)
    with completed_folder(folder) as made:
        writer = _Writer(made)
        lines = [json.dumps(writer.entry(one), ensure_ascii=True) for one in tasks]
        (made / TASKS).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        (made / CARD).write_text(card, "utf-8")
        (made / YIELD).write_text(json.dumps(list(yields), indent=1) + "\n", "utf-8")


class _Writer:
    def __init__(self, folder: Path) -> None:
        (folder / "repositories").mkdir()
        self._folder = folder
        self._roots: dict[Path, str] = {}
        self._suites = SuiteFiles(folder)

    def entry(self, one: SetTask) -> dict[str, Any]:
        task = one.task
        base_patch = patch_to(task)
        return {
            "id": task.id,
            "instruction": task.instruction,
            "repository": self._root(task),
            **({"base_patch": base_patch.text} if base_patch.text else {}),
            "suite": self._suites.name_of(one),
            "fail_to_pass": list(task.fail_to_pass),
            **({"reference": task.reference.text} if task.reference is not None else {}),
            **described(one),
        }

    def _root(self, task: Task) -> str:
        root = task.base.root
        if root not in self._roots:
            names = set(self._roots.values())
            name = next(each for each in _numbered(root.name) if f"repositories/{each}" not in names)
            shutil.copytree(root, self._folder / "repositories" / name, symlinks=True)
            self._roots[root] = f"repositories/{name}"
        return self._roots[root]


def described(one: SetTask) -> dict[str, Any]:
    """The keys of a task's entry that other formats have no field for."""
    task = one.task
    value: dict[str, Any] = {}
    if task.unnamed:
        value["unnamed"] = list(task.unnamed)
    if task.failure:
        value["failure"] = task.failure
    if task.difficulty:
        value["difficulty"] = task.difficulty
    if task.target is not None:
        value["target"] = dict(vars(task.target))
    if shown := _shown(task):
        value["shown"] = shown
    if task.assurance:
        value["assurance"] = task.assurance
    if one.wrong_fix is not None:
        value["wrong_fix"] = one.wrong_fix.text
    if one.split:
        value["split"] = one.split
    value["origin"] = {"source": task.source, "kind": task.kind, "repository": task.repository, **one.facts}
    return value


def _shown(task: Task) -> dict[str, Any]:
    tests, names = task.shown.tests, task.shown.names_failing_tests
    return {
        **({} if tests is None else {"tests": list(tests)}),
        **({} if names else {"names_failing_tests": False}),
    }


class SuiteFiles:
    """The files of measured tests in a folder that is being written; tasks with equal suites share one."""

    def __init__(self, folder: Path) -> None:
        (folder / "suites").mkdir()
        self._folder = folder
        self._suites: dict[str, str] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def name_of(self, one: SetTask) -> str:
        """The file of the task's suite; its stable tests are those that the task runs and does not name as failing."""
        task = one.task
        measured = measured_suite_of(one)
        key = (id(task.suite), measured.tests, task.requirements, task.limits)
        if key not in self._known:
            if measured.text not in self._suites:
                name = f"suites/{plain_name(task.repository)}-{len(self._suites) + 1}.json"
                (self._folder / name).write_text(measured.text, "utf-8")
                self._suites[measured.text] = name
            self._known[key] = self._suites[measured.text]
        return self._known[key]


def measured_suite_of(one: SetTask) -> MeasuredSuite:
    """The tests of a task as a file of measured tests."""
    task = one.task
    tests = tuple(sorted({*task.fail_to_pass, *task.pass_to_pass}))
    return MeasuredSuite(task.suite, tests, task.requirements, task.limits, one.flaky)


def plain_name(name: str) -> str:
    """The name as part of a file's name: `owner/name` becomes `owner__name`."""
    return re.sub(r"[^\w.-]+", "-", name.replace("/", "__")) or "repository"


def patch_to(task: Task) -> Patch:
    """The patch from the files in the task's folder to its base."""
    return Patch.between(*_texts(task))


def patch_from(task: Task) -> Patch:
    """The reverse of `patch_to`: for a base that is a planted bug, its fix."""
    before, after = _texts(task)
    return Patch.between(after, before)


def _texts(task: Task) -> tuple[dict[str, str], dict[str, str]]:
    """The files that differ, in the task's folder and at its base."""
    replaced, root = task.base.replaced, task.base.root
    paths = sorted({*replaced, *(path for path in task.base.removed if (root / path).is_file())})
    pristine = Tree(root)
    before = {path: pristine.read(path) for path in paths if (root / path).is_file()}
    return before, {path: replaced[path] for path in paths if path in replaced}


def _numbered(name: str) -> Sequence[str]:
    return [name, *(f"{name}-{number}" for number in range(2, 10_000))]
