"""Requests to an OpenAI-compatible server: retries, limits, and what counts as a lost answer.

Failures:
- no connection, a timeout, 408, 409, 425, 429 and 5xx, or an invalid response: the request is retried with exponential
  backoff, and after the server's Retry-After. Then the answer is lost.
- 400 to 404, 422: an input is wrong (the key, the model's name, a parameter): an error of the user. The exception is a
  prompt that is too long for the model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple, get_args

import httpx2
import msgspec
import tenacity

from regrade.datasets.errors import UserError
from regrade.datasets.visible_text import visible

logger = logging.getLogger(__name__)
Api = Literal["chat", "completions"]
USUAL_KEY = "OPENAI_API_KEY"
TRANSIENT = frozenset({408, 409, 425, 429})
LARGEST_ANSWER = 64 << 20
"""Bytes, far above the size of a real answer."""
LONGEST_PAUSE = 60.0
"""Seconds between two tries, at most; a server that requests more counts as down."""
TOO_LONG = ("context_length", "context length", "maximum context", "too many tokens", "too long", "max_model_len")
"""Parts of the messages with which servers reject a prompt that is too long for the model."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model behind a URL, and the settings of its requests.

    Raises:
        UserError: the URL is invalid or contains a password, the API is unknown, or `body` is not JSON.
    """

    base_url: str
    """Such as `http://localhost:8000/v1`."""
    model: str
    api: Api = "chat"
    """`chat`: any task, answered by edits or a diff. `completions`: the short format of local models, so that a
    checkpoint behind a server gets the same prompt as here. Default: `chat`."""
    key_variable: str | None = None
    """Environment variable with the key. Default: None: $OPENAI_API_KEY if it is set."""
    max_tokens: int | None = None
    """Length of an answer. Default: None: 4096 in a chat, that of local models in the short format."""
    seconds: float = 300.0
    """Time limit of one request, in seconds. Default: 300."""
    tries: int = 6
    """Requests per attempt, at most. Default: 6."""
    at_a_time: int = 8
    """Concurrent requests. Default: 8."""
    dead_after: int = 8
    """Attempts lost in a row after which the endpoint counts as dead. Default: 8."""
    pause: float = 0.5
    """Seconds of the first pause between tries; each is up to twice as long as the one before. Default: 0.5."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of each request, such as `{"top_p": 0.95}`. Default: none."""
    omit: tuple[str, ...] = ()
    """Parameters that the server rejects, such as `seed`. Default: none."""

    def __post_init__(self) -> None:
        url = httpx2.URL(self.base_url)
        is_place = re.fullmatch(r"[\w.:-]+", url.host) and (url.port or 80) < 65536
        if url.scheme not in ("http", "https") or not is_place:
            raise UserError(f"the endpoint {self.base_url!r} is no URL: give one such as http://localhost:8000/v1")
        if url.userinfo:
            raise UserError(
                f"the endpoint at {url.host!r} is given with a password, which a run would record: put the key into an "
                "environment variable"
            )
        if self.api not in get_args(Api):
            raise UserError(f"no api {self.api!r}: choose from {', '.join(get_args(Api))}")
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"the endpoint {self.base_url!r}: `body` is no JSON: {error}") from error

    def key(self) -> str | None:
        """The key, or None without one. Raises UserError if `key_variable` is not set or cannot be sent."""
        key = os.environ.get(self.key_variable or USUAL_KEY)
        if self.key_variable and not key:
            raise UserError(f"the environment variable {self.key_variable!r}, for the endpoint's key, is not set")
        if key and not (key.isascii() and key.isprintable()):
            raise UserError(
                f"the environment variable {self.key_variable or USUAL_KEY!r} holds no key: it has a line break or a "
                "letter beyond ASCII, which no header can hold"
            )
        return key


class LostAttemptError(RuntimeError):
    """The endpoint returned no answer, for a reason that the policy did not cause."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause
        """Seconds until the next try, as requested by the server."""


class ServerAnswer(NamedTuple):
    """A server's answer."""

    text: str
    tokens: int = 0
    """Generated, as the server counts them."""
    tool_calls: tuple[Any, ...] = ()
    """In OpenAI's form, unchecked."""
    is_too_long: bool = False
    """Was the prompt too long for the model? The text is the server's reason then."""


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[EndpointConnection]:
    """A connection to the server. Raises UserError if the key is missing."""
    key = endpoint.key()
    async with httpx2.AsyncClient(
        headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
        timeout=httpx2.Timeout(endpoint.seconds, connect=min(10.0, endpoint.seconds)),
        limits=httpx2.Limits(max_connections=endpoint.at_a_time),
    ) as client:
        yield EndpointConnection(endpoint, client)


