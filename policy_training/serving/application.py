"""The routes of the server: `/score`, the dialects of trainers, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response, StreamingResponse

from regrade.datasets.episodes import Episode
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.serving.dialects import nemo_gym, openenv, openrlhf, slime
from regrade.policy_training.serving.metrics import CONTENT_TYPE
from regrade.policy_training.serving.protection import BearerToken, BodyLimits, SameOrigin
from regrade.policy_training.serving.request_log import RequestLog
from regrade.policy_training.serving.responses import ERRORS, AsciiResponse, add_error_responses, while_connected
from regrade.policy_training.serving.schema import AnswerBody, HealthBody, ScoreBody, VerdictBody, VerdictsBody
from regrade.policy_training.serving.service import Judged, RewardService

NDJSON = "application/x-ndjson"
HEARTBEAT_SECONDS = 15.0
"""A stream without a verdict for so long gets an empty line, as proxies close silent connections."""
DESCRIPTION = """\
A reward for code agents over HTTP. Equal answers are scored once, however often they are posted: after a timeout, post
the same again. An answer without a value has the value `null` and a cause; it never has the value 0.
"""


def create_app(service: RewardService) -> FastAPI:
    """The application. Its state lives in the service."""
    app = FastAPI(
        title="Regrade",
        version="1",
        description=DESCRIPTION,
        middleware=_middleware(service),
        default_response_class=AsciiResponse,
        redoc_url=None,
    )
    add_error_responses(app)
    app.include_router(_score_routes(service))
    for dialect in (nemo_gym, openrlhf, slime, openenv):
        app.include_router(dialect.routes(service))
    app.include_router(_operation_routes(service))
    return app


def _middleware(service: RewardService) -> list[Middleware]:
    settings = service.settings
    guards = (
        # Without a token, only pages of this machine may ask: not one whose name an attacker let lead to 127.0.0.1.
        [
            Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]"]),
            Middleware(SameOrigin),
        ]
        if settings.token is None
        else [Middleware(BearerToken, token=settings.token)]
    )
    return [
        Middleware(RequestLog, metrics=service.metrics),
        *guards,
        Middleware(BodyLimits, settings=settings),
    ]


def _score_routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["scores"], responses=ERRORS)

    @router.post(
        "/score",
        response_model=VerdictsBody,
        responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
    )
    async def score(body: ScoreBody, request: Request) -> Response:
        """Score answers: one response with all verdicts in order, or, with the header `Accept: application/x-ndjson`,
        one line per verdict as soon as it is known. The last line of a complete stream is `{"end": COUNT}`; lines may
        be empty."""
        answers = [_answer(each) for each in body.answers]
        if NDJSON in request.headers.get("accept", ""):
            lines = _lines(service, answers, body.deadline)
            start = await anext(lines)  # raises before the response begins, if the queue has no room
            return StreamingResponse(_after(start, lines), media_type=NDJSON)
        judged = await while_connected(request, service.judged(answers, body.deadline))
        return AsciiResponse(VerdictsBody(verdicts=[_verdict(each) for each in judged]).model_dump(mode="json"))

    return router


def _answer(body: AnswerBody) -> Answer:
    try:
        episode = None if body.episode is None else msgspec.convert(body.episode, Episode)
    except ValueError as error:  # also msgspec's own
        raise HTTPException(422, f"the episode of task {body.task_id!r} is none: {error}") from error
    return Answer(body.task_id, patch=body.patch, text=body.text, episode=episode)


def _verdict(judged: Judged) -> VerdictBody:
    body = VerdictBody(
        index=judged.index, task_id=judged.task_id, digest=judged.digest, status=judged.status, value=judged.value,
        cause=judged.cause,
    )  # fmt: skip
    if judged.verdict is not None:
        body.components = dict(judged.verdict.components)
        body.flags = list(judged.verdict.flags)
        body.explanation = judged.verdict.explanation
    return body


async def _lines(service: RewardService, answers: list[Answer], deadline: float | None) -> AsyncGenerator[bytes, None]:
    """An empty line once all answers are queued, then a line per verdict."""
    with service.joined(answers) as jobs:
        yield b"\n"
        async with aclosing(service.results(jobs, deadline, HEARTBEAT_SECONDS)) as results:
            async for judged in results:
                yield b"\n" if judged is None else _line(_verdict(judged).model_dump(mode="json"))
        yield _line({"end": len(answers)})


def _line(content: object) -> bytes:
    return bytes(AsciiResponse(content).body) + b"\n"


async def _after(start: bytes, lines: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(lines):  # when the client leaves, it no longer waits for its answers
        yield start
        async for line in lines:
            yield line


def _operation_routes(service: RewardService) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/health", response_model=HealthBody, responses={503: {"model": HealthBody}})
    async def health() -> Response:
        """Is the server ready for answers? 503 while it stops."""
        counts, stops = service.queue.counts, service.queue.is_draining
        body = HealthBody(
            status="unhealthy" if stops else "healthy", reward=service.name, tasks=len(service.tasks),
            waiting=counts.waiting, running=counts.running,
        )  # fmt: skip
        return AsciiResponse(body.model_dump(), 503 if stops else 200)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """The metrics of the server and of its scorer, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @router.get("/tasks", response_model=list[str], responses={401: ERRORS[401]})
    async def tasks() -> Response:
        """The ids of the tasks."""
        return AsciiResponse(list(service.tasks))

    return router
