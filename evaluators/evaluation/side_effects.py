"""What a row says of a patch beside what it fixed: where it changed lines, how far it broke, what it left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.footprint import Footprint, footprint, hops_of, relevance
from regrade.rewards.evidence import BuildRun, ComplexityDelta, EvidenceSet, Integrity, LintDelta

COLLATERAL = frozenset({LintDelta, ComplexityDelta, BuildRun, Integrity})
"""Evidence that the columns are made of, beside the tests'."""


class SideEffects:
    """Makes the optional columns of rows (see `regrade.evaluators.storage.rows`); equal patches are looked at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Footprint | None] = {}

    def columns(
        self, task: Task, patch: Patch, evidence: EvidenceSet, *, empty: bool, broken_tests: Sequence[str]
    ) -> dict[str, Any]:
        """The columns of one attempt; what nobody gathered, or what does not apply to an empty patch, is None.

        Args:
            empty: nothing was changed, by an empty patch or one that does not apply.
            broken_tests: ids of the guarded tests that it broke.
        """
        if empty:
            return {"broken_hops": []}
        own = self._of(task, patch)
        patched = own.old_paths if own else ()
        return {
            "broken_hops": hops_of(task, patched, broken_tests),
            **self._relevance(task, own),
            **_left_behind(evidence),
        }

    def _of(self, task: Task, patch: Patch) -> Footprint | None:
        key = (task.digest, patch.digest)
        if key not in self._known:
            self._known[key] = footprint(task, patch)
        return self._known[key]

    def _relevance(self, task: Task, own: Footprint | None) -> dict[str, Any]:
        reference = self._of(task, task.reference) if task.reference is not None else None
        if own is None or reference is None:
            return {}
        found = relevance(own, reference)
        return {
            "touches_file": int(found.touches_file),
            "touches_function": int(found.touches_function),
            "off_file": found.off_file,
            "off_function": found.off_function,
        }


def _left_behind(evidence: EvidenceSet) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lint: LintDelta | None = evidence.records.get(LintDelta)
    complexity: ComplexityDelta | None = evidence.records.get(ComplexityDelta)
    build: BuildRun | None = evidence.records.get(BuildRun)
    integrity: Integrity | None = evidence.records.get(Integrity)
    if lint is not None and not lint.unparsable:
        found |= {"lint_added": len(lint.added), "lint_removed": len(lint.removed)}
    if complexity is not None and not complexity.unparsable:
        found["complexity_change"] = complexity.sum_after - complexity.sum_before
    if build is not None:
        found["built"] = int(build.ok)
    if integrity is not None:
        found["protected_edits"] = len(integrity.ignored_files)
    return found
