"""OpenEnv: episodes of one step, whose action is the answer. Its client uses the WebSocket, other clients HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, WebSocket
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from regrade.policy_training.serving.dialects.openenv_episodes import (
    EpisodeBody,
    EpisodeId,
    Episodes,
    EpisodeState,
    ObservationBody,
    PatchAction,
    ResetBody,
)
from regrade.policy_training.serving.dialects.openenv_sessions import OpenEnvSession
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, while_connected
from regrade.policy_training.serving.schema import Deadline
from regrade.policy_training.serving.service import RewardService

METHOD_NOT_FOUND = -32601
"""JSON-RPC's code."""


class StepBody(BaseModel):
    """The answer of an episode, which `/reset` named."""

    model_config = ConfigDict(extra="allow")

    action: PatchAction
    episode_id: EpisodeId
    timeout_s: Deadline | None = None


def routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["trainers"], responses=ERRORS)
    episodes = Episodes(service)

    @router.websocket("/ws")
    async def session(websocket: WebSocket) -> None:
        """The protocol of OpenEnv's client: one episode at a time per connection."""
        await OpenEnvSession(websocket, service, episodes).run()

    @router.post("/reset", response_model=EpisodeBody)
    async def reset(body: ResetBody | None = None) -> Response:
        """Begin an episode: the observation contains the task and the messages of its prompt."""
        return AsciiResponse(episodes.reset(body or ResetBody()).model_dump())

    @router.post("/step", response_model=EpisodeBody)
    async def step(body: StepBody, request: Request) -> Response:
        """The verdict on the answer of an episode, which ends with it. Without a value, the reward is null, with the
        reason in the observation's metadata."""
        judging = episodes.step(body.episode_id, body.action, body.timeout_s)
        return AsciiResponse((await while_connected(request, judging)).model_dump())

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

    @router.get("/metadata")
    async def metadata() -> dict[str, str]:
        """What OpenEnv's tools show of the environment."""
        return {"name": "regrade", "description": f"{len(service.tasks)} tasks, each answered by a patch"}

    @router.post("/mcp", include_in_schema=False)
    async def no_tools(body: dict[str, Any]) -> dict[str, Any]:
        """OpenEnv's check of a server asks for this route; its environments may have tools, and this one has none."""
        error = {"code": METHOD_NOT_FOUND, "message": "this environment has no tools: reset, then step"}
        return {"jsonrpc": "2.0", "id": body.get("id"), "error": error}

    return router
