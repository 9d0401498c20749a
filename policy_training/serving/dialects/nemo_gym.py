"""NeMo Gym's resources server: `/verify` and the routes around it.

The request is sent back with `reward`, `mask_sample`, `failure_kind` and `failure_reason`. NeMo Gym requires a number
in `reward`: an answer without a value has 0 there and `mask_sample: true`, by which NeMo Gym leaves the sample out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.serving.dialects.labels import KEYS
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, while_connected
from regrade.policy_training.serving.schema import AnswerStatus
from regrade.policy_training.serving.service import Judged, RewardService

FAILURE_KIND = "verifier_error"
"""Of NeMo Gym's vocabulary: the verifier failed, not the policy."""


class NeMoGymBody(BaseModel):
    """A request of `/verify`. The task's id is `task_id` beside these, in `verifier_metadata`, or in the `metadata` of
    `responses_create_params`."""

    model_config = ConfigDict(extra="allow")

    responses_create_params: dict[str, Any]
    response: dict[str, Any] = Field(description="OpenAI's response; the text of its last message is the answer.")


class NeMoGymVerdict(NeMoGymBody):
    """The request, with the verdict."""

    reward: float
    mask_sample: bool = Field(description="Leave this sample out: its reward is no measurement.")
    failure_kind: str | None = None
    failure_reason: str | None = None
    reward_components: dict[str, float] = Field(default_factory=dict)


def routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["trainers"], responses=ERRORS)

    @router.post("/verify", response_model=NeMoGymVerdict)
    async def verify(body: NeMoGymBody, request: Request) -> Response:
        """NeMo Gym's verifier. An answer without a value has `mask_sample: true`."""
        content = body.model_dump()
        answer = Answer(_task_id(content), text=_last_text(body.response))
        (judged,) = await while_connected(request, service.judged([answer]))
        if judged.status is AnswerStatus.UNFINISHED:
            judged.number()  # raises: the next post joins the running answer
        return AsciiResponse({**content, **_fields(judged)})

    @router.post("/seed_session", include_in_schema=False)
    @router.post("/close_session", include_in_schema=False)
    async def session(body: dict[str, Any]) -> Response:
        """There is no state per session, so that seeding and closing any number of times is the same."""
        name = "resources_session_id"
        return AsciiResponse({name: body[name]} if isinstance(body.get(name), str) else {})

    @router.get("/reverify_mode", include_in_schema=False)
    async def reverify_mode() -> Response:
        """Stored samples can be verified again: a verdict depends on the request alone."""
        return AsciiResponse("stateless")

    return router


def _fields(judged: Judged) -> dict[str, Any]:
    if judged.value is None:
        reason = f"{judged.status.value}: {judged.cause}"
        return {"reward": 0.0, "mask_sample": True, "failure_kind": FAILURE_KIND, "failure_reason": reason}
    components = dict(judged.verdict.components) if judged.verdict is not None else {}
    valid = {"reward": judged.value, "mask_sample": False, "failure_kind": None, "failure_reason": None}
    # NeMo Gym averages the numbers at the top, and does not look into `reward_components`.
    return {**components, **valid, "reward_components": components}


def _task_id(content: Mapping[str, Any]) -> str:
    params = content["responses_create_params"]
    for place in (content, content.get("verifier_metadata"), params.get("metadata")):
        named = place if isinstance(place, Mapping) else {}
        for key in KEYS:
            if isinstance(named.get(key), str):
                return str(named[key])
    raise HTTPException(
        422,
        "the request names no task: set task_id beside `response`, in `verifier_metadata`, or in the `metadata` of "
        "`responses_create_params`",
    )


def _last_text(response: Mapping[str, Any]) -> str:
    """The text of the last message; empty, and so malformed, if the policy wrote none."""
    output = response.get("output")
    items = [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
    messages = [item for item in items if item.get("type") == "message"]
    content = messages[-1].get("content") if messages else ""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    return "".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))
