"""Patches that nobody can test here, because they change code that the environment of the tests can't build.

`regrade score` leaves such a patch unscored: it may be right. A policy chooses its patches, and could escape the
verdict on a wrong one by an edit of such code. So training and evaluation judge it like a patch that crashes.
"""

from __future__ import annotations

from dataclasses import replace

from regrade.datasets.tasks import Task
from regrade.evaluators.execution.run_tests import not_applied
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import (
    BuildRun,
    DefaultVerification,
    End,
    EvidenceSet,
    PartialRun,
    TestRun,
    Verification,
)

UNTESTABLE = "the patch can't be tested here: "
"""Beginning of the reason why its evidence is missing."""


def as_failure(task: Task, evidence: EvidenceSet) -> EvidenceSet:
    """The evidence, with that of a failure where it is missing because of the patch."""
    reasons = {kind: why for kind, why in evidence.infrastructure.items() if why.startswith(UNTESTABLE)}
    if not reasons:
        return evidence
    failures = {kind: failure(kind, task, why) for kind, why in reasons.items()}
    others = {kind: why for kind, why in evidence.infrastructure.items() if kind not in reasons}
    return replace(evidence, records={**evidence.records, **failures}, infrastructure=others)


def failure(kind: type, task: Task, detail: str) -> TestRun | PartialRun | BuildRun | Verification:
    """The evidence of a patch with which nothing runs to its end."""
    if kind is TestRun:
        return replace(not_applied(task, detail), end=End.CRASHED)
    if issubclass(kind, PartialRun):
        return nothing_ran(kind, task, End.CRASHED, detail)
    if kind is BuildRun:
        return BuildRun(False, 0, detail)
    return (DefaultVerification if kind is DefaultVerification else Verification)(
        level=AssuranceLevel.IN_PROCESS, reachable="", why=detail
    )


def nothing_ran(kind: type[PartialRun], task: Task, end: End, detail: str) -> PartialRun:
    """The partial run of a patch with which no test runs: all are missing, as in the whole run."""
    return kind(outcomes=not_applied(task, detail).outcomes, end=end, detail=detail)
