"""What an attempt can still be paid when only some of its tests have run.

A reward is asked about completions of the partial run: the best one, in which every test that has not run passes, and
the worst ones, in which every such test fails, or the patch ends the run. Between them lies what the whole execution
pays, if the reward never rises when a test breaks, is not fixed, or the run stops: `check_monotone` tests that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.attempts import CandidateAttempt
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.algebra import Reward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.conformance import Violation, examine_reward
from regrade.rewards.errors import described_attempt, errors_of_attempt
from regrade.rewards.evidence import (
    BuildRun,
    DefaultVerification,
    End,
    EvidenceSet,
    Integrity,
    PartialRun,
    TestOutcome,
    TestRun,
    TestStatus,
    Verification,
)

ROUNDING = 1e-9
"""Pays that differ by less are equal."""
RULES = ("breaking never pays", "fixing never costs", "stopping never pays")
"""What a reward must satisfy so that completions bound its pay; `regrade.rewards.conformance` defines them."""
EXAMPLES = 50
"""Generated pieces of evidence for each rule."""
_BUILDS = (BuildRun(True, 1), BuildRun(False, 1, "not built"))
_NOTHING_TO_VERIFY: Mapping[type, Verification] = {
    kind: kind(level=max(AssuranceLevel), reachable="") for kind in (Verification, DefaultVerification)
}
"""The verification of a run in which no FAIL_TO_PASS test passes, as `assurance_levels` defines it."""


@dataclass(frozen=True)
class PayRange:
    """What the whole execution can pay."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def is_exact(self) -> bool:
        """Can no further test change it?"""
        return self.width <= ROUNDING


@dataclass(frozen=True)
class CompletedPay:
    """What one completion of a partial run pays."""

    value: float
    cause: str
    breakdown: Breakdown


def pay_range(
    reward: TrainingReward, task: Task, candidate: CandidateAttempt, static: EvidenceSet, seen: PartialRun
) -> PayRange | None:
    """The least and the most that the whole execution pays.

    Args:
        static: the evidence that needs no execution.
        seen: the tests that ran.

    Returns:
        None: the completions do not bound it, as the reward is unscored on one, or reads a verification of fixes.
    """
    values = []
    for run in _extremes(task, seen):
        for records in other_executions(reward.reward, run):
            pay = pay_of(reward, candidate, static, run, records)
            if pay is None:
                return None
            values.append(pay.value)
    return PayRange(min(values), max(values)) if values else None


def pay_of(
    reward: TrainingReward,
    candidate: CandidateAttempt,
    static: EvidenceSet,
    run: TestRun,
    executed: Mapping[type, Any],
) -> CompletedPay | None:
    """What an attempt with this completed run is paid; None: it is unscored."""
    evidence = EvidenceSet({**static.records, **executed, TestRun: run}, static.infrastructure, static.assurance)
    integrity = static.records.get(Integrity)
    rollout = candidate.rollout
    with errors_of_attempt(described_attempt(rollout.policy, rollout.task_id, rollout.temperature, rollout.sample)):
        breakdown = reward.reward.evaluate(evidence)
    value, cause = reward.payment(
        breakdown,
        run,
        is_empty=candidate.is_empty,
        compiles=candidate.compiles,
        tampered=bool(integrity.kinds) if isinstance(integrity, Integrity) else None,
    )
    return None if value is None or math.isnan(value) else CompletedPay(value, cause, breakdown)


def charged_run(task: Task, seen: PartialRun, severity: float) -> TestRun:
    """The completion that a stopped attempt is paid by.

    If it broke something, or ended the run, it is charged to break a share `severity` of the PASS_TO_PASS tests, at
    least those seen, at most all that its change can reach. Otherwise the tests that have not run pass.
    """
    broken = seen.failing(task.pass_to_pass)
    extra = 0
    if broken or seen.end is not End.COMPLETED:
        extra = max(0, math.ceil(severity * len(task.pass_to_pass) - ROUNDING) - len(broken))
    return completed(task, seen, TestStatus.PASSED, failing=seen.unrun[:extra])


def completed(
    task: Task, seen: PartialRun, status: TestStatus, *, end: End | None = None, failing: Iterable[str] = ()
) -> TestRun:
    """The run in which the tests that have not run have this status, those of `failing` FAILED.

    A PASS_TO_PASS test that the change cannot reach is UNREACHED, as in every run.
    """
    unknown, unreached = TestOutcome(status), TestOutcome(TestStatus.UNREACHED)
    unrun, failed = frozenset(seen.unrun), frozenset(failing)
    outcomes: dict[str, TestOutcome] = {}
    for test in task.fail_to_pass:
        outcomes[test] = seen.outcomes.get(test, unknown)
    for test in task.pass_to_pass:
        rest = TestOutcome(TestStatus.FAILED) if test in failed else unknown if test in unrun else unreached
        outcomes[test] = seen.outcomes.get(test, rest)
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        end=end or seen.end,
        detail=seen.detail,
        scope="reachable",
        seconds=seen.seconds,
        unnamed=task.unnamed,
    )


def _extremes(task: Task, seen: PartialRun) -> Iterator[TestRun]:
    yield completed(task, seen, TestStatus.PASSED)
    if seen.unrun or any(test not in seen.outcomes for test in task.fail_to_pass):
        yield completed(task, seen, TestStatus.FAILED)
        if seen.end is End.COMPLETED:
            yield completed(task, seen, TestStatus.MISSING, end=End.CRASHED)


def other_executions(reward: Reward, run: TestRun) -> Iterator[Mapping[type, Any]]:
    """The evidence beside the tests that an execution may give. None, if a fix would have to be verified."""
    verifications = {kind: record for kind, record in _NOTHING_TO_VERIFY.items() if kind in reward.needs}
    if verifications and run.fixed and run.end is End.COMPLETED:
        yield {}  # the reward is then unscored, so nothing bounds it
    elif BuildRun in reward.needs:
        yield from ({BuildRun: build, **verifications} for build in _BUILDS)
    else:
        yield verifications


def check_monotone(reward: Reward) -> None:
    """Raises UserError if completions do not bound the reward: it rises when a test breaks, or the run stops."""
    if TestRun not in reward.needs:
        return
    try:
        results = examine_reward(reward, examples=EXAMPLES)
    except TypeError:  # evidence of the user's own, of which no examples can be made
        return
    for rule in RULES:
        result = results[rule]
        if isinstance(result, Violation):
            raise UserError(
                f"cascade: reward {reward.name!r} breaks the rule {rule!r} ({result.problem}), so a part of its tests "
                "cannot bound what it pays: repair the reward (`regrade rewards check`), or leave out the cascade"
            )
