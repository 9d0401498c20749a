"""TRL's own GRPOTrainer over the repository environment: its environment factory, its prompts, and its reward.

    tasks = {task.id: task for task in load_tasks(split="tests_only")}
    with Scorer() as scorer:
        trainer = GRPOTrainer(
            model="Qwen/Qwen3-4B-Instruct-2507",
            environment_factory=environment_factory(tasks, scorer, EpisodeLimits(turns=20)),
            reward_funcs=ExecutedOutcome(scorer),
            train_dataset=Dataset.from_list(agent_prompts(tasks)),
        )

TRL renders the tools by the model's chat template, calls them, and masks what they return out of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrade.datasets.episodes import Episode
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import (
    EpisodeLimits,
    RepositoryEnvironment,
    RunningEpisode,
)
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.chat_loop import SYSTEM
from regrade.policy_training.environments.reward_components import numbers_of_step
from regrade.policy_training.environments.training_reward import (
    DEFAULT_TRAINING_REWARD,
    TrainingReward,
    training_reward_of,
)
from regrade.rewards.algebra import Reward


def environment_factory(
    tasks: Mapping[str, Task], scorer: Scorer, limits: EpisodeLimits | None = None
) -> Callable[[], RepositoryEnvironment]:
    """TRL's `environment_factory`: each call makes an environment, and its `reset` begins the task of a row.

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
    """A reward function of TRL: the whole suite judges the tree at the end of each episode.

    None, which TRL leaves out of the loss, is an outcome that could not be measured for a reason outside the policy.
    """

    scorer: Scorer
    reward: Reward | TrainingReward = DEFAULT_TRAINING_REWARD

    def __call__(
        self,
        environments: Sequence[RepositoryEnvironment],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """The training value of each environment's episode, in order."""
        sessions = [environment.session for environment in environments]
        episodes = [session.episode() for session in sessions]
        tasks = {session.task.id: session.task for session in sessions}
        rollouts = [_rollout(session, sample) for sample, session in enumerate(sessions)]
        reward = training_reward_of(self.reward)
        attempts = judge(rollouts, tasks, self.scorer, reward)
        if log_metric is not None:
            for name, value in {**_figures(attempts, episodes), **numbers_of_step(attempts, reward)}.items():
                log_metric(name, value)
        return [attempt.reward for attempt in attempts]


def _rollout(session: RunningEpisode, sample: int) -> Rollout:
    """The tree at the end as an attempt; malformed if no action could be read from all that the policy wrote."""
    episode = session.episode()
    return Rollout(
        task_id=episode.task_id,
        policy="trl",
        temperature=1.0,
        sample=sample,
        seed=0,
        patch=episode.patch,
        well_formed=any(step.tool for step in episode.steps),
        lost=session.lost,
    )


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
