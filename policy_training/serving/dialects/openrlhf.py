"""OpenRLHF's remote reward: `--reward.remote_url http://HOST:PORT/openrlhf`.

Its client posts up to five times, each for up to 180 seconds, and takes any JSON of a 2xx response for rewards. So an
answer without a number gets a 503: the next post joins the running answer, or scores it again.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.openrlhf import answer_in
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.serving.dialects.labels import task_id_of
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, while_connected
from regrade.policy_training.serving.service import RewardService


class OpenRLHFBody(BaseModel):
    """A batch; the label of each row is the id of its task, or JSON with `task_id`."""

    query: Annotated[list[str], Field(min_length=1, description="Prompts with their answers.")]
    prompts: list[str]
    labels: list[Any]


class OpenRLHFRewards(BaseModel):
    """One number per row."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


def routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["trainers"], responses=ERRORS)

    @router.post("/openrlhf", response_model=OpenRLHFRewards)
    async def openrlhf(body: OpenRLHFBody, request: Request) -> Response:
        """OpenRLHF's remote reward. A row without a number fails the request with 503, so that it is posted again."""
        if not len(body.query) == len(body.prompts) == len(body.labels):
            counts = f"{len(body.query)} queries, {len(body.prompts)} prompts and {len(body.labels)} labels"
            raise HTTPException(422, f"there are {counts}: send one of each per row")
        rows = zip(body.query, body.prompts, body.labels, strict=True)
        answers = [_answer(*row) for row in rows]
        judged = await while_connected(request, service.judged(answers))
        values = [each.number() for each in judged]
        rows_of_components = [each.verdict.components if each.verdict else {} for each in judged]
        names = set(rows_of_components[0]).intersection(*rows_of_components[1:])
        logs = {name: [row[name] for row in rows_of_components] for name in sorted(names)}
        return AsciiResponse({"rewards": values, "scores": values, "extra_logs": logs})

    return router


def _answer(query: str, prompt: str, label: Any) -> Answer:
    """
    Raises:
        HTTPException: the query does not contain the prompt, or the label names no task.
    """
    try:
        return Answer(task_id_of(label), text=answer_in(query, prompt))
    except UserError as error:
        raise HTTPException(422, str(error)) from error
