"""Probes: the function that gathers each type of static evidence, and the types that need an execution."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.rewards.evidence import (
    BuildRun,
    ComplexityDelta,
    DefaultVerification,
    Diff,
    FailToPassRun,
    Impact,
    Integrity,
    LintDelta,
    PatchText,
    ReadabilityDelta,
    TestFileRun,
    TestRun,
    Verification,
)

StaticProbe = Callable[[Tree, Tree, Patch, Task], Any]
"""(tree before, tree after, patch, task) -> evidence; reads code and never executes it."""


_MODULES: Mapping[type, str] = MappingProxyType(
    {
        LintDelta: "lint",
        ComplexityDelta: "complexity",
        ReadabilityDelta: "readability",
        Impact: "dependencies.impact",
        Diff: "diff",
        PatchText: "patch_text",
        Integrity: "tampering.integrity",
    }
)
"""The module of `evaluators/static` that gathers each type."""


def _imported(module: str) -> ModuleType:
    return importlib.import_module(f"regrade.evaluators.static.{module}")


def import_probes() -> None:
    """Import the modules of all static probes."""
    for module in _MODULES.values():
        _imported(module)


def _of(module: str) -> StaticProbe:
    """The probe of a module of `evaluators/static`, imported at its first use."""

    def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Any:
        return _imported(module).probe(before, after, patch, task)

    return probe


STATIC: Mapping[type, StaticProbe] = MappingProxyType({kind: _of(module) for kind, module in _MODULES.items()})
VERIFICATIONS = frozenset({Verification, DefaultVerification})
PARTIAL_RUNS = frozenset({FailToPassRun, TestFileRun})
EXECUTED = frozenset({TestRun, BuildRun, *VERIFICATIONS, *PARTIAL_RUNS})
"""Evidence that needs a sandbox."""
ON_REFERENCE = frozenset({TestRun, *PARTIAL_RUNS, *VERIFICATIONS, ComplexityDelta, Diff})
"""Evidence that depends on the task's reference patch, or without one on its target. Runs do after an alarm, which a
run with the reference may explain."""
UNREADABLE: Mapping[type, Any] = MappingProxyType(
    {
        LintDelta: LintDelta((), (), 0),
        ComplexityDelta: ComplexityDelta(functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0),
        ReadabilityDelta: ReadabilityDelta(()),
        Impact: Impact(changed_symbols=(), modules=()),
        Diff: Diff(0, 0, ()),
        PatchText: PatchText("", ()),
        Integrity: Integrity(()),
    }
)
"""The evidence of a text that is no patch: it changes nothing."""


def in_order(needs: Collection[type]) -> tuple[type, ...]:
    """The kinds of evidence and their dependencies, dependencies first.

    Executions come before what is read: the process that reads imports its tools meanwhile.
    """
    kinds = set(needs) if VERIFICATIONS.isdisjoint(needs) else {*needs, TestRun}
    return tuple(sorted(kinds, key=lambda kind: (kind in VERIFICATIONS, kind not in EXECUTED, kind.__qualname__)))


def static_evidence(probe: StaticProbe, kind: type, before: Tree, after: Tree, patch: Patch, task: Task) -> Any:
    """Run one static probe. Raises PatchError only for the user's own evidence types."""
    try:
        return probe(before, after, patch, task)
    except PatchError:
        if kind in UNREADABLE:
            return UNREADABLE[kind]
        raise
