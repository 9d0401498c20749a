"""Probes: what gathers each type of evidence, and which of them execute the candidate's code."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from regrade.datasets import applying
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.workspaces import is_protected
from regrade.rewards.evidence import (
    BuildRun,
    ComplexityDelta,
    Diff,
    Impact,
    Integrity,
    LintDelta,
    ReadabilityDelta,
    TestRun,
    Verification,
)

StaticProbe = Callable[[Tree, Tree, Patch, Task], Any]
"""(tree before, tree after, patch, task) -> evidence; reads and never executes."""


def _of(module: str) -> StaticProbe:
    """The probe of a module of `evaluators/static`, imported when it is first used."""

    def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Any:
        return importlib.import_module(f"regrade.evaluators.static.{module}").probe(before, after, patch, task)

    return probe


STATIC: Mapping[type, StaticProbe] = MappingProxyType(
    {
        LintDelta: _of("lint"),
        ComplexityDelta: _of("complexity"),
        ReadabilityDelta: _of("readability"),
        Impact: _of("impact"),
        Diff: _of("diff"),
        Integrity: _of("integrity"),
    }
)
EXECUTED = frozenset({TestRun, BuildRun, Verification})
"""Evidence that needs a sandbox."""
UNREADABLE: Mapping[type, Any] = MappingProxyType(
    {
        LintDelta: LintDelta((), (), 0),
        ComplexityDelta: ComplexityDelta((), 0, 0, 0, 0),
        ReadabilityDelta: ReadabilityDelta(()),
        Impact: Impact((), ()),
        Diff: Diff(0, 0, ()),
        Integrity: Integrity(()),
    }
)
"""What is known of a text that is no patch: it changes nothing."""
GRAMMARS = tuple(f"tree-sitter-{name}" for name in ("python", "javascript", "typescript", "go", "rust", "java"))
NOT_MODULES = frozenset({"setup", "conftest", "conf", "noxfile", "tasks", "fabfile", "__main__"})
"""Names of Python files that do something when they are imported."""


def in_order(needs: Collection[type]) -> tuple[type, ...]:
    """The kinds of evidence with those that they are made from, these first."""
    kinds = {*needs, TestRun} if Verification in needs else set(needs)
    return tuple(sorted(kinds, key=lambda kind: (kind is Verification, kind.__qualname__)))


def static_evidence(probe: StaticProbe, kind: type, before: Tree, after: Tree, patch: Patch, task: Task) -> Any:
    """Run one static probe. Raises PatchError only for evidence types of the user's own."""
    try:
        return probe(before, after, patch, task)
    except PatchError:
        if kind in UNREADABLE:
            return UNREADABLE[kind]
        raise


def compiled(before: Tree, after: Tree, patch: Patch, task: Task) -> BuildRun:
    """Does every patched file byte-compile? The part of BuildRun that executes nothing."""
    build: BuildRun = _of("builds")(before, after, patch, task)
    return build


def module_names(path: str, task: Task) -> Iterator[str]:
    """What a file may be imported by: one name a folder of the python path that it lies in."""
    for folder in task.suite.python_path:
        pure = PurePosixPath(path)
        if pure.suffix == ".py" and pure.is_relative_to(PurePosixPath(folder)):
            parts = pure.relative_to(PurePosixPath(folder)).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def importable_modules(tree: Tree, task: Task) -> tuple[str, ...]:
    """Dotted names of the project's modules on its python path: single files there and packages, tests left out."""
    paths = set(tree.paths())
    found = set()
    for folder in task.suite.python_path:
        base = PurePosixPath(folder)
        for path in paths:
            pure = PurePosixPath(path)
            if pure.suffix != ".py" or not pure.is_relative_to(base) or is_protected(path, task.suite.protected):
                continue
            parts = pure.relative_to(base).with_suffix("").parts
            packages = [base.joinpath(*parts[: count + 1], "__init__.py").as_posix() for count in range(len(parts) - 1)]
            if (
                all(package in paths for package in packages)
                and not NOT_MODULES.intersection(parts)
                and _are_names(parts)
            ):
                found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return tuple(sorted(found - {""}))


def _are_names(parts: tuple[str, ...]) -> bool:
    return all(part.isidentifier() for part in parts)


def code_version() -> str:
    """Digest of the code that gathers evidence and of the tools that it uses: a part of every key in the store."""
    whole = hashlib.sha256()
    here = Path(__file__).parent
    files = [*here.glob("static/**/*.py"), *here.glob("inside/*.py")]
    names = (
        "baseline", "executions", "building", "selection", "outlines", "workspaces", "probes", "serialisation",
        "split", "held_out", "verification", "verifying",
        "tripwires", "twins", "counterfactuals"
    )  # fmt: skip
    files += [here / f"{name}.py" for name in names] + [Path(applying.__file__)]
    for path in sorted(files):
        whole.update(path.name.encode() + path.read_bytes())
    for tool in ("ruff", "radon", "lizard", "complexipy", "tree-sitter", *GRAMMARS):
        try:
            whole.update(f"{tool}=={version(tool)}".encode())
        except PackageNotFoundError:
            whole.update(f"no {tool}".encode())
    return whole.hexdigest()
