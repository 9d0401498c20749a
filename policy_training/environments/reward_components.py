"""What the components of a reward taught in a step, for its log: `evaluators/analysis/component_effects.py`."""

from __future__ import annotations

from collections.abc import Sequence

from regrade.evaluators.analysis.component_effects import PaidAttempt, component_numbers, gate_name
from regrade.policy_training.environments.attempts import Attempt
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.algebra import AtLeast, Clip, Minimum, Named, OnlyIf, Otherwise, Reward, Sum


def numbers_of_step(
    attempts: Sequence[Attempt], reward: TrainingReward, step_costs: Sequence[float] | None = None
) -> dict[str, float]:
    """The components of a step of GRPO, RLOO or PPO, as `reward/COMPONENT/...`.

    Compared are the attempts at the same task; if no task has two, all of the batch, as PPO does. A group with an
    attempt that could not be judged teaches nothing, so it is not compared.

    Args:
        step_costs: what the steps of each attempt cost, at most 0. Default: None: nothing.
    """
    costs = [0.0] * len(attempts) if step_costs is None else step_costs
    by_task: dict[str, list[PaidAttempt | None]] = {}
    for attempt, cost in zip(attempts, costs, strict=True):
        by_task.setdefault(attempt.rollout.task_id, []).append(paid_attempt(attempt, reward, cost))
    groups = [[each for each in group if each is not None] for group in by_task.values() if None not in group]
    if all(len(group) == 1 for group in by_task.values()):
        groups = [[each for group in groups for each in group]]
    scored = [each for group in by_task.values() for each in group if each is not None]
    return component_numbers(scored, groups, reward.prices)


def numbers_of_round(attempts: Sequence[Attempt], reward: TrainingReward) -> dict[str, float]:
    """The same of a round of expert iteration, which learns from clean fixes alone: it compares those of a task."""
    groups: dict[str, list[PaidAttempt]] = {}
    scored = []
    for attempt in attempts:
        paid = paid_attempt(attempt, reward, 0.0)
        if paid is not None:
            scored.append(paid)
            if attempt.verified:
                groups.setdefault(attempt.rollout.task_id, []).append(paid)
    return component_numbers(scored, list(groups.values()), reward.prices)


def paid_attempt(attempt: Attempt, reward: TrainingReward, cost: float = 0.0) -> PaidAttempt | None:
    """The attempt as it is paid; None: it is unscored."""
    if attempt.reward is None:
        return None
    return PaidAttempt(
        value=attempt.reward + cost,
        parts=() if attempt.breakdown is None else attempt.breakdown.parts,
        cause=attempt.cause,
        scale=reward.scale,
        offset=reward.offset,
        step_costs=cost,
        is_resolved=attempt.verified,
        broke=attempt.broke,
    )


def component_names(reward: Reward) -> tuple[str, ...]:
    """The names of the leaves and gates of a reward, as `component_values` has them, without those of limits."""
    return tuple(dict.fromkeys(_names(reward)))


def _names(reward: Reward) -> list[str]:
    match reward:
        case Sum():
            return [name for _, term in reward.terms for name in _names(term)]
        case Minimum():
            return [name for term in reward.rewards for name in _names(term)]
        case OnlyIf():
            return [*_names(reward.inner), *(gate_name(gate.name) for gate in reward.gates)]
        case Clip() | AtLeast() | Otherwise():
            return _names(reward.inner)
        case Named() if isinstance(reward.inner, Sum | Minimum | OnlyIf | Clip | AtLeast):
            return _names(reward.inner)
        case _:
            return [reward.name]
