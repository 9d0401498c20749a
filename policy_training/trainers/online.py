"""Online reinforcement learning on executed tests with TRL: GRPO (Shao et al. 2402.03300) and RLOO (REINFORCE with a
leave-one-out baseline, Ahmadian et al. 2402.14740)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.training_reward import (
    DEFAULT_TRAINING_REWARD,
    TrainingReward,
    training_reward_of,
)
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS, SingleTurnPrompt, prompt_of
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog, common_arguments, freeze_bottom
from regrade.policy_training.trainers.settings import OnlineSettings
from regrade.policy_training.trainers.shared_prompt_trainer import SharedPrompts
from regrade.rewards.algebra import Reward


class SharedPromptGRPOTrainer(SharedPrompts, GRPOTrainer):  # type: ignore[misc]
    """GRPO that runs each prompt once."""


class SharedPromptRLOOTrainer(SharedPrompts, RLOOTrainer):  # type: ignore[misc]
    """RLOO that runs each prompt once."""

    can_drop_rows = False  # its loss is a mean over rows

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        """RLOOTrainer expects completions without log-probabilities."""
        return self._completions(prompt_ids)


class ExecutedTests:
    """A TRL reward function: applies each completion to its task, runs the tests, and returns its training value.

    If an attempt is unscored for a reason that the policy did not cause, its whole group gets None: a group with a
    missing reward would have a shifted baseline.
    """

    __name__ = "executed_tests"

    def __init__(
        self,
        tasks: Sequence[Task],
        scorer: Scorer,
        reward: TrainingReward,
        keep: Callable[[list[Attempt]], None] | None = None,
    ) -> None:
        self.prompts: dict[str, SingleTurnPrompt] = {task.id: prompt_of(task) for task in tasks}
        self.scorer = scorer
        self.reward = reward
        self.keep = keep

    def __call__(self, completions: list[str], task_id: list[str], **kwargs: Any) -> list[float | None]:
        began = time.perf_counter()
        rollouts = [
            self._rollout(name, text, number)
            for number, (name, text) in enumerate(zip(task_id, completions, strict=True))
        ]
        tasks = {name: self.prompts[name].task for name in set(task_id)}
        attempts = judge(rollouts, tasks, self.scorer, self.reward)
        if self.keep is not None:
            self.keep(attempts)
        if (log_metric := kwargs.get("log_metric")) is not None:
            log_metric("execution_seconds", time.perf_counter() - began)
            for name, value in rates(attempts).items():
                log_metric(name, value)
        unscored = {attempt.rollout.task_id for attempt in attempts if attempt.reward is None}
        return [None if attempt.rollout.task_id in unscored else attempt.reward for attempt in attempts]

    def _rollout(self, task_id: str, completion: str, number: int) -> Rollout:
        from regrade.datasets.patches import Patch

        patch = self.prompts[task_id].patch(completion)
        return Rollout(
            task_id=task_id,
            policy="trained",
            temperature=1.0,
            sample=number,
            seed=0,
            patch=patch or Patch(""),
            prompt=self.prompts[task_id].text,
            completion=completion,
            well_formed=patch is not None,
        )


def rates(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Shares of the scored attempts in [0, 1]: clean fixes, breakage, no change, malformed, tampering.

    And the number of attempts with each kind of tampering, as `tampering/KIND`. Empty if no attempt is scored: an
    unscored attempt is no failure.
    """
    attempts = [attempt for attempt in attempts if attempt.reward is not None]
    if not attempts:
        return {}
    count = len(attempts)
    kinds = Counter(kind for attempt in attempts for kind in attempt.tampering)
    return {
        "fix_and_clean": sum(attempt.verified for attempt in attempts) / count,
        "breakage": sum(attempt.broke for attempt in attempts) / count,
        "no_op": sum(attempt.rollout.well_formed and attempt.is_empty for attempt in attempts) / count,
        "malformed": sum(not attempt.rollout.well_formed for attempt in attempts) / count,
        "tampering": sum(bool(attempt.tampering) for attempt in attempts) / count,
        **{f"tampering/{kind}": float(number) for kind, number in sorted(kinds.items())},
    }


@quiet_libraries()
def train_online(
    language_model: LanguageModel,
    tasks: Sequence[Task],
    scorer: Scorer,
    settings: OnlineSettings,
    *,
    out: Path,
    budget: Budget,
    seed: int,
    reward: Reward | TrainingReward = DEFAULT_TRAINING_REWARD,
    log: StepLog | None = None,
) -> None:
    """Train the model in place by GRPO or RLOO; the tasks' references are not read.

    Args:
        reward: what an attempt is paid. A plain reward pays its value in [0, 1], and 0 for an unreadable answer.
    """
    # TRL silently drops batches that it cannot fill.
    prompts_per_step = min(settings.prompts_per_step, len(tasks))
    freeze_bottom(language_model.model, settings.frozen)
    hidden = [task.without_reference() for task in tasks]
    executed = ExecutedTests(hidden, scorer, training_reward_of(reward))
    rows = [{"prompt": executed.prompts[task.id].text, "task_id": task.id} for task in hidden]
    arguments: dict[str, Any] = {
        **common_arguments(out, seed=seed, budget=budget, learning_rate=settings.learning_rate),
        "per_device_train_batch_size": prompts_per_step * settings.samples_per_prompt,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": min(settings.steps_per_generation, len(tasks) // prompts_per_step),
        "num_generations": settings.samples_per_prompt,
        "max_completion_length": MAX_ANSWER_TOKENS,
        "temperature": settings.temperature,
        "beta": 0.0,
        # A falling rate averages out the noise of single groups. It needs a number of steps.
        "lr_scheduler_type": "linear" if budget.steps is not None else "constant_with_warmup",
        "warmup_steps": 2,
        "remove_unused_columns": False,
    }
    trainer_type, config = (
        (SharedPromptGRPOTrainer, GRPOConfig(**arguments, scale_rewards="none", loss_type="dapo"))
        if settings.algorithm == "grpo"
        else (SharedPromptRLOOTrainer, RLOOConfig(**arguments))
    )
    language_model.model.train()
    trainer = trainer_type(
        model=language_model.model,
        reward_funcs=executed,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=language_model.tokenizer,
        callbacks=[StopAndLog(budget, log)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    language_model.model.eval()
