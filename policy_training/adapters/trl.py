"""TRL: reward functions and an environment factory of its trainers.

Answers in one message, by `PatchReward`; agents with tools, by `environment_factory` and `ExecutedOutcome`:

    tasks = {task.id: task for task in load_tasks(split="tests_only")}
    with Scorer() as scorer:
        trainer = GRPOTrainer(
            model="Qwen/Qwen3-4B-Instruct-2507",
            environment_factory=environment_factory(tasks, scorer, EpisodeLimits(turns=20)),
            reward_funcs=ExecutedOutcome(scorer),
            train_dataset=Dataset.from_list(agent_prompts(tasks)),
        )

Unscored: None. TRL leaves a row out of its group's mean and out of the loss only if *all* reward functions return None
for it; a row with None of one function is paid what the others return. So use one reward function, composed of all
parts. If one attempt at a task is unscored, all attempts of the call at this task are None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.verdicts import (
    Answer,
    PatchOf,
    Verdict,
    Verdicts,
    patch_of_chat_answer,
    unscored_groups,
    verdict_of,
)
from regrade.policy_training.environments.agent_tools import (
    EpisodeLimits,
    RepositoryEnvironment,
    RunningEpisode,
)
from regrade.policy_training.environments.attempts import Attempt, JudgedAttempt
from regrade.policy_training.environments.chat_loop import SYSTEM
from regrade.policy_training.environments.reward_components import numbers_of_step
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.rewards.algebra import Reward
from regrade.rewards.evidence import Integrity, TestRun

LogMetric = Callable[[str, float], None]
"""TRL's function for the numbers of a step."""


class PatchReward:
    """`reward_funcs=PatchReward(0.3 * learned("judge") + 0.7 * small_diff, tasks, scorer)` of a TRL trainer.

    All completions of a call are scored together, so a reward model answers them in one batch. A malformed answer has
    the price of one: 0 with a plain reward.
    """

    def __init__(
        self,
        reward: Reward | TrainingReward,
        tasks: Iterable[Task],
        scorer: Scorer,
        patch_of: PatchOf = patch_of_chat_answer,
    ) -> None:
        """
        Args:
            reward: what a patch is worth. It runs what it needs: of `learned` and static evidence, nothing.
            tasks: the dataset names them in its column `task_id`.
        """
        self._verdicts = Verdicts(tasks, scorer, reward, patch_of)
        self.__name__ = self._verdicts.reward.reward.name
        """TRL logs the function by it."""

    def __call__(
        self,
        completions: Sequence[Any],
        task_id: Sequence[str] | None = None,
        log_metric: LogMetric | None = None,
        **_columns: Any,
    ) -> list[float | None]:
        """
        Args:
            completions: texts, or conversations whose last message is the answer.
            task_id: the column of the dataset, one a completion.

        Raises:
            UserError: the dataset has no such column, or it names an unknown task.
        """
        if task_id is None:
            raise UserError("the dataset has no column task_id: add one with the id of each prompt's task")
        answers = [Answer(name, text=text_of(each)) for name, each in zip(task_id, completions, strict=True)]
        judged = self._verdicts.judged(answers)
        _log(log_metric, numbers_of_step([attempt for attempt, _ in judged], self._verdicts.reward))
        return _values(judged, self._verdicts.reward)


def text_of(completion: Any) -> str:
    """The answer in a completion: a text, or a conversation (a list of messages), of which it is the last message."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


def environment_factory(
    tasks: Mapping[str, Task], scorer: Scorer, limits: EpisodeLimits | None = None
) -> Callable[[], RepositoryEnvironment]:
    """TRL's `environment_factory`: each call makes an environment, and its `reset` begins the task of a row.

    TRL renders the tools by the model's chat template, calls them, and masks what they return out of the loss.

    Args:
        tasks: id -> task; a row of the data set names one in its column `task_id`.
        scorer: runs the tests; it must stay open while the trainer works.
    """
    return lambda: RepositoryEnvironment(tasks, scorer, limits)


def agent_prompts(tasks: Mapping[str, Task]) -> list[dict[str, Any]]:
    """The rows of TRL's data set; `reset` adds the instruction to the last message of each."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ""}]
    return [{"prompt": messages, "task_id": task_id} for task_id in tasks]


@dataclass(frozen=True)
class ExecutedOutcome:
    """A reward function of TRL: the whole suite judges the tree at the end of each episode."""

    scorer: Scorer
    reward: Reward | TrainingReward = DEFAULT_TRAINING_REWARD

    def __call__(
        self, environments: Sequence[RepositoryEnvironment], log_metric: LogMetric | None = None, **_: Any
    ) -> list[float | None]:
        """The training value of each environment's episode, in order."""
        sessions = [environment.session for environment in environments]
        answers = [answer_of_session(session) for session in sessions]
        tasks = {session.task.id: session.task for session in sessions}
        verdicts = Verdicts(tasks, self.scorer, self.reward, also_gather={TestRun, Integrity})
        judged = verdicts.judged(answers)
        attempts = [attempt for attempt, _ in judged]
        episodes = [answer.episode for answer in answers if answer.episode is not None]
        _log(log_metric, {**_figures(attempts, episodes), **numbers_of_step(attempts, verdicts.reward)})
        return _values(judged, verdicts.reward)


def answer_of_session(session: RunningEpisode) -> Answer:
    """The tree at the end of an agent's episode, which is its answer."""
    return Answer(session.task.id, episode=session.episode(), lost=session.lost)


def _values(judged: Sequence[JudgedAttempt], reward: TrainingReward) -> list[float | None]:
    verdicts: list[Verdict] = [verdict_of(attempt, evidence, reward) for attempt, evidence in judged]
    groups = [attempt.rollout.task_id for attempt, _ in judged]
    return [verdict.value for verdict in unscored_groups(groups, verdicts)]


def _log(log_metric: LogMetric | None, numbers: Mapping[str, float]) -> None:
    if log_metric is not None:
        for name, value in numbers.items():
            log_metric(name, value)


def _figures(attempts: Sequence[Attempt], episodes: Sequence[Episode]) -> dict[str, float]:
    """Means for TRL's log."""
    count = max(1, len(attempts))
    return {
        "episodes/fixed": sum(attempt.verified for attempt in attempts) / count,
        "episodes/broke": sum(attempt.broke for attempt in attempts) / count,
        "episodes/unchanged": sum(attempt.is_empty for attempt in attempts) / count,
        "episodes/turns": sum(len(episode.steps) for episode in episodes) / count,
        "episodes/test_runs": sum(episode.test_runs for episode in episodes) / count,
        "episodes/submitted": sum(episode.end.name == "SUBMITTED" for episode in episodes) / count,
    }
