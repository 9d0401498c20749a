"""PPO (proximal policy optimization, Schulman et al. 1707.06347) on top of TRL's GRPOTrainer; TRL removed its own.

The baseline of GRPO is the group of an answer, that of PPO a critic: a value head on the policy's own last hidden
states that predicts, at every token, the future reward. A step, from top to bottom of `PPOTrainer`:

1. TRL samples tasks, and their attempts are generated, executed and paid (`_generate_and_score_completions`).
2. One forward pass gives the log-probabilities of their tokens and the critic's values (`_log_probs_then`).
3. The reward of an attempt comes at its last token, those of an agent's steps at the last token of each action, and
   a price of the KL divergence from the initial policy at every token (`_token_rewards`).
4. Advantages are estimated per token (`generalized_advantages`), observations are skipped, and their mean is taken
   away. An advantage plus its value is the critic's target. Unscored attempts are masked.
5. For some epochs on these attempts: TRL's clipped policy loss, and the critic's clipped loss from the same pass
   (`_compute_loss`). The critic has a learning rate of its own (`create_optimizer`).

Not implemented: an adaptive KL coefficient, pretraining the critic, a KL penalty with LoRA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.policies.adapters import has_adapters
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS
from regrade.policy_training.policies.threads import restored_threads
from regrade.policy_training.trainers.advantages import (
    center,
    clipped_value_loss,
    explained_variance,
    generalized_advantages,
    whiten,
)
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog, common_arguments, rate_schedule
from regrade.policy_training.trainers.executed_tests import KeepAttempts
from regrade.policy_training.trainers.online_training import executed_tests, learning_from, run_to_the_end
from regrade.policy_training.trainers.resuming import Resumable, ResumePoints
from regrade.policy_training.trainers.settings import PPOSettings, passes_per_step
from regrade.policy_training.trainers.shared_prompt_trainer import SharedPrompts, frozen_copy
from regrade.policy_training.trainers.stability import GuardedSteps, StabilityGuard
from regrade.policy_training.trainers.tracking import Tracker
from regrade.rewards.algebra import Reward

VALUE_HEAD_FILE = "value_head.safetensors"


@dataclass(kw_only=True)
class PPOConfig(GRPOConfig):  # type: ignore[misc]
    """TRL's settings of GRPO, and those of the critic. The KL penalty is part of the reward, so `beta` must be 0.

    Raises:
        ValueError: the batch is too small, not a multiple of `num_generations`, or `beta` is not 0.
    """

    num_generations: int | None = field(default=1, metadata={"help": "Answers per prompt; 1 is enough."})
    num_iterations: int = field(default=4, metadata={"help": "Optimizer steps on each batch of answers."})
    kl_coef: float = field(
        default=0.05,
        metadata={"help": "Penalty per nat of KL divergence from the initial policy; 0: no reference model."},
    )
    value_coef: float = field(default=0.1, metadata={"help": "Weight of the critic's loss in the total."})
    gamma: float = field(default=1.0, metadata={"help": "Discount per token."})
    lam: float = field(default=0.95, metadata={"help": "Lambda of GAE."})
    cliprange_value: float = field(
        default=0.2, metadata={"help": "Clip range of a value within the epochs on a batch."}
    )
    value_learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of the value head."})
    normalize_advantages: bool = field(
        default=False, metadata={"help": "Scale the advantages of a batch to standard deviation 1, besides mean 0?"}
    )

    def __post_init__(self) -> None:
        if self.per_device_train_batch_size < 2:
            raise ValueError(
                f"per_device_train_batch_size is {self.per_device_train_batch_size}, and PPO needs at least 2: "
                "the mean advantage of the batch is taken away"
            )
        if self.beta != 0.0:
            raise ValueError(
                f"beta is {self.beta}: in PPO the KL penalty is part of the reward, so set kl_coef and leave beta 0"
            )
        # GRPO's own check rejects groups of one, which PPO allows, so it checks the whole batch as one group.
        samples, self.num_generations = self.num_generations or 1, self.per_device_train_batch_size
        super().__post_init__()
        if self.generation_batch_size % samples:
            raise ValueError(
                f"a batch of {self.generation_batch_size} answers is no multiple of num_generations={samples}"
            )
        self.num_generations = samples


class ValueHead(torch.nn.Module):
    """The critic: a linear map from a hidden state to a value, initialized with 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(size, 1)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens,), in float32."""
        return self.linear(states.float())[:, 0]  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / VALUE_HEAD_FILE)

    @classmethod
    def load(cls, folder: Path) -> ValueHead:
        """Raises UserError if the folder contains none."""
        path = folder / VALUE_HEAD_FILE
        if not path.is_file():
            raise UserError(f"{folder} holds no {VALUE_HEAD_FILE}: give a folder that `regrade train ppo` wrote")
        weights = load_file(path)
        head = cls(weights["linear.weight"].shape[1])
        head.load_state_dict(weights)
        return head


class PPOTrainer(Resumable, SharedPrompts, GuardedSteps, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with a critic. The value head is not part of the model, so saving the model does not include it."""

    can_drop_rows = False  # a row without advantage still teaches the critic
    can_reuse_sampled_log_probs = False  # the critic's values need the forward pass

    def __init__(self, model: Any, *, args: PPOConfig, value_head: ValueHead | None = None, **arguments: Any) -> None:
        reference = frozen_copy(model) if args.kl_coef else None  # before the base class changes the model
        super().__init__(model, args=args, **arguments)
        device = self.accelerator.device
        self.reference = None if reference is None else reference.to(device)
        self.value_head = (value_head or ValueHead(model.config.get_text_config().hidden_size)).to(device)
        self._latest: dict[str, Tensor] = {}
        """Per-token numbers of the policy's latest forward pass, (B, C) each."""

    def _numbers_of_states(self, model: Any, states: Tensor) -> dict[str, Tensor]:
        return {} if model is self.reference else {"values": self.value_head(states)}

    def _numbers_of_tokens(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        numbers: dict[str, Tensor] = super()._numbers_of_tokens(model, *args, **kwargs)
        if "values" in numbers:
            self._latest = numbers
        return numbers

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """The inherited batch, with per-token advantages and the critic's targets; all (B, C)."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        with torch.no_grad():
            old, reference = self._log_probs_then(batch)
            values = self._latest["values"]
            scored = ~self._rewards.isnan()
            # Unscored answers train neither the policy nor the critic: the mask of the loss excludes them.
            mask = batch["completion_mask"] * batch.get("tool_mask", 1) * scored[:, None]
            penalty = (old - reference) * mask
            rewards = self._token_rewards(mask) - self.args.kl_coef * penalty
            advantages, returns = generalized_advantages(rewards, values, mask, self.args.gamma, self.args.lam)
            normalize = whiten if self.args.normalize_advantages else center
        self._log_batch(values, returns, penalty, mask)
        return batch | {
            "advantages": normalize(advantages, mask),
            "returns": returns,
            "old_values": values * mask,
            "tool_mask": mask,
            "num_items_in_batch": mask.sum(),
        }

    def _token_rewards(self, mask: Tensor) -> Tensor:
        """(B, C): the outcome at an attempt's last token, and costs and shaping at the last token of each action."""
        outcomes = self._rewards.nan_to_num()
        if self.trajectories is None:
            return _at_last_token(outcomes, mask)
        steps = self.trajectories.token_rewards(self.args.gamma, mask.device)
        return _at_last_token(outcomes - self.trajectories.totals(mask.device), mask) + steps * mask

    def _log_probs_then(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the batch's tokens under the sampling policy and under the reference, (B, C) each."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        attended = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        width = batch["completion_ids"].shape[1]
        if "old_per_token_logps" not in batch:
            # Strictly on-policy: the loss uses its own log-probabilities as the old ones. These are for the KL only.
            self._numbers_of_tokens(self.model, ids, attended, width, entropy=False)
        old = self._latest["log_probs"]
        if self.reference is None:
            return old, old
        return old, self._numbers_of_tokens(self.reference, ids, attended, width, entropy=False)["log_probs"]

    def _log_batch(self, values: Tensor, returns: Tensor, penalty: Tensor, mask: Tensor) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        count = mask.sum().clamp(min=1)
        metrics["kl"].append(float(penalty.sum() / count))
        metrics["value/mean"].append(float((values * mask).sum() / count))
        metrics["value/explained_variance"].append(explained_variance(values, returns, mask))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The inherited clipped policy loss, plus the critic's clipped loss from the same forward pass."""
        policy_loss: Tensor = super()._compute_loss(model, inputs)
        mask = inputs["completion_mask"] * inputs["tool_mask"]
        losses = clipped_value_loss(
            self._latest["values"], inputs["old_values"], inputs["returns"], self.args.cliprange_value
        )
        # A mean over tokens, counted as in the base class: over all micro-batches of an optimizer step.
        tokens = inputs["num_items_in_batch"].clamp(min=1)
        if self.model.training:
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        value_loss = (losses * mask).sum() / tokens
        self._metrics["train" if self.model.training else "eval"]["value/loss"].append(float(value_loss.detach()))
        loss: Tensor = policy_loss + self.args.value_coef * value_loss
        return loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The inherited one, with a parameter group for the value head."""
        if self.optimizer is None:
            optimizer: torch.optim.Optimizer = super().create_optimizer(model)
            head, limit = list(self.value_head.parameters()), self.args.max_grad_norm
            optimizer.add_param_group({"params": head, "lr": self.args.value_learning_rate, "weight_decay": 0.0})
            # The trainer clips and clears only the gradients of the model's parameters.
            optimizer.register_step_pre_hook(lambda *_: _clip(head, limit))
            optimizer.register_step_post_hook(lambda *_: self.value_head.zero_grad())
        return self.optimizer  # type: ignore[no-any-return]

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.value_head.save(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.value_head.load_state_dict(ValueHead.load(Path(resume_from_checkpoint)).state_dict())


def _clip(weights: list[torch.nn.Parameter], limit: float) -> None:
    torch.nn.utils.clip_grad_norm_(weights, limit)


def _at_last_token(rewards: Tensor, mask: Tensor) -> Tensor:
    """(B, C): the (B,) rewards at the last unmasked token of each row, 0 elsewhere."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (positions * mask).argmax(1)
    return torch.zeros(mask.shape, device=mask.device).scatter(1, last[:, None], rewards[:, None].float())


def _ppo_config(
    settings: PPOSettings, answers: int, common: dict[str, Any], agent: AgentFormat | None = None
) -> PPOConfig:
    """The configuration of a trainer with batches of `answers` answers."""
    passes = passes_per_step(answers // settings.samples_per_prompt, settings, is_agent=agent is not None)
    return PPOConfig(
        **common,
        per_device_train_batch_size=answers // passes,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes,
        num_generations=settings.samples_per_prompt,
        num_iterations=settings.epochs,
        max_completion_length=MAX_ANSWER_TOKENS if agent is None else agent.max_action_tokens,
        temperature=settings.temperature,
        kl_coef=settings.kl_coef,
        value_learning_rate=settings.value_learning_rate,
        normalize_advantages=settings.normalize_advantages,
        scale_rewards="none",
        **rate_schedule(common["max_steps"]),
        remove_unused_columns=False,
    )


@quiet_libraries()
@restored_threads()
def train_ppo(
    language_model: LanguageModel,
    tasks: Sequence[Task],
    scorer: Scorer,
    settings: PPOSettings,
    *,
    out: Path,
    budget: Budget,
    seed: int,
    reward: Reward | TrainingReward = DEFAULT_TRAINING_REWARD,
    agent: AgentFormat | None = None,
    step_rewards: StepRewards | None = None,
    cascade: Cascade | None = None,
    value_head: ValueHead | None = None,
    log: StepLog | None = None,
    guard: StabilityGuard | None = None,
    resume: ResumePoints | None = None,
    track: Sequence[Tracker] = (),
    keep: KeepAttempts | None = None,
) -> None:
    """Train the model in place by PPO, and save the value head in `out`. The tasks' references are not read.

    Args:
        budget: in optimizer steps, of which each batch of answers serves `settings.epochs`, or seconds.
        value_head: the initial critic, from `ValueHead.load`. Default: None: a new one.

    All others are as in `train_online`.

    Raises:
        UnstableTrainingError: the guard gave up; the model has the best weights of before.
        UserError: there are too few tasks for a batch, `step_rewards` without an agent, or a KL penalty for adapters.
    """
    _check_settings(settings, language_model, agent, step_rewards)
    common = common_arguments(out, seed=seed, budget=budget, learning_rate=settings.learning_rate, track=track)
    config = _ppo_config(settings, _answers_per_batch(settings, len(tasks)), common, agent)
    executed = executed_tests(language_model, tasks, scorer, settings, reward, agent, step_rewards, cascade, keep)
    trainer = PPOTrainer(
        language_model.model,
        args=config,
        value_head=value_head,
        trajectories=executed.trajectories,
        **learning_from(executed, language_model, guard, StopAndLog(budget, log)),
    )
    run_to_the_end(trainer, executed, guard, resume)
    trainer.value_head.save(out)
    if guard is not None:
        guard.check()


def _check_settings(
    settings: PPOSettings, language_model: LanguageModel, agent: AgentFormat | None, steps: StepRewards | None
) -> None:
    if settings.kl_coef and has_adapters(language_model.model):
        raise UserError(
            f"PPOSettings: kl_coef is {settings.kl_coef}, which needs a second model beside that with adapters: set "
            "it to 0"
        )
    if agent is None and steps is not None:
        raise UserError("step_rewards pay the steps of an agent: give `agent`, or leave them out")


def _answers_per_batch(settings: PPOSettings, tasks: int) -> int:
    answers = min(settings.prompts_per_step, tasks) * settings.samples_per_prompt
    if answers < 2:
        raise UserError(
            f"{counted(tasks, 'task')} x {counted(settings.samples_per_prompt, 'sample')} make no batch: PPO "
            "needs at least 2 answers per step, so give more tasks or set samples_per_prompt"
        )
    return answers
