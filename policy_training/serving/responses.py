"""From errors to HTTP statuses, JSON that every client can read, and requests whose client leaves."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from regrade.datasets.errors import UserError
from regrade.datasets.visible_text import visible
from regrade.policy_training.serving.job_queue import UnavailableError
from regrade.policy_training.serving.request_log import CLIENT_LEFT
from regrade.policy_training.serving.schema import ErrorBody
from regrade.policy_training.serving.service import TooManyAnswersError, UnknownTaskError

T = TypeVar("T")
MOST_PROBLEMS = 10
LONGEST_DETAIL = 4000
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "The token is missing or wrong."},
    404: {"model": ErrorBody, "description": "There is no such task."},
    408: {"model": ErrorBody, "description": "The body did not arrive in time."},
    413: {"model": ErrorBody, "description": "The body is too large, or has too many answers."},
    422: {"model": ErrorBody, "description": "The request has another form."},
    500: {"model": ErrorBody, "description": "The reward raised an error."},
    503: {"model": ErrorBody, "description": "No room, no number, or stopping: post the same again (Retry-After)."},
}


class AsciiResponse(JSONResponse):
    """JSON in ASCII, so that text which is not valid Unicode, as in a patch of any bytes, can be sent back."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def add_error_responses(app: FastAPI) -> None:
    """Turn the errors of a request into responses with a `detail` in one line."""
    app.add_exception_handler(UnavailableError, _unavailable)
    app.add_exception_handler(UnknownTaskError, lambda _, error: _error(404, str(error)))
    app.add_exception_handler(TooManyAnswersError, lambda _, error: _error(413, str(error)))
    app.add_exception_handler(UserError, lambda _, error: _error(500, str(error)))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


def _error(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return AsciiResponse({"detail": visible(detail)[:LONGEST_DETAIL]}, status, headers)


def _unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, UnavailableError)
    return _error(503, str(error), {"Retry-After": str(math.ceil(error.retry_after))})


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), dict(error.headers or {}))


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _error(422, problems_of(error.errors()))


def problems_of(errors: Sequence[Any]) -> str:
    """What is wrong where, of pydantic's errors, without the values, which may be large."""
    problems = [f"{'.'.join(map(str, each['loc']))[:200]}: {each['msg'][:200]}" for each in errors[:MOST_PROBLEMS]]
    return "; ".join(problems)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of the work, which is cancelled when the client leaves. The body must have been read before.

    Raises:
        HTTPException: the client left.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(CLIENT_LEFT, "the client left")
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
