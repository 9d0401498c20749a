"""Which stops a cascade may make with a reward: determined by asking the reward, before the first step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.probes import EXECUTED
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.pay_bounds import PayRange, check_monotone, pay_range
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.environments.attempts import CandidateAttempt, needs_of
from regrade.policy_training.environments.stops import CascadeStage, Ground
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.evidence import EvidenceSet, PartialRun, TestOutcome, TestStatus
from regrade.rewards.reward_model_folders import prediction_of

FAILED = TestOutcome(TestStatus.FAILED)
PASSED = TestOutcome(TestStatus.PASSED)


@dataclass(frozen=True)
class PossibleStop:
    """What one result of a stage leaves open, with a reward."""

    stage: CascadeStage
    ground: Ground
    pays: PayRange
    """What the whole execution can still pay."""


def possible_stops(reward: TrainingReward, task: Task, static: EvidenceSet) -> list[PossibleStop]:
    """Of an attempt that fixes nothing: after its FAIL_TO_PASS tests alone, and after their files, where it broke
    nothing, or one test. Results that bound nothing are left out.

    Args:
        static: of any patch of the task.
    """
    rollout = Rollout(task_id=task.id, policy="", temperature=0.0, sample=0, seed=0, patch=Patch(""))
    candidate = CandidateAttempt(rollout, is_empty=False, compiles=True, runs=True)
    failed = dict.fromkeys(task.fail_to_pass, FAILED)
    first, others = task.pass_to_pass[:1], task.pass_to_pass[1:]
    results = [
        (CascadeStage.FAIL_TO_PASS, Ground.EXACT, failed, task.pass_to_pass),
        (CascadeStage.FILE, Ground.SEVERITY, {**failed, **dict.fromkeys(first, FAILED)}, others),
        (CascadeStage.FILE, Ground.NOTHING_BROKEN, {**failed, **dict.fromkeys(first, PASSED)}, others),
    ]
    stops = []
    for stage, ground, outcomes, unrun in results:
        pays = pay_range(reward, task, candidate, static, PartialRun(outcomes=outcomes, unrun=unrun))
        if pays is not None:
            stops.append(PossibleStop(stage, Ground.EXACT if pays.is_exact else ground, pays))
    return stops


def is_permitted(stop: PossibleStop, settings: CascadeSettings) -> bool:
    """May a cascade with these settings make this stop?"""
    if stop.pays.is_exact:
        return True
    is_charged = stop.stage is CascadeStage.FILE and stop.pays.width <= settings.charge + 1e-9
    return is_charged and (stop.ground is not Ground.SEVERITY or settings.severity is not None)


def check_cascade(settings: CascadeSettings, reward: TrainingReward, tasks: Sequence[Task], scorer: Scorer) -> None:
    """Raises UserError if the cascade could never stop an attempt, a part of the tests bounds no pay, or the folder of
    its model holds none that runs here."""
    check_monotone(reward.reward)
    suitable = [task for task in tasks if task.fail_to_pass and len(task.pass_to_pass) > 1]
    if not suitable:
        raise UserError("cascade: no task has FAIL_TO_PASS and two PASS_TO_PASS tests, so nothing can be spared")
    task = max(suitable, key=lambda each: len(each.pass_to_pass))  # leaves the most open after one broken test
    kinds: set[type] = set() if settings.model is None else {prediction_of(settings.model)}
    (static,) = scorer.gather([(task, Patch(""))], (needs_of(reward) - EXECUTED) | kinds)
    stops = possible_stops(reward, task, static)
    if settings.model is not None and stops:
        return  # whatever the charge, it may be sure of an attempt
    if any(is_permitted(stop, settings) for stop in stops):
        return
    name = reward.reward.name
    of_file = {stop.ground: stop.pays for stop in stops if stop.stage is CascadeStage.FILE}
    if not of_file:
        raise UserError(f"cascade: reward {name!r} needs a verification that only the execution gives: leave it out")
    broke, unbroken = of_file.get(Ground.SEVERITY), of_file.get(Ground.NOTHING_BROKEN)
    if broke is not None and broke.width <= settings.charge + 1e-9:
        raise UserError(
            f"cascade: reward {name!r} pays from {broke.low:.3g} to {broke.high:.3g} by how much an attempt breaks; "
            "declare `severity`, the share of tests that a stopped attempt is charged to break"
        )
    advice = [
        f"charge = {math.ceil(1000 * pays.width - 1e-6) / 1000:g} to stop attempts that {what}"
        for pays, what in (
            (broke, "broke something, and declare `severity`"),
            (unbroken, "broke nothing in the files of their FAIL_TO_PASS tests"),
        )
        if pays is not None
    ]
    raise UserError(
        f"cascade: with charge {settings.charge:g} no stage could stop an attempt, because reward {name!r} depends on "
        f"tests after it: give {', or '.join(advice)}; or leave out the cascade"
    )
