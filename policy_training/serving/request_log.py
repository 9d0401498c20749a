"""One log record and the metrics of each request, and the formats of the log."""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pythonjsonlogger.json import JsonFormatter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regrade.datasets.visible_text import visible
from regrade.policy_training.serving.metrics import ServerMetrics

logger = logging.getLogger(__name__)
LOGGERS = ("regrade", "uvicorn.error")
CLIENT_LEFT = 499
"""The status, as nginx logs it, of a request whose client left before the response."""
SWITCHED = 101
"""The status of a request that began a WebSocket."""
LONGEST_ID = 128


class RequestLog:
    """Logs each request, counts it, and returns its id in the header X-Request-ID, which a client may choose."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status, started = CLIENT_LEFT, time.perf_counter()
        chosen_id = Headers(scope=scope).get("x-request-id", "")
        request_id = chosen_id if chosen_id.isprintable() and 0 < len(chosen_id) <= LONGEST_ID else uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            elif message["type"] == "websocket.accept":
                status = SWITCHED
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            status = 500
            raise
        finally:
            self._record(scope, request_id, status, time.perf_counter() - started)

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        method = scope.get("method", "GET")  # a WebSocket begins as one
        route = scope.get("route")
        path = getattr(route, "path", None) or "other"  # a path that no route has must not make a new series
        self._metrics.requests.labels(path, str(status)).inc()
        if scope["type"] == "http":  # a WebSocket lasts as long as its client wants it to
            self._metrics.request_seconds.labels(path).observe(seconds)
        client = scope.get("client")
        logger.info(
            "%s %s %d in %.3f s",
            method,
            visible(scope["path"]),
            status,
            seconds,
            extra={
                "request_id": request_id,
                "method": method,
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 6),
                "client": client[0] if client else None,
            },
        )


@contextmanager
def log_to_stderr_as(kind: str) -> Iterator[None]:
    """Write the records of the server from INFO up to stderr: `text`, or `json`, one object a line."""
    handler = logging.StreamHandler(sys.stderr)
    if kind == "json":
        handler.setFormatter(
            JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(min(each.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
