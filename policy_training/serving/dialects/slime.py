"""slime's remote reward: `--rm-type remote_rm --rm-url http://HOST:PORT/slime`.

Its client posts up to ten times, each for up to 120 seconds, and then raises. So an answer without a number gets a 503.
Written from slime's documentation.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.serving.dialects.labels import task_id_of
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, while_connected
from regrade.policy_training.serving.service import RewardService


class SlimeBody(BaseModel):
    """A sample; its label is the id of the task, or JSON with `task_id`."""

    prompt: Any = None
    response: str
    label: Any


def routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["trainers"], responses=ERRORS)

    @router.post("/slime", response_model=float | dict[str, float])
    async def slime(
        body: SlimeBody,
        request: Request,
        detail: Annotated[bool, Query(description="Respond with an object, for slime's --reward-key.")] = False,
    ) -> Response:
        """slime's remote reward: the bare number, or with `?detail=true` an object with `score` and the components.
        An answer without a number fails the request with 503, so that it is posted again."""
        answer = Answer(task_id_of(body.label), text=body.response)
        (judged,) = await while_connected(request, service.judged([answer]))
        value = judged.number()
        components = judged.verdict.components if judged.verdict is not None else {}
        return AsciiResponse({**components, "score": value} if detail else value)

    return router
