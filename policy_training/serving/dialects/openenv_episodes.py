"""OpenEnv's episodes: one task, one answer, one verdict. The same over HTTP and over a WebSocket.

The id of an episode names its task, so that an episode survives a restart of the server, unless the client chose the
id. An answer without a value has the reward `null`.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections import OrderedDict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.policies.task_descriptions import ChatPrompt
from regrade.policy_training.serving.schema import MOST_ID, AnswerStatus
from regrade.policy_training.serving.service import Judged, RewardService, UnknownTaskError

MOST_EPISODES = 100_000
EpisodeId = Annotated[str, Field(max_length=255 + MOST_ID)]


class ResetBody(BaseModel):
    """Without `task_id`, the seed chooses the task; without either, the next one in turn."""

    model_config = ConfigDict(extra="allow")

    seed: int | None = Field(default=None, ge=0)
    episode_id: EpisodeId | None = None
    task_id: str | None = None


class PatchAction(BaseModel):
    """The answer: exactly one of `patch` and `text`."""

    model_config = ConfigDict(extra="forbid")

    patch: str | None = Field(None, description="A unified diff; empty: no change.")
    text: str | None = Field(None, description="A message with SEARCH/REPLACE edits or a unified diff.")
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one(self) -> PatchAction:
        if (self.patch is None) == (self.text is None):
            raise ValueError("give exactly one of patch and text")
        return self


class ObservationBody(BaseModel):
    """What the policy sees: the task after a reset; after a step, `metadata` holds the verdict."""

    episode_id: str
    task_id: str
    messages: list[dict[str, str]] = Field(default_factory=list, description="The prompt, after a reset.")
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="After a step: `status`, `components`, `cause`, `flags`, `explanation`, `digest`.",
    )


class EpisodeBody(BaseModel):
    """OpenEnv's response to a reset and to a step."""

    observation: ObservationBody
    reward: float | None = Field(description="null after a reset, and for an answer that could not be scored.")
    done: bool


class EpisodeState(BaseModel):
    """OpenEnv's state of an episode."""

    episode_id: str
    task_id: str
    step_count: int


class Episodes:
    """The episodes of one server, the least recently used of which are evicted."""

    def __init__(self, service: RewardService) -> None:
        self._service = service
        self._names = list(service.tasks)
        self._turn = itertools.cycle(self._names)
        self._states: OrderedDict[str, EpisodeState] = OrderedDict()

    def reset(self, body: ResetBody) -> EpisodeBody:
        """Begin an episode.

        Raises:
            UnknownTaskError: there is no such task.
        """
        task_id = body.task_id
        if task_id is None:
            task_id = next(self._turn) if body.seed is None else random.Random(body.seed).choice(self._names)
        task = self._service.tasks.get(task_id)
        if task is None:
            raise UnknownTaskError(f"the server has no task {task_id[:200]!r}: GET /tasks lists them")
        episode_id = body.episode_id or f"{task_id}#{uuid.uuid4().hex}"
        self._put(EpisodeState(episode_id=episode_id, task_id=task_id, step_count=0))
        observation = ObservationBody(episode_id=episode_id, task_id=task_id, messages=ChatPrompt(task).messages)
        return EpisodeBody(observation=observation, reward=None, done=False)

    async def step(self, episode_id: str, action: PatchAction, deadline: float | None = None) -> EpisodeBody:
        """The verdict on the answer of an episode. Raises as `state` and `RewardService.joined` do."""
        state = self.state(episode_id)
        answer = Answer(state.task_id, patch=action.patch, text=action.text)
        (judged,) = await self._service.judged([answer], deadline)
        state.step_count += 1
        observation = ObservationBody(episode_id=episode_id, task_id=state.task_id, metadata=_verdict(judged))
        # Otherwise the same step again joins the running answer.
        is_done = judged.status is not AnswerStatus.UNFINISHED
        return EpisodeBody(observation=observation, reward=judged.value, done=is_done)

    def state(self, episode_id: str) -> EpisodeState:
        """
        Raises:
            HTTPException: there is no such episode.
        """
        state = self._states.get(episode_id)
        if state is None:
            task_id = episode_id.rpartition("#")[0]
            if task_id not in self._service.tasks:
                raise HTTPException(404, f"there is no episode {episode_id[:200]!r}: reset first")
            state = EpisodeState(episode_id=episode_id, task_id=task_id, step_count=0)
        return self._put(state)

    def _put(self, state: EpisodeState) -> EpisodeState:
        self._states[state.episode_id] = state
        self._states.move_to_end(state.episode_id)
        if len(self._states) > MOST_EPISODES:
            self._states.popitem(last=False)
        return state


def _verdict(judged: Judged) -> dict[str, Any]:
    verdict = judged.verdict
    return {
        "status": judged.status.value,
        "components": dict(verdict.components) if verdict is not None else {},
        "cause": judged.cause,
        "flags": list(verdict.flags) if verdict is not None else [],
        "explanation": verdict.explanation if verdict is not None else "",
        "digest": judged.digest,
    }
