"""Online reinforcement learning on executed tests with TRL: GRPO (Shao et al. 2402.03300) with its variants, RLOO
(REINFORCE with a leave-one-out baseline, Ahmadian et al. 2402.14740), and plain REINFORCE."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.attempts import Attempt, AttemptJudge, judge
from regrade.policy_training.environments.reward_components import numbers_of_step
from regrade.policy_training.environments.step_rewards import EpisodeRewards, StepRewards
from regrade.policy_training.environments.training_reward import (
    DEFAULT_TRAINING_REWARD,
    TrainingReward,
    training_reward_of,
)
from regrade.policy_training.policies.dialogues import MOST_THREADS
from regrade.policy_training.policies.gpt_oss import prepare_to_train
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS, SingleTurnPrompt, prompt_of
from regrade.policy_training.policies.threads import restored_threads
from regrade.policy_training.trainers.callbacks import (
    Budget,
    StepLog,
    StopAndLog,
    common_arguments,
    freeze_bottom,
    rate_schedule,
)
from regrade.policy_training.trainers.cascade_memory import watchers
from regrade.policy_training.trainers.generation import PLAYERS, check_generation
from regrade.policy_training.trainers.processes import check_alone, share_of
from regrade.policy_training.trainers.resuming import Resumable, ResumePoints, train_from_last_state
from regrade.policy_training.trainers.settings import ONLY_OF, AdvantageBaseline, OnlineSettings, passes_per_step
from regrade.policy_training.trainers.shared_prompt_trainer import SharedPrompts
from regrade.policy_training.trainers.stability import GuardedSteps, StabilityGuard
from regrade.policy_training.trainers.tracking import Tracker
from regrade.policy_training.trainers.trajectories import TrajectoryBatch
from regrade.rewards.algebra import Reward

KeepAttempts = Callable[[int, list[Attempt]], object]
"""Called with the attempts of a generation and the first step that learns from them."""

OUT_OF_BUDGET = (EpisodeEnd.TURNS, EpisodeEnd.TOKENS, EpisodeEnd.SECONDS, EpisodeEnd.REPEATS)


SUMS_OVER_A_FIXED_COUNT = ("dapo", "cispo")
"""The losses whose normaliser counts the tokens of a step, also those of rows without advantage."""
REINFORCE_LOSS = "dr_grpo"
"""A sum over an attempt's tokens, by a constant."""


