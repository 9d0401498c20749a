"""What all trainings have in common that learn from their own attempts, around the trainer of the algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.environments.training_reward import TrainingReward, training_reward_of
from regrade.policy_training.policies.gpt_oss import prepare_to_train
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers.callbacks import StopAndLog, freeze_bottom
from regrade.policy_training.trainers.cascade_memory import watchers
from regrade.policy_training.trainers.executed_tests import ExecutedTests, KeepAttempts
from regrade.policy_training.trainers.generation import PLAYERS
from regrade.policy_training.trainers.resuming import ResumePoints, train_from_last_state
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings
from regrade.policy_training.trainers.stability import StabilityGuard
from regrade.policy_training.trainers.trajectories import TrajectoryBatch
from regrade.rewards.algebra import Reward


def executed_tests(
    language_model: LanguageModel,
    tasks: Sequence[Task],
    scorer: Scorer,
    settings: OnlineSettings | PPOSettings,
    reward: Reward | TrainingReward,
    agent: AgentFormat | None,
    step_rewards: StepRewards | None,
    cascade: Cascade | None,
    keep: KeepAttempts | None,
) -> ExecutedTests:
    """The reward function of a training on these tasks, without their references. That of an agent has `trajectories`,
    which play whole episodes; the model, whose weights play them, is prepared to learn."""
    prepare_to_train(language_model, is_agent=agent is not None)
    freeze_bottom(language_model.model, settings.frozen)
    language_model.model.train()
    hidden = [task.without_reference() for task in tasks]
    trajectories = None
    if agent is not None:
        policy = AgentPolicy(language_model, scorer, "trained", agent)
        play = PLAYERS[settings.generation](policy, {task.id: task for task in hidden}, settings.temperature)
        trajectories = TrajectoryBatch(play, settings.credit, policy.times)
    return ExecutedTests(
        hidden,
        scorer,
        training_reward_of(reward),
        keep,
        trajectories=trajectories,
        step_rewards=step_rewards,
        cascade=cascade,
    )


def learning_from(
    executed: ExecutedTests, language_model: LanguageModel, guard: StabilityGuard | None, clock: StopAndLog
) -> dict[str, Any]:
    """Keyword arguments for a trainer of TRL: what it rewards, reads and calls."""
    return {
        "reward_funcs": executed,
        "train_dataset": Dataset.from_list(executed.rows()),
        "processing_class": language_model.tokenizer,
        "callbacks": [*watchers(guard, executed.cascade), clock],
    }


def run_to_the_end(
    trainer: Any, executed: ExecutedTests, guard: StabilityGuard | None, resume: ResumePoints | None
) -> None:
    """Train, from the last state if there is one. Whether the guard gave up, its `check` says."""
    trainer.remove_callback(PrinterCallback)
    if guard is not None:
        guard.watch(trainer, is_online=True)
    with closing(executed):
        train_from_last_state(trainer, resume)
    trainer.model.eval()