class EndpointConnection:
    """Sends requests, several at a time."""

    def __init__(self, endpoint: Endpoint, client: httpx2.AsyncClient) -> None:
        self._endpoint = endpoint
        self._client = client

    async def complete(self, body: Mapping[str, Any]) -> ServerAnswer:
        """The server's answer to a request. Raises LostAttemptError, or UserError."""
        body = {**body, "model": self._endpoint.model, **self._endpoint.body}
        sent = {name: value for name, value in body.items() if name not in self._endpoint.omit}
        text = json.dumps(sent, ensure_ascii=False, allow_nan=False)
        content = text.encode("utf-8", "replace")  # a file's undecodable bytes are lone surrogates
        asking = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._endpoint.tries),
            wait=self._pause,
            retry=tenacity.retry_if_exception_type(LostAttemptError),
            before_sleep=self._log_retry,
            reraise=True,
        )
        answer: ServerAnswer = await asking(self._ask, content)
        return answer

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        if logger.isEnabledFor(logging.WARNING):
            of, pause = self._endpoint.tries - 1, state.upcoming_sleep
            error = state.outcome.exception() if state.outcome is not None else None
            logger.warning("retry %d of %d in %.1f s: %s", state.attempt_number, of, pause, self.without_key(error))

    def without_key(self, error: BaseException | None) -> str:
        """A server may repeat the key in its answer."""
        key = self._endpoint.key()
        return visible(str(error).replace(key, "***") if key else str(error))

    def _pause(self, state: tenacity.RetryCallState) -> float:
        usual = tenacity.wait_random_exponential(multiplier=self._endpoint.pause, max=LONGEST_PAUSE)(state)
        error = state.outcome.exception() if state.outcome is not None else None
        wished = error.pause if isinstance(error, LostAttemptError) else None
        return usual if wished is None else max(usual, min(wished, LONGEST_PAUSE))

    async def _ask(self, content: bytes) -> ServerAnswer:
        path = "/chat/completions" if self._endpoint.api == "chat" else "/completions"
        url = self._endpoint.base_url.rstrip("/") + path
        try:
            async with asyncio.timeout(self._endpoint.seconds):  # the client's own limit restarts with each byte
                async with self._client.stream("POST", url, content=content) as response:
                    received = await _whole(response, url)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise LostAttemptError(
                f"{url}: no answer within {self._endpoint.seconds:g} s ({type(error).__name__})"
            ) from error
        except httpx2.HTTPError as error:
            raise LostAttemptError(f"{url}: {str(error) or type(error).__name__}") from error
        if response.is_success:
            return _read(received, url)
        reason = _error_text(received)
        if response.status_code in TRANSIENT or response.is_server_error:
            raise LostAttemptError(f"{url}: {response.status_code} {reason}", _retry_after(response))
        if any(words in reason.lower() for words in TOO_LONG):
            return ServerAnswer(f"[no answer: {reason}]", is_too_long=True)
        raise UserError(
            f"the endpoint {url} refuses the request: {response.status_code} {reason}{_advice(response, reason)}"
        )


class _ResponseMessage(msgspec.Struct):
    content: str | list[Any] | None = None
    """Some servers answer in parts, such as thoughts and text."""
    tool_calls: list[Any] | None = None


class _ResponseChoice(msgspec.Struct):
    message: _ResponseMessage | None = None
    text: str | None = None


class _ResponseUsage(msgspec.Struct):
    completion_tokens: int | None = None


class _CompletionResponse(msgspec.Struct):
    choices: list[_ResponseChoice]
    usage: _ResponseUsage | None = None


async def _whole(response: httpx2.Response, url: str) -> bytes:
    """The decompressed body. Its size is limited: an endless one would fill the memory before the timeout."""
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > LARGEST_ANSWER:
            raise LostAttemptError(f"{url}: its answer has more than {LARGEST_ANSWER >> 20} MB")
    return bytes(content)


def _read(content: bytes, url: str) -> ServerAnswer:
    try:
        completion = msgspec.json.decode(content, type=_CompletionResponse)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LostAttemptError(f"{url}: what it answers is no completion ({error})") from error
    if not completion.choices:
        raise LostAttemptError(f"{url}: what it answers is no completion (it has no choices)")
    choice = completion.choices[0]
    tokens = (completion.usage.completion_tokens or 0) if completion.usage is not None else 0
    if choice.message is None:
        return ServerAnswer(choice.text or "", tokens)
    return ServerAnswer(_text_of(choice.message.content), tokens, tuple(choice.message.tool_calls or ()))


def _text_of(content: str | list[Any] | None) -> str:
    """The text of a message: all of it, or its parts of the type `text`, which continue each other."""
    if not isinstance(content, list):
        return content or ""
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _error_text(content: bytes) -> str:
    """The server's error message, shortened."""
    try:
        value = json.loads(content)
        error = value.get("error", value) if isinstance(value, dict) else value
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, RecursionError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:300]


def _advice(response: httpx2.Response, reason: str) -> str:
    if "tool" in reason.lower():
        return "; start the server with tool calls for a model that knows them (vLLM: --enable-auto-tool-choice)"
    if response.status_code in (401, 403):
        return "; put the key into an environment variable and name it with `key_variable=NAME`"
    if response.status_code == 404:
        return "; is the base URL right (it often ends in /v1), and does the server have this model?"
    return "; leave out what it does not take with `omit` in a file of policies"


def _retry_after(response: httpx2.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
