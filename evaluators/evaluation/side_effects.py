"""Columns of side effects: changed lines, hops to broken tests, lint, complexity, build, protected edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.broken_places import places_of
from regrade.evaluators.evaluation.footprint import Footprint, footprint, hops_of, relevance
from regrade.rewards.evidence import BuildRun, ComplexityDelta, EvidenceSet, Integrity, LintDelta

COLLATERAL = frozenset({LintDelta, ComplexityDelta, BuildRun, Integrity})
"""Types of evidence for these columns, besides test runs."""


class SideEffects:
    """Computes the optional columns of rows (see `regrade.evaluators.storage.rows`), once for equal patches."""

    def __init__(self) -> None:
        self._footprints: dict[tuple[str, str], Footprint | None] = {}

    def columns(
        self, task: Task, patch: Patch, evidence: EvidenceSet, *, empty: bool, broken_tests: Sequence[str]
    ) -> dict[str, Any]:
        """The columns of one attempt, without those of missing evidence and those undefined for an empty patch.

        Args:
            empty: the patch is empty or does not apply.
            broken_tests: ids of the broken guarded tests.
        """
        if empty:
            return {"broken_hops": [], "broken_places": []}
        own = self._footprint(task, patch)
        patched = own.old_paths if own else ()
        return {
            "broken_hops": hops_of(task, patched, broken_tests),
            "broken_places": places_of(task, own.lines if own else (), broken_tests),
            **self._relevance(task, own),
            **_static_changes(evidence),
        }

    def _footprint(self, task: Task, patch: Patch) -> Footprint | None:
        key = (task.digest, patch.digest)
        if key not in self._footprints:
            self._footprints[key] = footprint(task, patch)
        return self._footprints[key]

    def _relevance(self, task: Task, own: Footprint | None) -> dict[str, Any]:
        reference = self._footprint(task, task.reference) if task.reference is not None else None
        if own is None or reference is None:
            return {}
        overlap = relevance(own, reference)
        return {
            "touches_file": int(overlap.touches_file),
            "touches_function": int(overlap.touches_function),
            "off_file": overlap.off_file,
            "off_function": overlap.off_function,
        }


def _static_changes(evidence: EvidenceSet) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    lint: LintDelta | None = evidence.records.get(LintDelta)
    complexity: ComplexityDelta | None = evidence.records.get(ComplexityDelta)
    build: BuildRun | None = evidence.records.get(BuildRun)
    integrity: Integrity | None = evidence.records.get(Integrity)
    if lint is not None and not lint.unparsable:
        columns |= {"lint_added": len(lint.added), "lint_removed": len(lint.removed)}
    if complexity is not None and not complexity.unparsable:
        columns["complexity_change"] = complexity.sum_after - complexity.sum_before
    if build is not None:
        columns["built"] = int(build.ok)
    if integrity is not None:
        columns["protected_edits"] = len(integrity.ignored_files)
    return columns