class PlainGRPOTrainer(Resumable, GuardedSteps, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO, which can go on after a kill, and whose ratio is exactly 1 where nothing was learned since sampling.

    With vLLM, TRL takes old log-probabilities from a pass of their own also then. In a mixture of experts that pass may
    use other experts than the loss's, and the ratio is not 1.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.num_iterations == 1 and self.args.steps_per_generation <= self.args.gradient_accumulation_steps:
            batch.pop("old_per_token_logps", None)  # the loss takes its own, detached
        return batch


class PlainRLOOTrainer(Resumable, GuardedSteps, RLOOTrainer):  # type: ignore[misc]
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


class ExecutedTests:
    """A TRL reward function: applies each completion to its task, runs the tests, and returns its training value.

    A trajectory is judged by its patch at the end, and pays for its steps; an answer of one turn is its patch.

    If an attempt is unscored for a reason that the policy did not cause, its whole group gets None: a group with a
    missing reward would have a shifted baseline.
    """

    __name__ = "executed_tests"

    def __init__(
        self,
        tasks: Sequence[Task],
        scorer: Scorer,
        reward: TrainingReward,
        keep: KeepAttempts | None = None,
        *,
        trajectories: TrajectoryBatch | None = None,
        step_rewards: StepRewards | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        self.cascade = cascade
        self._judged_by: AttemptJudge = judge if cascade is None else cascade.judge
        self.tasks = {task.id: task for task in tasks}
        self.prompts: dict[str, SingleTurnPrompt] = {}
        self.scorer = scorer
        self.reward = reward
        self.keep = keep
        self.trajectories = trajectories
        self.step_rewards = step_rewards or StepRewards()
        self._verdicts: dict[tuple[str, str, bool, bool], Future[Attempt]] = {}
        """Of the attempts of this batch, which began as they ended."""
        self._pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="regrade-verdict")
        if trajectories is None:
            self.prompts = {task.id: prompt_of(task) for task in tasks}
        else:
            trajectories.when_over = self.begin

    def begin(self, rollout: Rollout) -> None:
        """Begin to judge an attempt, beside the generation of the others; equal ones are judged once."""
        key = _identity(rollout)
        if key not in self._verdicts:
            self._verdicts[key] = self._pool.submit(self._judge, rollout)

    def _judge(self, rollout: Rollout) -> Attempt:
        if self.cascade is not None:
            return self.cascade.judge_one(rollout, self.tasks, self.scorer, self.reward)
        (attempt,) = judge([rollout], self.tasks, self.scorer, self.reward)
        return attempt

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def rows(self) -> list[dict[str, str]]:
        """The rows of the trainer's data set. The environment writes the prompt of a trajectory."""
        return [
            {"prompt": name if self.trajectories is not None else self.prompts[name].text, "task_id": name}
            for name in self.tasks
        ]

    def __call__(self, completions: list[str], task_id: list[str], **kwargs: Any) -> list[float | None]:
        began = time.perf_counter()
        rollouts = self._rollouts(completions, task_id)
        attempts = self._attempts(rollouts)
        if self.keep is not None:
            self.keep(kwargs["trainer_state"].global_step + 1, attempts)
        unscored = {attempt.rollout.task_id for attempt in attempts if attempt.reward is None}
        values = [None if attempt.rollout.task_id in unscored else attempt.reward for attempt in attempts]
        if self.trajectories is not None:
            values = self._with_steps(rollouts, values)
        if (log_metric := kwargs.get("log_metric")) is not None:
            log_metric("execution_seconds", time.perf_counter() - began)
            of_cascade = {} if self.cascade is None else self.cascade.take_numbers()
            numbers = {**rates(attempts), **episode_rates(rollouts), **self._components(attempts), **of_cascade}
            for name, number in numbers.items():
                log_metric(name, number)
        return values

    def _components(self, attempts: list[Attempt]) -> dict[str, float]:
        costs = None if self.trajectories is None else [rewards.total for rewards in self.trajectories.rewards]
        return numbers_of_step(attempts, self.reward, costs)

    def _attempts(self, rollouts: list[Rollout]) -> list[Attempt]:
        if self.trajectories is None:
            return self._judged_by(rollouts, self.tasks, self.scorer, self.reward, None)
        verdicts, self._verdicts = self._verdicts, {}
        attempts = [replace(verdicts[_identity(rollout)].result(), rollout=rollout) for rollout in rollouts]
        if self.cascade is None:
            return attempts
        return self.cascade.settle(attempts, self.tasks, self.scorer, self.reward)

    def _with_steps(self, rollouts: list[Rollout], values: list[float | None]) -> list[float | None]:
        """The values of whole trajectories: of the outcome, and what the steps cost."""
        assert self.trajectories is not None
        episodes = [
            rollout.episode
            for rollout, value in zip(rollouts, values, strict=True)
            if rollout.episode is not None and value is not None
        ]
        found = iter(self.step_rewards.of(episodes, self.tasks, self.scorer))
        self.trajectories.rewards = [
            EpisodeRewards() if rollout.episode is None or value is None else next(found)
            for rollout, value in zip(rollouts, values, strict=True)
        ]
        return [
            None if value is None else value + rewards.total
            for value, rewards in zip(values, self.trajectories.rewards, strict=True)
        ]

    def _rollouts(self, completions: list[str], task_id: list[str]) -> list[Rollout]:
        if self.trajectories is not None:
            return [trajectory.rollout for trajectory in self.trajectories.latest]
        return [
            self._rollout(name, text, number)
            for number, (name, text) in enumerate(zip(task_id, completions, strict=True))
        ]

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


def _identity(rollout: Rollout) -> tuple[str, str, bool, bool]:
    """What a verdict depends on."""
    return rollout.task_id, rollout.patch.digest, rollout.well_formed, bool(rollout.lost)


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


def episode_rates(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What agents did, as means per episode; `tested`, `submitted` and `truncated` are shares. Empty without episodes.

    `tested`: it ran tests on the tree that it handed in. `taken_back`: changes undone after a red test run.
    `truncated`: its turns, tokens or time ran out, or it repeated a refused action.
    """
    episodes = [rollout.episode for rollout in rollouts if rollout.episode is not None]
    if not episodes:
        return {}
    sums = {
        "turns": sum(len(episode.steps) for episode in episodes),
        "test_runs": sum(episode.test_runs for episode in episodes),
        "tested": sum(episode.tested_before_the_end for episode in episodes),
        "taken_back": sum(episode.taken_back for episode in episodes),
        "mistakes": sum(step.is_mistake for episode in episodes for step in episode.steps),
        "submitted": sum(episode.end is EpisodeEnd.SUBMITTED for episode in episodes),
        "truncated": sum(episode.end in OUT_OF_BUDGET for episode in episodes),
        "action_tokens": sum(episode.tokens for episode in episodes),
    }
    return {name: total / len(episodes) for name, total in sums.items()}


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
    prepare_to_train(language_model, is_agent=agent is not None)
    freeze_bottom(language_model.model, settings.frozen)
    hidden = [task.without_reference() for task in tasks]
    trajectories = None
    if agent is not None:
        policy = AgentPolicy(language_model, scorer, "trained", agent)
        play = PLAYERS[settings.generation](policy, {task.id: task for task in hidden}, settings.temperature)
        trajectories = TrajectoryBatch(play, settings.credit, policy.times)
    executed = ExecutedTests(
        hidden,
        scorer,
        training_reward_of(reward),
        keep,
        trajectories=trajectories,
        step_rewards=step_rewards,
        cascade=cascade,
    )
    common = common_arguments(out, seed=seed, budget=budget, learning_rate=settings.learning_rate, track=track)
    trainer_type, config = trainer_and_config(settings, len(tasks), common, agent)
    language_model.model.train()
    trainer = trainer_type(
        model=language_model.model,
        reward_funcs=executed,
        args=config,
        train_dataset=Dataset.from_list(executed.rows()),
        processing_class=language_model.tokenizer,
        callbacks=[*watchers(guard, cascade), StopAndLog(budget, log)],
        **({"trajectories": trajectories} if settings.generation == "shared" else {}),
    )
    if trajectories is not None and settings.generation != "shared":
        trainer.rollout_func = trajectories.rollout
    trainer.remove_callback(PrinterCallback)
    if guard is not None:
        guard.watch(trainer, is_online=True)
    with closing(executed):
        train_from_last_state(trainer, resume)
    language_model.model.eval()
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
