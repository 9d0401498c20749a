"""OpenEnv's WebSocket: what its client speaks. One connection plays one episode at a time.

    reset  {"type": "reset", "data": {"task_id": ...}}   -> {"type": "observation", "data": {observation, reward, done}}
    step   {"type": "step", "data": {"patch": ...}}      -> {"type": "observation", "data": {observation, reward, done}}
    state  {"type": "state"}                             -> {"type": "state", "data": {episode_id, task_id, step_count}}
    close  {"type": "close"}                             the end of the connection

Whatever fails is `{"type": "error", "data": {"message", "code"}}`, and the connection goes on. A client that lost its
connection in a step resets with the same `episode_id` and sends the step again, which joins the running answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any, Literal

from fastapi import WebSocket
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from regrade.datasets.errors import UserError
from regrade.datasets.visible_text import visible
from regrade.policy_training.serving.dialects.openenv_episodes import Episodes, PatchAction, ResetBody
from regrade.policy_training.serving.job_queue import UnavailableError
from regrade.policy_training.serving.responses import LONGEST_DETAIL, problems_of
from regrade.policy_training.serving.service import RewardService

TRY_AGAIN_LATER = 1013
"""The code with which a WebSocket closes if the server has no room."""


class _ClientCommand(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _ResetCommand(_ClientCommand):
    type: Literal["reset"]
    data: ResetBody = Field(default_factory=ResetBody)


class _StepCommand(_ClientCommand):
    type: Literal["step"]
    data: PatchAction


class _StateCommand(_ClientCommand):
    type: Literal["state"]


class _CloseCommand(_ClientCommand):
    type: Literal["close"]


_COMMANDS: TypeAdapter[_ResetCommand | _StepCommand | _StateCommand | _CloseCommand] = TypeAdapter(
    Annotated[_ResetCommand | _StepCommand | _StateCommand | _CloseCommand, Field(discriminator="type")]
)


class OpenEnvSession:
    """One connection, and the episode that it plays."""

    def __init__(self, websocket: WebSocket, service: RewardService, episodes: Episodes) -> None:
        self._websocket = websocket
        self._service = service
        self._episodes = episodes
        self._episode_id: str | None = None

    async def run(self) -> None:
        """Until the client leaves or closes the session."""
        await self._websocket.accept()
        with contextlib.suppress(WebSocketDisconnect), self._service.session() as is_admitted:
            if is_admitted:
                await self._answer_messages()
                return
            most = self._service.settings.connections
            await self._send(_error("CAPACITY_REACHED", f"{most} sessions are open: connect again later"))
            await self._websocket.close(TRY_AGAIN_LATER)

    async def _answer_messages(self) -> None:
        # The next message is awaited while this one is answered, so that a client that leaves is noticed.
        incoming = asyncio.ensure_future(self._websocket.receive())
        try:
            while not _is_disconnect(message := await incoming):
                incoming = asyncio.ensure_future(self._websocket.receive())
                if not await self._answered(message, incoming):
                    return
        finally:
            incoming.cancel()

    async def _answered(self, message: Message, incoming: asyncio.Future[Message]) -> bool:
        """Answer a message. Returns: whether the session goes on."""
        reply = asyncio.ensure_future(self._reply(message))
        self._service.replies.add(reply)
        reply.add_done_callback(self._service.replies.discard)
        try:
            await asyncio.wait((reply, incoming), return_when=asyncio.FIRST_COMPLETED)
            if not reply.done() and _is_disconnect(incoming.result()):
                return False
            return await reply
        finally:
            reply.cancel()

    async def _reply(self, message: Message) -> bool:
        content = message.get("text")
        try:
            request = _COMMANDS.validate_python(json.loads(message.get("bytes", b"") if content is None else content))
        except ValidationError as error:  # before ValueError, which it is
            await self._send(_invalid(error))
            return True
        except (ValueError, RecursionError) as error:
            await self._send(_error("INVALID_JSON", f"the message is no JSON: {error}"))
            return True
        if isinstance(request, _CloseCommand):
            await self._websocket.close()
            return False
        await self._send(await self._response(request))
        return True

    async def _response(self, request: _ResetCommand | _StepCommand | _StateCommand) -> dict[str, Any]:
        try:
            if isinstance(request, _ResetCommand):
                begun = self._episodes.reset(request.data)
                self._episode_id = begun.observation.episode_id
                return {"type": "observation", "data": begun.model_dump()}
            if self._episode_id is None:
                return _error("SESSION_ERROR", f"no episode has begun: send `reset` before `{request.type}`")
            if isinstance(request, _StepCommand):
                ended = await self._episodes.step(self._episode_id, request.data)
                return {"type": "observation", "data": ended.model_dump()}
            return {"type": "state", "data": self._episodes.state(self._episode_id).model_dump()}
        except UnavailableError as error:
            return _error("CAPACITY_REACHED", str(error), retry_after=error.retry_after)
        except HTTPException as error:
            return _error("SESSION_ERROR", str(error.detail))
        except UserError as error:
            return _error("EXECUTION_ERROR", str(error))

    async def _send(self, content: dict[str, Any]) -> None:
        await self._websocket.send_text(json.dumps(content, allow_nan=False, separators=(",", ":")))


def _is_disconnect(message: Message) -> bool:
    return bool(message["type"] == "websocket.disconnect")


def _invalid(error: ValidationError) -> dict[str, Any]:
    problems = error.errors()
    is_unknown = problems[0]["type"] in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type")
    return _error("UNKNOWN_TYPE" if is_unknown else "VALIDATION_ERROR", problems_of(problems))


def _error(code: str, message: str, **more: object) -> dict[str, Any]:
    return {"type": "error", "data": {"message": visible(message)[:LONGEST_DETAIL], "code": code, **more}}
