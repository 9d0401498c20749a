"""Who may ask, and how large and how slow a request may be: ASGI middleware around the routes."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regrade.policy_training.serving.settings import ServerSettings

OPEN_PATHS = frozenset({"/health", "/docs", "/openapi.json"})
"""Paths without a token: whether the server lives, and the description of its API, which contains nothing of it."""


class BearerToken:
    """Rejects requests without the token, before their bodies are read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._header = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or self._is_authorised(scope):
            await self._app(scope, receive, send)
            return
        detail = "the token is missing or wrong: send the header `Authorization: Bearer TOKEN`"
        response = JSONResponse({"detail": detail}, 401, headers={"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _is_authorised(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")
        scheme, _, token = given.partition(b" ")
        return hmac.compare_digest(scheme.capitalize() + b" " + token.strip(), self._header)


class SameOrigin:
    """Rejects WebSockets of pages of other hosts: a browser lets any page open one, and names the page's host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Mapping[str, str] = Headers(scope=scope) if scope["type"] == "websocket" else {}
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            await JSONResponse({"detail": "a page of another host cannot use this server"}, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyLimits:
    """Ends a request whose body is too large, or does not arrive in time, such as that of a client that stopped."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seconds, most = self._settings.body_seconds, self._settings.body_bytes
        deadline = asyncio.get_running_loop().time() + seconds
        announced = Headers(scope=scope).get("content-length", "")
        received = 0
        is_complete = False

        async def receive_within_limits() -> Message:
            nonlocal is_complete, received
            if is_complete:
                return await receive()
            if announced.isdecimal() and int(announced) > most:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the body of the request did not arrive within {seconds:g} s"
                raise HTTPException(408, detail, {"Connection": "close"}) from None
            received += len(message.get("body", b""))
            if received > most:
                raise self._too_large()
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_within_limits, send)

    def _too_large(self) -> HTTPException:
        most = f"{self._settings.body_megabytes:g} MB"
        detail = f"the body of the request is larger than {most}: send less, or raise the limit of the server"
        return HTTPException(413, detail, {"Connection": "close"})
