"""The reward function of TRL's trainers: attempts are executed and paid, the first ones while others are generated.

Also the numbers of a batch of attempts, for the log.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.reward_components import numbers_of_step
from regrade.policy_training.environments.step_rewards import EpisodeRewards, StepRewards
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.policy_training.policies.dialogues import MOST_THREADS
from regrade.policy_training.policies.single_turn_prompt import SingleTurnPrompt, prompt_of
from regrade.policy_training.trainers.trajectories import TrajectoryBatch

KeepAttempts = Callable[[int, list[Attempt]], object]
"""Called with the attempts of a generation and the first step that learns from them."""

OUT_OF_BUDGET = (EpisodeEnd.TURNS, EpisodeEnd.TOKENS, EpisodeEnd.SECONDS, EpisodeEnd.REPEATS)


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

    def begin_answers(self, task_ids: Iterable[str], answers: Iterable[str]) -> None:
        """Begin to judge answers of one turn. A cascade judges a batch at once, as its model reads many at a time."""
        if self.cascade is None:
            for task_id, answer in zip(task_ids, answers, strict=True):
                self.begin(self._rollout(task_id, answer))

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
            log_metric("executed_patches", executed_patches(attempts))
            of_cascade = {} if self.cascade is None else self.cascade.take_numbers()
            numbers = {**rates(attempts), **episode_rates(rollouts), **self._components(attempts), **of_cascade}
            for name, number in numbers.items():
                log_metric(name, number)
        return values

    def _components(self, attempts: list[Attempt]) -> dict[str, float]:
        costs = None if self.trajectories is None else [rewards.total for rewards in self.trajectories.rewards]
        return numbers_of_step(attempts, self.reward, costs)

    def _attempts(self, rollouts: list[Rollout]) -> list[Attempt]:
        if self.trajectories is None and self.cascade is not None:
            return self.cascade.judge(rollouts, self.tasks, self.scorer, self.reward)
        for rollout in rollouts:  # of a trainer that began none
            self.begin(rollout)
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

    def _rollout(self, task_id: str, completion: str, number: int = 0) -> Rollout:
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


class EarlyVerdicts:
    """Mixin for TRL's online trainers, in front of them: the verdicts of answers run while others are generated and
    log-probabilities are computed. Agents begin theirs themselves (`TrajectoryBatch.when_over`)."""

    _task_ids: Sequence[str] = ()
    """Of the rows of the present batch."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._task_ids = [row.get("task_id", "") for row in inputs]
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        return batch

    def _generate(self, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)  # type: ignore[misc]
        answers = generated[1]
        self._begin_verdicts(range(len(answers)), answers)
        return generated

    def _begin_verdicts(self: Any, rows: Iterable[int], answers: Sequence[Sequence[int]]) -> None:
        """Begin those of complete answers, by their rows in the batch and their tokens; once for each."""
        of_answers = [
            function
            for function in self.reward_funcs
            if isinstance(function, ExecutedTests) and function.trajectories is None
        ]
        if of_answers:
            texts = self.processing_class.batch_decode(answers, skip_special_tokens=True)  # as TRL does
            task_ids = [self._task_ids[row] for row in rows]
            for function in of_answers:
                function.begin_answers(task_ids, texts)


def _identity(rollout: Rollout) -> tuple[str, str, bool, bool]:
    """What a verdict depends on."""
    return rollout.task_id, rollout.patch.digest, rollout.well_formed, bool(rollout.lost)


def executed_patches(attempts: Sequence[Attempt]) -> float:
    """Distinct patches of which tests ran, some or all that they can reach."""
    return float(
        len(
            {
                (attempt.rollout.task_id, attempt.rollout.patch.digest)
                for attempt in attempts
                if attempt.run is not None or (attempt.stop is not None and attempt.stop.seen.outcomes)
            }
        )
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
