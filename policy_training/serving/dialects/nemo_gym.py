"""NeMo Gym's resources server: `/verify`, `/aggregate_metrics` and the routes around them.

The request is sent back with `reward`, `mask_sample`, `failure_kind` and `failure_reason`, see `nemo_gym_protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from regrade.policy_training.adapters.nemo_gym_protocol import aggregate_metrics, verify_fields
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.serving.dialects.labels import KEYS
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, while_connected
from regrade.policy_training.serving.schema import AnswerStatus
from regrade.policy_training.serving.service import Judged, RewardService


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


class VerifyResponse(BaseModel):
    """A response of `/verify`, of which `response` may hold the model's usage alone."""

    model_config = ConfigDict(extra="allow")

    task_index: int = Field(0, alias="_ng_task_index")
    mask_sample: bool = False


class VerifyResponses(BaseModel):
    """Those of a run."""

    verify_responses: list[VerifyResponse]


class AggregateMetrics(BaseModel):
    """Statistics of every number in responses, without those of masked samples."""

    group_level_metrics: list[dict[str, Any]] = Field(description="Of each task, by `_ng_task_index`.")
    agent_metrics: dict[str, float] = Field(description="Of all: `mean/reward`, `std/reward`, ...")
    key_metrics: dict[str, float] = Field(description="The means, and how many samples were masked.")


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
        try:
            return AsciiResponse({**content, **_fields(judged)})
        except ValueError as error:  # JSON has no NaN, but Python's writers of requests do
            raise HTTPException(422, f"the request cannot be sent back with its verdict: {error}") from error

    @router.post("/aggregate_metrics", response_model=AggregateMetrics)
    def aggregate(body: VerifyResponses) -> Response:  # in a thread of its own, as it may compute for a second
        """The metrics of a run from its verify responses: masked samples are counted, and enter no mean."""
        return AsciiResponse(aggregate_metrics([each.model_dump(by_alias=True) for each in body.verify_responses]))

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
    components = judged.verdict.components if judged.verdict is not None else {}
    return verify_fields(judged.value, components, f"{judged.status.value}: {judged.cause}")


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
