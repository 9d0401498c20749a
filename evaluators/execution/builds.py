"""Does the patched tree still build? Compile what changed, import every module, build the wheel where there is one.

What already fails at the base is not held against the patch.
"""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import PurePosixPath

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.module_names import compiled, importable_modules, module_names
from regrade.evaluators.execution.run_tests import check_errors, failing_imports, wheel_error
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.worker import Preparation, Worker
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.inside.commands import CHECKS
from regrade.rewards.evidence import BuildRun

PACKAGING = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in")


class Builder:
    """Builds workspaces, and remembers what fails at their bases. May be used by several threads."""

    def __init__(self) -> None:
        self._imports: dict[str, frozenset[str]] = {}
        self._wheels: dict[str, str] = {}
        self._lock = threading.Lock()

    def build(
        self, worker: Worker, task: Task, patch: Patch, workspace: Workspace, preparation: Preparation, key: str
    ) -> tuple[BuildRun, int]:
        """The evidence, and how many candidates were run for it.

        Args:
            key: digest of the task's base.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        build = compiled(workspace.before, workspace.after, patch, task)
        if not build.ok or selected_tests(task, workspace) is not None:
            return build, 0  # a change inside functions that nothing calls on import can't stop an import
        build, runs = self._checked(worker, task, workspace, build)
        if not build.ok:
            return build, runs
        broken = self._broken_import(worker, task, workspace, preparation, key)
        if broken:
            return replace(build, ok=False, error=broken), runs + 1
        if not packaging_reads(task.base, workspace.after):
            return build, runs + 1
        return self._wheel(worker, task, workspace, build, key), runs + 2

    def _checked(self, worker: Worker, task: Task, workspace: Workspace, build: BuildRun) -> tuple[BuildRun, int]:
        """The files of other languages that changed, by the commands of their languages."""
        changed = {path for path, text in workspace.after.replaced.items() if text != task.base.replaced.get(path)}
        files = tuple(sorted(path for path in changed if path.endswith(tuple(CHECKS))))
        if not files:
            return build, 0
        found = check_errors(worker, task, workspace, files)
        wrong = {path: error for path, error in found.items() if error}
        if wrong:
            there = tuple(path for path in wrong if _there(task.base, path))
            before = check_errors(worker, task, Workspace(task.base, task.base), there) if there else {}
            wrong = {path: error for path, error in wrong.items() if not before.get(path)}
        error = next(iter(wrong.values()), "")
        return replace(build, ok=not error, error=error, checked_files=build.checked_files + len(found)), 1

    def _broken_import(
        self, worker: Worker, task: Task, workspace: Workspace, preparation: Preparation, key: str
    ) -> str:
        modules = importable_modules(workspace.after, task)
        if not modules:
            return ""
        failing = failing_imports(worker, task, workspace, modules, preparation)
        if not failing:
            return ""
        if key not in self._imports:
            base, modules = Workspace(task.base, task.base), importable_modules(task.base, task)
            before = failing_imports(worker, task, base, modules, preparation)
            with self._lock:
                self._imports[key] = frozenset(before)
        known = self._imports[key] | moved_modules(self._imports[key], workspace, task)
        new = [(module, why) for module, why in failing.items() if module not in known]
        return "".join(f"{module}: {why}" if module else why for module, why in new[:1])

    def _wheel(self, worker: Worker, task: Task, workspace: Workspace, build: BuildRun, key: str) -> BuildRun:
        """The wheel is built where the base's can be, in the task's own environment."""
        if key not in self._wheels:
            error = wheel_error(worker, task, Workspace(task.base, task.base))
            with self._lock:
                self._wheels[key] = error
        if self._wheels[key]:
            return build
        error = wheel_error(worker, task, workspace)
        return replace(build, ok=not error, error=f"the wheel: {error}" if error else "", wheel=not error)


def moved_modules(modules: frozenset[str], workspace: Workspace, task: Task) -> frozenset[str]:
    """What modules are called now whose files the patch has moved without a change."""
    texts = {text: path for path, text in workspace.after.replaced.items() if not _there(workspace.before, path)}
    moved: set[str] = set()
    for path in workspace.after.removed - workspace.before.removed:
        new = texts.get(workspace.before.read(path))
        if new is not None and modules.intersection(module_names(path, task)):
            moved.update(module_names(new, task))
    return frozenset(moved)


def packaging_reads(before: Tree, after: Tree) -> bool:
    """May the change matter to how the project is packed?

    It does if files come or go, if a file other than Python source changes, and if the packaging's own files name the
    one that does (for the version, say).
    """
    if not any(_there(before, name) for name in PACKAGING):
        return False
    changed = {path for path in {*before.replaced, *after.replaced} if before.replaced.get(path) != _now(after, path)}
    if before.removed != after.removed or any(not _there(before, path) for path in changed):
        return True
    said = "\n".join(before.read(name) for name in PACKAGING if _there(before, name))
    return any(not path.endswith(".py") or path in PACKAGING or _is_named(path, said) for path in changed)


def _is_named(path: str, said: str) -> bool:
    """By its path, or as the module of an attribute (`version = {attr = "package.version"}`)."""
    dotted = ".".join(PurePosixPath(path).with_suffix("").parts).removeprefix("src.").removesuffix(".__init__")
    return path in said or re.search(rf"(?<![\w.]){re.escape(dotted)}\.\w", said) is not None


def _now(tree: Tree, path: str) -> str | None:
    return tree.replaced.get(path)


def _there(tree: Tree, path: str) -> bool:
    return path in tree.replaced or (path not in tree.removed and (tree.root / path).is_file())
