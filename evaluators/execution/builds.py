"""Build check of a patched tree: compiles changed files, imports every module, and builds the wheel if the base does.

Failures that also occur at the base do not count against the patch.
"""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import PurePosixPath

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.module_names import compiled, importable_modules, module_names
from regrade.evaluators.execution.records import CheckedRecord, ImportRecord, WheelRecord
from regrade.evaluators.execution.replies import clipped, ending
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Request, Worker, without_candidate
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.inside.commands import CHECKS
from regrade.rewards.evidence import BuildRun, End

PACKAGING = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in")


class Builder:
    """Builds workspaces, and caches the failures at their bases. May be used by several threads."""

    def __init__(self) -> None:
        self._imports: dict[str, frozenset[str]] = {}
        self._wheels: dict[str, str] = {}
        self._lock = threading.Lock()

    def build(
        self, worker: Worker, task: Task, patch: Patch, workspace: Workspace, preparation: Preparation, key: str
    ) -> tuple[BuildRun, int]:
        """Returns the evidence, and the number of candidates that were run for it.

        Args:
            key: digest of the task's base.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        build = compiled(workspace.before, workspace.after, patch, task)
        if not build.ok or selected_tests(task, workspace) is not None:
            return build, 0  # a change inside functions that no import calls can't break an import
        build, runs = self._check_files(worker, task, workspace, build)
        if not build.ok:
            return build, runs
        broken = self._broken_import(worker, task, workspace, preparation, key)
        if broken:
            return replace(build, ok=False, error=broken), runs + 1
        if not affects_packaging(task.base, workspace.after):
            return build, runs + 1
        return self._build_wheel(worker, task, workspace, build, key), runs + 2

    def _check_files(self, worker: Worker, task: Task, workspace: Workspace, build: BuildRun) -> tuple[BuildRun, int]:
        """Checks changed files of other languages by the commands of their languages."""
        changed = {path for path, text in workspace.after.replaced.items() if text != task.base.replaced.get(path)}
        files = tuple(sorted(path for path in changed if path.endswith(tuple(CHECKS))))
        if not files:
            return build, 0
        errors = _check_errors(worker, task, workspace, files)
        failing_files = {path: error for path, error in errors.items() if error}
        if failing_files:
            existing = tuple(path for path in failing_files if _has_file(task.base, path))
            with without_candidate():
                before = _check_errors(worker, task, Workspace(task.base, task.base), existing) if existing else {}
            failing_files = {path: error for path, error in failing_files.items() if not before.get(path)}
        error = next(iter(failing_files.values()), "")
        return replace(build, ok=not error, error=error, checked_files=build.checked_files + len(errors)), 1

    def _broken_import(
        self, worker: Worker, task: Task, workspace: Workspace, preparation: Preparation, key: str
    ) -> str:
        modules = importable_modules(workspace.after, task)
        if not modules:
            return ""
        failing = _failing_imports(worker, task, workspace, modules, preparation)
        if not failing:
            return ""
        if key not in self._imports:
            base, modules = Workspace(task.base, task.base), importable_modules(task.base, task)
            with without_candidate():
                before = _failing_imports(worker, task, base, modules, preparation)
            with self._lock:
                self._imports[key] = frozenset(before)
        expected = self._imports[key] | moved_modules(self._imports[key], workspace, task)
        new = [(module, error) for module, error in failing.items() if module not in expected]
        return "".join(f"{module}: {error}" if module else error for module, error in new[:1])

    def _build_wheel(self, worker: Worker, task: Task, workspace: Workspace, build: BuildRun, key: str) -> BuildRun:
        """Builds the wheel in the task's own environment, if the wheel of the base builds there."""
        if key not in self._wheels:
            with without_candidate():
                error = _wheel_error(worker, task, Workspace(task.base, task.base))
            with self._lock:
                self._wheels[key] = error
        if self._wheels[key]:
            return build
        error = _wheel_error(worker, task, workspace)
        return replace(build, ok=not error, error=f"the wheel: {error}" if error else "", wheel=not error)


def moved_modules(modules: frozenset[str], workspace: Workspace, task: Task) -> frozenset[str]:
    """New names of modules whose files the patch moves unchanged."""
    texts = {text: path for path, text in workspace.after.replaced.items() if not _has_file(workspace.before, path)}
    moved: set[str] = set()
    for path in workspace.after.removed - workspace.before.removed:
        new = texts.get(workspace.before.read(path))
        if new is not None and modules.intersection(module_names(path, task)):
            moved.update(module_names(new, task))
    return frozenset(moved)


def affects_packaging(before: Tree, after: Tree) -> bool:
    """Can the change affect how the project is packaged?

    It can if it adds or removes files, changes a file other than Python source, or changes a file that the packaging
    files name (for the version, for example).
    """
    if not any(_has_file(before, name) for name in PACKAGING):
        return False
    old, new = before.replaced, after.replaced
    changed = {path for path in {*old, *new} if old.get(path) != new.get(path)}
    if before.removed != after.removed or any(not _has_file(before, path) for path in changed):
        return True
    declarations = "\n".join(before.read(name) for name in PACKAGING if _has_file(before, name))
    return any(not path.endswith(".py") or path in PACKAGING or _is_named(path, declarations) for path in changed)


def _is_named(path: str, declarations: str) -> bool:
    """Named by its path, or as the module of an attribute (`version = {attr = "package.version"}`)?"""
    dotted = ".".join(PurePosixPath(path).with_suffix("").parts).removeprefix("src.").removesuffix(".__init__")
    return path in declarations or re.search(rf"(?<![\w.]){re.escape(dotted)}\.\w", declarations) is not None


def _has_file(tree: Tree, path: str) -> bool:
    return path in tree.replaced or (path not in tree.removed and (tree.root / path).is_file())


def _failing_imports(
    worker: Worker, task: Task, workspace: Workspace, modules: tuple[str, ...], preparation: Preparation = UNPREPARED
) -> dict[str, str]:
    """Module -> error of the modules that fail to import, in the given order, in one process."""
    reply = worker.run(
        workspace.after, Request(suite=task.suite, limits=task.limits, kind="imports", modules=modules), preparation
    )
    errors = {record.module: str(record.error) for record in reply.of(ImportRecord)}
    end, detail = ending(reply, task.limits.wall_seconds)
    if end is not End.COMPLETED:
        errors[""] = detail
    return errors


def _check_errors(worker: Worker, task: Task, workspace: Workspace, files: tuple[str, ...]) -> dict[str, str]:
    """File -> error of its language's own check (empty: none), for files that have such a check."""
    reply = worker.run(workspace.after, Request(suite=task.suite, limits=task.limits, kind="check", paths=files))
    end, detail = ending(reply, task.limits.wall_seconds)
    errors = {record.file: str(record.error) for record in reply.of(CheckedRecord)}
    return errors if end is End.COMPLETED else {**errors, files[0]: detail}


def _wheel_error(worker: Worker, task: Task, workspace: Workspace) -> str:
    """Why the wheel does not build in the environment of the task; empty: it builds."""
    reply = worker.run(workspace.after, Request(suite=task.suite, limits=task.limits, kind="wheel"))
    end, detail = ending(reply, task.limits.wall_seconds)
    if end is not End.COMPLETED:
        return detail
    results = reply.of(WheelRecord)
    if not results:
        return "the build backend exited without a result"
    return "" if results[-1].outcome == "built" else clipped(str(results[-1].detail))
