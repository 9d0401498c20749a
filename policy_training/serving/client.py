"""A client of the server. It needs none of the server's packages, and no sandbox.

Each answer of a batch is posted until it has a final verdict: after a lost connection, a 503 and a restart of the
server, only the answers without one are posted again. The server scores equal answers once, so that posting again is
safe.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec
import tenacity

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.verdicts import Answer, Verdict

NDJSON = "application/x-ndjson"
FINAL = frozenset({"scored", "unscored", "failed"})
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
SILENCE_SECONDS = 60.0
"""The server sends at least an empty line every 15 seconds."""
LONGEST_PAUSE = 30.0
"""Seconds between two posts, at most."""


class ServerError(RuntimeError):
    """The server gave no final verdict for some answers, however often they were posted."""


class _TransientError(Exception):
    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


@dataclass
class _PostedAnswers:
    """The answers of a call, and what is known of them."""

    answers: Sequence[Answer]
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    last_failure: str = ""

    @property
    def missing(self) -> list[int]:
        return [index for index in range(len(self.answers)) if index not in self.verdicts]


class RewardClient:
    """Posts answers to a server and returns their verdicts.

        with RewardClient("http://127.0.0.1:8077") as client:
            verdicts = client.score([Answer("add-1", patch=diff)])

    All methods may be called from several threads.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        tries: int = 60,
        deadline: float = 600.0,
        connections: int = 64,
    ) -> None:
        """
        Args:
            url: such as `http://127.0.0.1:8077`.
            tries: posts in a row without a new verdict, at most.
            deadline: seconds of one post, after which the answers that still run are posted again.
            connections: most connections at a time.
        """
        headers = {"Accept": NDJSON, **({"Authorization": f"Bearer {token}"} if token else {})}
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": headers,
            "timeout": httpx2.Timeout(SILENCE_SECONDS, connect=10.0, pool=None),
            "limits": httpx2.Limits(max_connections=connections),
            "trust_env": False,
        }
        self._tries = tries
        self._deadline = deadline
        self._client = httpx2.Client(**self._options)
        self._async_client: httpx2.AsyncClient | None = None

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of `score`."""
        self._client.close()

    async def aclose(self) -> None:
        """Close the connections of `score_async` too."""
        if self._async_client is not None:
            await self._async_client.aclose()
        self.close()

    def score(self, answers: Sequence[Answer]) -> list[Verdict]:
        """The verdict of each answer, in order. An answer that the server could not score is unscored.

        Raises:
            UserError: the token is wrong, a task is unknown, or an answer is too large.
            ServerError: no new verdict after all tries.
        """
        batch = _PostedAnswers(answers)
        while batch.missing:
            for attempt in tenacity.Retrying(**self._retrying()):
                with attempt:
                    self._post(batch)
        return [batch.verdicts[index] for index in range(len(answers))]

    async def score_async(self, answers: Sequence[Answer]) -> list[Verdict]:
        """As `score`, without blocking the event loop."""
        batch = _PostedAnswers(answers)
        while batch.missing:
            async for attempt in tenacity.AsyncRetrying(**self._retrying()):
                with attempt:
                    await self._post_async(batch)
        return [batch.verdicts[index] for index in range(len(answers))]

    def _retrying(self) -> dict[str, Any]:
        return {
            "retry": tenacity.retry_if_exception_type(_TransientError),
            "stop": tenacity.stop_after_attempt(self._tries),
            "wait": _pause,
            "retry_error_callback": _give_up,
        }

    def _post(self, batch: _PostedAnswers) -> None:
        """One post of the missing answers. Raises _TransientError if none of them got a verdict."""
        indices = batch.missing
        try:
            with self._client.stream("POST", "/score", content=self._body(batch, indices), headers=JSON) as response:
                if response.status_code != 200:
                    response.read()
                    raise _failure(response)
                _read(batch, indices, response.iter_lines())
        except (httpx2.TransportError, httpx2.StreamError) as error:
            _raise_if_none(batch, indices, f"{type(error).__name__}: {error}")
        else:
            _raise_if_none(batch, indices, "the server scored none of the answers in time")

    async def _post_async(self, batch: _PostedAnswers) -> None:
        if self._async_client is None:
            self._async_client = httpx2.AsyncClient(**self._options)
        indices = batch.missing
        body = self._body(batch, indices)
        try:
            async with self._async_client.stream("POST", "/score", content=body, headers=JSON) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _failure(response)
                await _read_async(batch, indices, response.aiter_lines())
        except (httpx2.TransportError, httpx2.StreamError) as error:
            _raise_if_none(batch, indices, f"{type(error).__name__}: {error}")
        else:
            _raise_if_none(batch, indices, "the server scored none of the answers in time")

    def _body(self, batch: _PostedAnswers, indices: Sequence[int]) -> bytes:
        answers = [_as_json(batch.answers[index]) for index in indices]
        return json.dumps({"answers": answers, "deadline": self._deadline}).encode("ascii")


JSON = {"Content-Type": "application/json"}


def _as_json(answer: Answer) -> dict[str, Any]:
    content = msgspec.to_builtins(answer)
    return {name: content[name] for name in ("task_id", "patch", "text", "episode") if content[name] is not None}


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    wanted = error.pause if isinstance(error, _TransientError) else 0.0
    return float(min(max(wanted, 0.25 * 2 ** min(state.attempt_number - 1, 5)), LONGEST_PAUSE))


def _give_up(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    raise ServerError(f"no new verdict after {state.attempt_number} posts: {error}") from error


def _failure(response: httpx2.Response) -> Exception:
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    why = f"the server at {response.url.host}:{response.url.port} answered {response.status_code}: {detail}"
    if response.status_code not in TRANSIENT:
        return UserError(why)
    pause = response.headers.get("Retry-After", "")
    return _TransientError(why, float(pause) if pause.isdigit() else 0.0)


def _raise_if_none(batch: _PostedAnswers, indices: Sequence[int], why: str) -> None:
    if not any(index in batch.verdicts for index in indices):
        raise _TransientError(why)


def _read(batch: _PostedAnswers, indices: Sequence[int], lines: Iterator[str]) -> None:
    for line in lines:
        _read_line(batch, indices, line)


async def _read_async(batch: _PostedAnswers, indices: Sequence[int], lines: AsyncIterator[str]) -> None:
    async for line in lines:
        _read_line(batch, indices, line)


def _read_line(batch: _PostedAnswers, indices: Sequence[int], line: str) -> None:
    """Store the verdict of a line; a line that is cut off, as by a server that was killed, says nothing."""
    if not line.strip():
        return
    try:
        content = json.loads(line)
    except ValueError:
        return
    if "end" not in content and content["status"] in FINAL:
        batch.verdicts[indices[content["index"]]] = _verdict(content)


def _verdict(content: Mapping[str, Any]) -> Verdict:
    return Verdict(
        value=content["value"], components=content["components"], cause=content["cause"],
        flags=tuple(content["flags"]), explanation=content["explanation"],
    )  # fmt: skip
