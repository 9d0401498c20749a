"""A reward that cannot teach is refused before the first step, and no other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.reward_check import check_teaches
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import OnlineSettings
from regrade.policy_training.training_plan import TrainingPlan
from regrade.rewards import Diff, Score, TestRun, reward, tests
from regrade.rewards.assurance import assured
from regrade.rewards.builtin import builtin_rewards


@reward
def always_1(run: TestRun) -> Score:
    return Score(1.0, why=f"{len(run.outcomes)} tests")


@reward
def never_scored(diff: Diff) -> Score:
    return Score.unscored(f"{len(diff.files)} files")


@reward
def unbounded(run: TestRun) -> Score:
    return Score(float(len(run.outcomes)), why="grows with the suite")


REFUSED = {
    "reward 'always_1' is 1 on each of 100 generated pieces of evidence": TrainingReward(reward=always_1),
    "reward 'always_1' is -2 on each of": TrainingReward(reward=always_1, offset=-3.0),
    "reward 'never_scored' is unscored on each of 100": TrainingReward(reward=never_scored),
    "reward 'unbounded' raised OutOfBoundsError": TrainingReward(reward=unbounded),
    "reward '2 * tests' is 2 on a generated piece of evidence, and rewards lie in [0, 1]": TrainingReward(
        reward=2 * tests
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_reward_that_cannot_teach_stops_the_training_before_it_begins(
    tasks: list[Task], scorer: Scorer, tmp_path: Path, message: str
) -> None:
    settings = OnlineSettings(algorithm="reinforce")
    plan = TrainingPlan(settings=settings, model="none", budget=Budget(steps=1), reward=REFUSED[message])
    with pytest.raises(UserError) as caught:
        train(plan, tasks, scorer, tmp_path / "run")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", builtin_rewards())
def test_the_rewards_that_come_with_it_can_teach(name: str) -> None:
    check_teaches(TrainingReward(reward=builtin_rewards()[name]))


def test_prices_alone_can_teach_and_so_can_a_gate_on_assurance() -> None:
    check_teaches(DEFAULT_TRAINING_REWARD)
    check_teaches(replace(DEFAULT_TRAINING_REWARD, reward=always_1))
    check_teaches(TrainingReward(reward=always_1.only_if(assured("out-of-process"))))


@dataclass(frozen=True)
class Own:
    thing: Literal[1, 2]


@reward
def of_own_evidence(own: Own) -> Score:
    return Score(1.0, why=str(own.thing))


def test_evidence_without_examples_is_not_tried() -> None:
    check_teaches(TrainingReward(reward=of_own_evidence))
