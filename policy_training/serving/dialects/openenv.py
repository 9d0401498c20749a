"""OpenEnv over HTTP: an episode of one step, whose action is the answer.

The id of an episode names its task, so that an episode survives a restart of the server, unless the client chose the
id. An answer without a value has the reward `null`.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections import OrderedDict
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.responses import Response

from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.policies.task_descriptions import ChatPrompt
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, while_connected
from regrade.policy_training.serving.schema import MOST_ID, AnswerStatus, Deadline
from regrade.policy_training.serving.service import RewardService, UnknownTaskError

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

    patch: str | None = Field(None, description="A unified diff.")
    text: str | None = Field(None, description="SEARCH/REPLACE edits or a unified diff.")
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one(self) -> PatchAction:
        if (self.patch is None) == (self.text is None):
            raise ValueError("give exactly one of patch and text")
        return self


class StepBody(BaseModel):
    """The answer of an episode, which `/reset` named."""

    model_config = ConfigDict(extra="allow")

    action: PatchAction
    episode_id: EpisodeId
    timeout_s: Deadline | None = None


class ObservationBody(BaseModel):
    """What the policy sees: the task after `/reset`, the verdict after `/step`."""

    episode_id: str
    task_id: str
    prompt: list[dict[str, str]] = Field(default_factory=list, description="Messages of a chat, after /reset.")
    components: dict[str, float] = Field(default_factory=dict)
    flags: list[str] = Field(default_factory=list)
    explanation: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class EpisodeBody(BaseModel):
    """OpenEnv's response to `/reset` and `/step`."""

    observation: ObservationBody
    reward: float | None = Field(description="null after /reset, and for an answer that could not be scored.")
    done: bool


class EpisodeState(BaseModel):
    """OpenEnv's state of an episode."""

    episode_id: str
    task_id: str
    step_count: int


class _Episodes:
    """The episodes, the least recently used of which are evicted."""

    def __init__(self, service: RewardService) -> None:
        self._tasks = service.tasks
        self._names = list(service.tasks)
        self._turn = itertools.cycle(self._names)
        self._states: OrderedDict[str, EpisodeState] = OrderedDict()

    def start(self, body: ResetBody) -> EpisodeState:
        task_id = body.task_id
        if task_id is None:
            task_id = next(self._turn) if body.seed is None else random.Random(body.seed).choice(self._names)
        if task_id not in self._tasks:
            raise UnknownTaskError(f"the server has no task {task_id[:200]!r}: GET /tasks lists them")
        episode_id = body.episode_id or f"{task_id}#{uuid.uuid4().hex}"
        return self._put(EpisodeState(episode_id=episode_id, task_id=task_id, step_count=0))

    def state(self, episode_id: str) -> EpisodeState:
        state = self._states.get(episode_id)
        if state is None:
            task_id = episode_id.rpartition("#")[0]
            if task_id not in self._tasks:
                raise HTTPException(404, f"there is no episode {episode_id[:200]!r}: POST /reset first")
            state = EpisodeState(episode_id=episode_id, task_id=task_id, step_count=0)
        return self._put(state)

    def _put(self, state: EpisodeState) -> EpisodeState:
        self._states[state.episode_id] = state
        self._states.move_to_end(state.episode_id)
        if len(self._states) > MOST_EPISODES:
            self._states.popitem(last=False)
        return state


def routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["trainers"], responses=ERRORS)
    episodes = _Episodes(service)

    @router.post("/reset", response_model=EpisodeBody)
    async def reset(body: ResetBody | None = None) -> Response:
        """Begin an episode: the observation contains the task and the messages of its prompt."""
        state = episodes.start(body or ResetBody())
        prompt = ChatPrompt(service.tasks[state.task_id]).messages
        observation = ObservationBody(episode_id=state.episode_id, task_id=state.task_id, prompt=prompt)
        return AsciiResponse(EpisodeBody(observation=observation, reward=None, done=False).model_dump())

    @router.post("/step", response_model=EpisodeBody)
    async def step(body: StepBody, request: Request) -> Response:
        """The verdict on the answer of an episode, which ends with it. Without a value, the reward is null, with the
        reason in the observation's metadata."""
        state = episodes.state(body.episode_id)
        answer = Answer(state.task_id, patch=body.action.patch, text=body.action.text)
        (judged,) = await while_connected(request, service.judged([answer], body.timeout_s))
        state.step_count += 1
        observation = ObservationBody(
            episode_id=state.episode_id,
            task_id=state.task_id,
            metadata={"status": judged.status.value, "cause": judged.cause, "digest": judged.digest},
        )
        if judged.verdict is not None:
            observation.components = dict(judged.verdict.components)
            observation.flags = list(judged.verdict.flags)
            observation.explanation = judged.verdict.explanation
        is_done = judged.status is not AnswerStatus.UNFINISHED  # otherwise the same step again joins the running answer
        return AsciiResponse(EpisodeBody(observation=observation, reward=judged.value, done=is_done).model_dump())

    @router.get("/state", response_model=EpisodeState)
    async def state(episode_id: str) -> Response:
        """The state of an episode."""
        return AsciiResponse(episodes.state(episode_id).model_dump())

    @router.get("/schema")
    async def schema() -> dict[str, Any]:
        """JSON schemas of actions, observations and states."""
        kinds: dict[str, type[BaseModel]] = {
            "action": PatchAction,
            "observation": ObservationBody,
            "state": EpisodeState,
        }
        return {name: kind.model_json_schema() for name, kind in kinds.items()}

    return router
