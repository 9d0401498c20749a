"""A reward as a reward function of TRL, for trainers that answer once: prompts in, completions in, values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies.task_descriptions import ChatPrompt
from regrade.rewards.algebra import Reward

PatchOf = Callable[[Task, str], Patch | None]
"""The patch of an answer to a task; None: the answer is malformed."""


def patch_of_chat_answer(task: Task, answer: str) -> Patch | None:
    """The patch of SEARCH/REPLACE edits or of a unified diff, as `ChatPrompt` asks for."""
    return ChatPrompt(task).patch(answer)


class PatchReward:
    """`reward_funcs=[PatchReward(0.3 * learned("judge") + 0.7 * small_diff, tasks, scorer)]` of a TRL trainer.

    All completions of a call are scored together, so a reward model answers them in one batch. A malformed answer has
    the value 0. If one attempt at a task is unscored, all attempts of the call at this task are: TRL would compare the
    others with a group that lacks it.
    """

    def __init__(
        self, reward: Reward, tasks: Iterable[Task], scorer: Scorer, patch_of: PatchOf = patch_of_chat_answer
    ) -> None:
        """
        Args:
            reward: what a patch is worth. It runs what it needs: of `learned` and static evidence, nothing.
            tasks: the dataset names them in its column `task_id`.
        """
        self._reward = reward
        self._tasks = {task.id: task for task in tasks}
        self._scorer = scorer
        self._patch_of = patch_of
        self.__name__ = reward.name
        """TRL logs the function by it."""

    def __call__(
        self, completions: Sequence[Any], task_id: Sequence[str] | None = None, **_columns: Any
    ) -> list[float | None]:
        """
        Args:
            completions: texts, or conversations whose last message is the answer.
            task_id: the column of the dataset, one a completion.

        Raises:
            UserError: the dataset has no such column, or it names an unknown task.
        """
        tasks = [self._task(name) for name in self._names(task_id)]
        patches = [self._patch_of(task, _text(each)) for task, each in zip(tasks, completions, strict=True)]
        jobs = [(task, patch) for task, patch in zip(tasks, patches, strict=True) if patch is not None]
        breakdowns = iter(self._scorer.score(jobs, self._reward))
        values = [0.0 if patch is None else next(breakdowns).value for patch in patches]
        lost = {task.id for task, value in zip(tasks, values, strict=True) if value is None}
        return [None if task.id in lost else value for task, value in zip(tasks, values, strict=True)]

    def _names(self, task_id: Sequence[str] | None) -> Sequence[str]:
        if task_id is None:
            raise UserError("the dataset has no column task_id: add one with the id of each prompt's task")
        return task_id

    def _task(self, name: str) -> Task:
        if name not in self._tasks:
            raise UserError(
                f"the dataset names the task {name!r}, which PatchReward was not given: pass it in `tasks=`"
            )
        return self._tasks[name]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
