"""What a reward model expects of a patch, and what that would be paid: the model predicts the facts, the reward judges.

A model that tells whether a patch fixes and whether it breaks leaves four outcomes. Each is a completion of what has
run, and is paid as if it had been executed. The model is sure of an event if its whole interval lies within `unsure` of
0 or of 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from regrade.datasets.tasks import Task
from regrade.policy_training.cascade.pay_bounds import ROUNDING, completed, other_executions, pay_of
from regrade.policy_training.environments.attempts import CandidateAttempt
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.evidence import EvidenceSet, PartialRun, Prediction, TestOutcome, TestRun, TestStatus


@dataclass(frozen=True)
class PredictedOutcome:
    """One way in which the execution of an attempt can end."""

    fixes: bool
    breaks: bool


OUTCOMES = tuple(PredictedOutcome(*each) for each in product((True, False), repeat=2))
"""Fixes and breaks, fixes alone, breaks alone, neither."""


@dataclass(frozen=True)
class PredictedEvent:
    """The probability of an event, and half the width of its interval."""

    probability: float
    doubt: float

    def answer(self, unsure: float) -> bool | None:
        """Does it happen? None: the model is not sure."""
        if self.probability + self.doubt <= unsure:
            return False
        return True if self.probability - self.doubt >= 1 - unsure else None


def event(prediction: Prediction, name: str) -> PredictedEvent | None:
    """A component of a prediction (`fixes`, `breaks`); None: the model has no such head, or cannot read the patch."""
    if prediction.resolved is None:
        return None
    return next((PredictedEvent(part.value, part.doubt) for part in prediction.parts if part.name == name), None)


def sure_outcome(prediction: Prediction, seen: PartialRun | None, task: Task, unsure: float) -> PredictedOutcome | None:
    """The outcome of which the model is sure, where tests that ran have not told already; None: it is not sure.

    A model without a head for breakage is never sure.
    """
    fixes = None if seen is None else not seen.failing(task.fail_to_pass)
    if fixes is None:
        fixing = event(prediction, "fixes")
        if fixing is None and prediction.resolved is not None:
            fixing = PredictedEvent(prediction.resolved, prediction.doubt)
        fixes = None if fixing is None else fixing.answer(unsure)
    breaking = event(prediction, "breaks")
    breaks = None if breaking is None else breaking.answer(unsure)
    return None if fixes is None or breaks is None else PredictedOutcome(fixes, breaks)


def chances(prediction: Prediction) -> dict[PredictedOutcome, float] | None:
    """The probability of each outcome; None: the model cannot read the patch.

    `resolved` is that of a clean fix. The heads `fixes` and `breaks` give the others, as far as they agree with it;
    without them, what is no clean fix neither fixes nor breaks.
    """
    if prediction.resolved is None:
        return None
    clean = min(1.0, max(0.0, prediction.resolved))
    fixing, breaking = event(prediction, "fixes"), event(prediction, "breaks")
    both = max(0.0, fixing.probability - clean) if fixing is not None else 0.0
    only_breaks = max(0.0, breaking.probability - both) if breaking is not None else 0.0
    shares = [both, clean, only_breaks, max(0.0, 1.0 - clean - both - only_breaks)]
    return {outcome: share / sum(shares) for outcome, share in zip(OUTCOMES, shares, strict=True)}


def supposed_run(task: Task, seen: PartialRun | None, outcome: PredictedOutcome, severity: float) -> TestRun:
    """The run of an attempt that ends like this; breakage is charged by `severity`, and is at least one test."""
    known = seen or PartialRun(outcomes={}, unrun=task.pass_to_pass)
    status = TestStatus.PASSED if outcome.fixes else TestStatus.FAILED
    targets = {test: known.outcomes.get(test, TestOutcome(status)) for test in task.fail_to_pass}
    supposed = PartialRun(outcomes={**known.outcomes, **targets}, unrun=known.unrun, end=known.end, detail=known.detail)
    count = 0
    if outcome.breaks:
        broken = len(known.failing(task.pass_to_pass))
        count = max(0 if broken else 1, math.ceil(severity * len(task.pass_to_pass) - ROUNDING) - broken)
    return completed(task, supposed, TestStatus.PASSED, failing=known.unrun[:count])


def supposed_pay(
    reward: TrainingReward, candidate: CandidateAttempt, static: EvidenceSet, run: TestRun
) -> float | None:
    """What such a run is paid; None: only its execution shows that."""
    pay = pay_of(reward, candidate, static, run, next(other_executions(reward.reward, run)))
    return None if pay is None else pay.value


def expected_pay(
    reward: TrainingReward,
    task: Task,
    candidate: CandidateAttempt,
    static: EvidenceSet,
    prediction: Prediction,
    severity: float,
) -> float | None:
    """The mean of what the outcomes are paid, by their probabilities; None: the model or the reward cannot tell."""
    shares = chances(prediction)
    if shares is None:
        return None
    total = 0.0
    for outcome, share in shares.items():
        if share > 0.0:
            pay = supposed_pay(reward, candidate, static, supposed_run(task, None, outcome, severity))
            if pay is None:
                return None
            total += share * pay
    return total
