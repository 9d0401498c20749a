"""Online reinforcement learning on executed tests with TRL: GRPO (Shao et al. 2402.03300) with its variants, RLOO
(REINFORCE with a leave-one-out baseline, Ahmadian et al. 2402.14740), and plain REINFORCE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS
from regrade.policy_training.policies.threads import restored_threads
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog, common_arguments, rate_schedule
from regrade.policy_training.trainers.executed_tests import EarlyVerdicts, KeepAttempts
from regrade.policy_training.trainers.generation import check_generation
from regrade.policy_training.trainers.online_training import executed_tests, learning_from, run_to_the_end
from regrade.policy_training.trainers.processes import check_alone, share_of
from regrade.policy_training.trainers.resuming import Resumable, ResumePoints
from regrade.policy_training.trainers.settings import ONLY_OF, AdvantageBaseline, OnlineSettings, passes_per_step
from regrade.policy_training.trainers.shared_prompt_trainer import SharedPrompts
from regrade.policy_training.trainers.stability import GuardedSteps, StabilityGuard
from regrade.policy_training.trainers.tracking import Tracker
from regrade.rewards.algebra import Reward

SUMS_OVER_A_FIXED_COUNT = ("dapo", "cispo")
"""The losses whose normaliser counts the tokens of a step, also those of rows without advantage."""
REINFORCE_LOSS = "dr_grpo"
"""A sum over an attempt's tokens, by a constant."""


