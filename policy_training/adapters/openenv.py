"""OpenEnv: an environment whose one action is an answer to a task, and its server.

    REGRADE_TASKS=tasks.jsonl REGRADE_REWARD=my_rewards.py:fix_bug \\
        uvicorn --factory regrade.policy_training.adapters.openenv:app --port 8000

`reset(task_id=...)` begins a task, without it the next one; its observation holds the prompt as `messages`.

Unscored: the observation of the step has the reward None, and `metadata["cause"]` says why.
"""

from __future__ import annotations

import threading
import uuid
from typing import Any

from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer, Verdicts
from regrade.policy_training.adapters.versions import warn_if_untested
from regrade.policy_training.policies.task_descriptions import ChatPrompt

SESSIONS = 256
"""Episodes that may be open at the same time; each is a task's name until its answer is judged."""


class AnswerAction(Action):  # type: ignore[misc]
    """An answer: a patch, or a message with one."""

    patch: str | None = Field(default=None, description="A unified diff; empty: no change")
    text: str | None = Field(default=None, description="A message with SEARCH/REPLACE edits or a unified diff")


class TaskObservation(Observation):  # type: ignore[misc]
    """The task to answer; after the answer, `done` with its reward. `metadata` holds the verdict."""

    task_id: str = ""
    messages: list[dict[str, str]] = Field(default_factory=list)


class PatchEnvironment(Environment):  # type: ignore[misc]
    """One task, one answer, one verdict."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    _turn = 0
    _lock = threading.Lock()

    def __init__(self, verdicts: Verdicts | None = None) -> None:
        """`verdicts`: default: those of the environment variables."""
        super().__init__()
        warn_if_untested("openenv")
        self._verdicts = verdicts or configured_verdicts()
        self._state = State(episode_id=None, step_count=0)
        self._task_id = ""

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, task_id: str | None = None, **_: Any
    ) -> TaskObservation:
        """Begin a task: the named one, the one at place `seed`, or the next.

        Raises:
            UserError: the task is unknown.
        """
        ids = list(self._verdicts.tasks)
        task = self._verdicts.task(task_id if task_id is not None else ids[self._place(seed) % len(ids)])
        self._task_id = task.id
        self._state = State(episode_id=episode_id or str(uuid.uuid4()), step_count=0, task_id=task.id)
        return TaskObservation(task_id=task.id, messages=ChatPrompt(task.without_reference()).messages)

    @classmethod
    def _place(cls, seed: int | None) -> int:
        if seed is not None:
            return seed
        with cls._lock:
            cls._turn += 1
            return cls._turn - 1

    def step(self, action: AnswerAction, timeout_s: float | None = None, **_: Any) -> TaskObservation:
        """Judge the answer and end the episode. `timeout_s`: ignored; the limits of the task apply.

        Raises:
            UserError: no task was begun, or not exactly one of patch and text is given.
        """
        del timeout_s
        if not self._task_id:
            raise UserError("no task was begun: call reset before step")
        (verdict,) = self._verdicts.of([Answer(self._task_id, patch=action.patch, text=action.text)])
        self._state.step_count += 1
        metadata = {
            "components": dict(verdict.components),
            "cause": verdict.cause,
            "flags": list(verdict.flags),
            "explanation": verdict.explanation,
        }
        return TaskObservation(task_id=self._task_id, done=True, reward=verdict.value, metadata=metadata)

    @property
    def state(self) -> State:
        """The episode, its steps and its task."""
        return self._state


def app() -> Any:
    """The server, a FastAPI application."""
    return create_fastapi_app(PatchEnvironment, AnswerAction, TaskObservation, max_concurrent_envs=SESSIONS)
