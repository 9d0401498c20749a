"""Which patches can be paid at all, as far as their FAIL_TO_PASS tests say: the others need no whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.algebra import Reward
from regrade.rewards.evidence import EvidenceSet, FailToPassRun, TestOutcome, TestRun, TestStatus


def pays_only_whole_fixes(reward: Reward, of_reference: EvidenceSet, is_paid: Callable[[float | None], bool]) -> bool:
    """Is a patch unpaid that is as good as the reference in everything but one FAIL_TO_PASS test, which fails?

    Then no patch is paid with which one fails, unless it is better than the reference elsewhere.
    """
    run: TestRun | None = of_reference.records.get(TestRun)
    if run is None or not run.fixed:
        return False
    outcomes = {**run.outcomes, run.fixed[0]: TestOutcome(TestStatus.FAILED)}
    failing = EvidenceSet(
        {**of_reference.records, TestRun: replace(run, outcomes=outcomes)},
        of_reference.infrastructure,
        of_reference.assurance,
    )
    return not is_paid(reward.evaluate(failing).value)


def passing_fail_to_pass(scorer: Scorer, task: Task, patches: Sequence[Patch]) -> list[Patch]:
    """The patches with which every FAIL_TO_PASS test passes, and those of which it is unknown."""
    gathered = scorer.gather([(task, patch) for patch in patches], frozenset({FailToPassRun}))
    return [patch for patch, evidence in zip(patches, gathered, strict=True) if _may_pass(task, evidence)]


def _may_pass(task: Task, evidence: EvidenceSet) -> bool:
    run: FailToPassRun | None = evidence.records.get(FailToPassRun)
    if run is None:
        return True
    passed = {test for test, outcome in run.outcomes.items() if outcome.status is TestStatus.PASSED}
    return passed.issuperset(task.fail_to_pass)