class PlainGRPOTrainer(Resumable, EarlyVerdicts, GuardedSteps, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO, which can go on after a kill, and whose ratio is exactly 1 where nothing was learned since sampling.

    With vLLM, TRL takes old log-probabilities from a pass of their own also then. In a mixture of experts that pass may
    use other experts than the loss's, and the ratio is not 1.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.num_iterations == 1 and self.args.steps_per_generation <= self.args.gradient_accumulation_steps:
            batch.pop("old_per_token_logps", None)  # the loss takes its own, detached
        return batch


class PlainRLOOTrainer(Resumable, EarlyVerdicts, GuardedSteps, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO, which can go on after a kill."""


class SharedPromptGRPOTrainer(Resumable, SharedPrompts, GuardedSteps, GRPOTrainer):  # type: ignore[misc]
    """GRPO that runs each prompt once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.can_drop_rows = self.can_drop_rows and self.loss_type in SUMS_OVER_A_FIXED_COUNT


class ReinforceTrainer(SharedPromptGRPOTrainer):
    """REINFORCE (Williams, 1992): log-probabilities of whole attempts, weighted by their rewards.

    TRL has no such trainer. With its loss `dr_grpo` on attempts of the present policy, all ratios are 1: nothing is
    clipped, and the gradient is that of the mean of reward x log-probability, divided by the longest answer's length,
    a constant. Only the advantages differ from GRPO's: they are the rewards themselves.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return batch | {"advantages": (self._rewards - self._baseline()).nan_to_num(0.0)}  # unscored: teaches nothing

    def _baseline(self) -> Tensor | float:
        return 0.0


class BatchBaselineReinforceTrainer(ReinforceTrainer):
    """REINFORCE whose baseline is the mean reward of the scored attempts of a batch: less noise, the same mean."""

    def _baseline(self) -> Tensor | float:
        return self._rewards.nanmean()


REINFORCE_TRAINERS: Mapping[AdvantageBaseline, type[ReinforceTrainer]] = {
    "none": ReinforceTrainer,
    "batch": BatchBaselineReinforceTrainer,
}


class SharedPromptRLOOTrainer(Resumable, SharedPrompts, GuardedSteps, RLOOTrainer):  # type: ignore[misc]
    """RLOO that runs each prompt once.

    RLOOTrainer masks no observations, but its ratios and its KL penalty are sums over a row's tokens, and observations
    have log-probability 0 in all of them.
    """

    can_drop_rows = False  # its loss is a mean over rows

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        if self.trajectories is None:
            return super()._tokenize_prompts(prompts)
        return [list(each.tokens.prompt) for each in self.trajectories.generate(prompts, self)], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        """RLOOTrainer expects completions without log-probabilities."""
        if self.trajectories is None:
            return self._completions(prompt_ids)
        return [list(each.tokens.tokens) for each in self.trajectories.latest]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        if "tool_mask" in inputs:  # the entropy's mean was taken over observations as well
            tokens = inputs["completion_mask"].sum() / (inputs["completion_mask"] * inputs["tool_mask"]).sum().clamp(1)
            self._metrics["train" if self.model.training else "eval"]["entropy"][-1] *= float(tokens)
        return loss


@quiet_libraries()
@restored_threads()
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
    agent: AgentFormat | None = None,
    step_rewards: StepRewards | None = None,
    cascade: Cascade | None = None,
    log: StepLog | None = None,
    guard: StabilityGuard | None = None,
    resume: ResumePoints | None = None,
    track: Sequence[Tracker] = (),
    keep: KeepAttempts | None = None,
) -> None:
    """Train the model in place by GRPO, RLOO or REINFORCE; the tasks' references are not read.

    Args:
        reward: what an attempt is paid. A plain reward pays its value in [0, 1], and 0 for an unreadable answer.
        agent: train an agent over several turns. Default: None: the policy answers once.
        step_rewards: what an agent's steps cost, and shaping. Default: None: the outcome alone.
        cascade: judges the attempts in stages. Default: None: all tests that a change can reach are run.
        guard: of the stability; see `stability`. Default: None: nothing is watched.
        resume: when it writes states into `out`, from the last of which it goes on. Default: None: it keeps none.
        track: trackers that get the metrics of the log too. Default: none.
        keep: called with the attempts of each generation. Default: None.

    Raises:
        UnstableTrainingError: the guard gave up; the model has the best weights of before.
        UserError: this machine or TRL cannot generate as `settings.generation` says, several processes cannot share
            the tasks of a step, or the steps' rewards would have no effect.
    """
    check_settings(settings, agent, step_rewards, len(tasks))
    common = common_arguments(out, seed=seed, budget=budget, learning_rate=settings.learning_rate, track=track)
    trainer_type, config = trainer_and_config(settings, len(tasks), common, agent)
    executed = executed_tests(language_model, tasks, scorer, settings, reward, agent, step_rewards, cascade, keep)
    trainer = trainer_type(
        model=language_model.model,
        args=config,
        **({"trajectories": executed.trajectories} if settings.generation == "shared" else {}),
        **learning_from(executed, language_model, guard, StopAndLog(budget, log)),
    )
    if executed.trajectories is not None and settings.generation != "shared":
        trainer.rollout_func = executed.trajectories.rollout
    run_to_the_end(trainer, executed, guard, resume)
    if guard is not None:
        guard.check()


def trainer_and_config(
    settings: OnlineSettings, tasks: int, common: dict[str, Any], agent: AgentFormat | None = None
) -> tuple[type, GRPOConfig | RLOOConfig]:
    """TRL's trainer, or ours on top of it, and its configuration, for training on a number of tasks.

    Args:
        common: from `common_arguments`.

    Raises:
        UserError: several processes cannot share the tasks of a step.
    """
    prompts_per_step, prompts = _prompts_per_step(settings, tasks)
    passes = passes_per_step(prompts, settings, is_agent=agent is not None)
    arguments: dict[str, Any] = {
        **common,
        "per_device_train_batch_size": prompts * settings.samples_per_prompt // passes,
        "gradient_accumulation_steps": passes,
        "steps_per_generation": passes * min(settings.steps_per_generation, tasks // prompts_per_step),
        "num_generations": settings.samples_per_prompt,
        "num_iterations": settings.num_iterations,
        "max_completion_length": MAX_ANSWER_TOKENS if agent is None else agent.max_action_tokens,
        "mask_truncated_completions": settings.mask_truncated_completions,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "epsilon": settings.epsilon,
        "epsilon_high": settings.epsilon_high,
        "use_vllm": settings.generation == "vllm",
        **rate_schedule(common["max_steps"]),
        **({} if settings.vllm is None else settings.vllm.arguments),
        "remove_unused_columns": False,
    }
    is_shared = settings.generation == "shared"
    match settings.algorithm:
        case "grpo":
            return SharedPromptGRPOTrainer if is_shared else PlainGRPOTrainer, _grpo_config(arguments, settings)
        case "rloo":
            config = RLOOConfig(**arguments, normalize_advantages=settings.normalize_advantages)
            return SharedPromptRLOOTrainer if is_shared else PlainRLOOTrainer, config
        case "reinforce":
            return REINFORCE_TRAINERS[settings.baseline], _grpo_config(arguments, settings)


def _prompts_per_step(settings: OnlineSettings, tasks: int) -> tuple[int, int]:
    """Tasks per step, and those of them that this process has: whole groups."""
    prompts = min(settings.prompts_per_step, tasks)  # TRL silently drops batches that it cannot fill
    return prompts, share_of(prompts, "prompts_per_step" if prompts < tasks else "the number of tasks per step")


def _grpo_config(arguments: dict[str, Any], settings: OnlineSettings) -> GRPOConfig:
    return GRPOConfig(
        **arguments,
        scale_rewards=settings.scale_rewards,
        loss_type=REINFORCE_LOSS if settings.algorithm == "reinforce" else settings.loss_type,
        importance_sampling_level=settings.importance_sampling_level,
        # TRL's default drops a row whose ratio between trainer and vLLM, over all of its tokens, is above 3: long ones
        # go.
        vllm_importance_sampling_mode="token_truncate",
    )


def check_settings(
    settings: OnlineSettings, agent: AgentFormat | None, steps: StepRewards | None, tasks: int | None = None
) -> None:
    """Raises UserError if `train_online` would refuse these.

    Args:
        tasks: their number. Default: None: not known yet.
    """
    check_generation(settings.generation)
    if settings.generation == "shared":
        is_choice = settings.algorithm in ONLY_OF["generation"]
        advice = "set generation to 'trl' or 'vllm', or " if is_choice else ""
        check_alone(f"{settings.algorithm} with generation 'shared'", advice)
    elif tasks is not None:
        _prompts_per_step(settings, tasks)
    if agent is None and steps is not None:
        raise UserError("step_rewards pay the steps of an agent: give `agent`, or leave them out")
    if agent is not None and settings.algorithm == "rloo" and settings.generation != "shared":
        raise UserError(
            f"generation is {settings.generation!r}: TRL's RLOOTrainer masks no observations, so it cannot train an "
            "agent; set generation to 'shared', or train by grpo"
        )
    if steps is not None and steps.shaping != "none" and settings.credit != "step":
        raise UserError(
            f"StepRewards: shaping is {steps.shaping!r}, and credit is 'trajectory': to one number per trajectory it "
            "adds the same for all attempts at a task, so nothing would change; set credit to 'step', or train by ppo"
        )
