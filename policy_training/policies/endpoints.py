"""Policies behind an OpenAI-compatible endpoint: any server that speaks /chat/completions or /completions.

What goes wrong on the way is told apart:
- no connection, a time-out, 408, 409, 425, 429 and 5xx, an answer that is none: asked again, with growing pauses and as
  the server's Retry-After says; then the attempt is *lost*, which is unscored and made again by the next run. After
  some attempts lost in a row the endpoint counts as dead, and is not asked any more.
- 400 to 404, 422: what was given is wrong (the key, the model's name, a parameter): the evaluation stops and says so.
  Only a question that is too long for the model is the policy's own: it has no usable answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, get_args

import httpx2
import msgspec
import tenacity

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Keep, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.policy_training.policies.concurrency import Attempt, Losses, concurrently
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS, Question, ask
from regrade.policy_training.policies.task_descriptions import Brief

Api = Literal["chat", "completions"]
MAX_CHAT_TOKENS = 4096
USUAL_KEY = "OPENAI_API_KEY"
TRANSIENT = frozenset({408, 409, 425, 429})
LARGEST_ANSWER = 64 << 20
"""Bytes; no answer of a model comes near."""
LONGEST_PAUSE = 60.0
"""Seconds between two tries, at most; a server that asks for more is taken to be down."""
TOO_LONG = ("context_length", "context length", "maximum context", "too many tokens", "too long", "max_model_len")
"""What servers say, in one of these ways, of a question that does not fit the model."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers, and how it is asked."""

    base_url: str
    """Such as `http://localhost:8000/v1`."""
    model: str
    api: Api = "chat"
    """`chat`: any task, answered by edits or a diff. `completions`: the short format that local models are trained on,
    so that a checkpoint behind a server is asked word for word what it is asked here."""
    key_variable: str | None = None
    """Environment variable that holds the key; None: $OPENAI_API_KEY where there is one."""
    max_tokens: int | None = None
    """Of an answer; None: 4096 in a chat, as many as a local model gets in the short format."""
    seconds: float = 300.0
    """How long one answer may take."""
    tries: int = 6
    at_a_time: int = 8
    """Requests under way at a time."""
    dead_after: int = 8
    """Attempts lost in a row after which the endpoint counts as dead."""
    pause: float = 0.5
    """Seconds of the first pause between tries; each is up to twice as long as the one before."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of each request, such as `{"top_p": 0.95}`."""
    omit: tuple[str, ...] = ()
    """Parameters that the server refuses, such as `seed`."""

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
        """The key; None where the endpoint takes none. Raises UserError if the variable that is named is not set."""
        found = os.environ.get(self.key_variable or USUAL_KEY)
        if self.key_variable and not found:
            raise UserError(f"the environment variable {self.key_variable!r}, for the endpoint's key, is not set")
        if found and not (found.isascii() and found.isprintable()):
            raise UserError(
                f"the environment variable {self.key_variable or USUAL_KEY!r} holds no key: it has a line break or a "
                "letter beyond ASCII, which no header can hold"
            )
        return found


class LostAttemptError(RuntimeError):
    """The endpoint gave no answer, and the policy is not to blame."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause
        """Seconds after which the server asks to be asked again."""


@dataclass
class EndpointPolicy:
    """A model behind an endpoint."""

    endpoint: Endpoint
    name: str

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        yield from self.attempt(trials(tasks, samplings), seed, lambda _trial, _rollout: None)

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        """Raises UserError if the key is missing or refused, or the server does not know the model."""
        key = self.endpoint.key()

        @asynccontextmanager
        async def session() -> AsyncIterator[Attempt]:
            async with _client(self.endpoint, key) as client:
                yield _Asking(self, client, seed).attempt

        return concurrently(trials, session, self.endpoint.at_a_time, keep)


def _client(endpoint: Endpoint, key: str | None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(endpoint.seconds, connect=min(10.0, endpoint.seconds)),
        limits=httpx2.Limits(max_connections=endpoint.at_a_time),
    )


class _Asking:
    """One evaluation's requests."""

    def __init__(self, policy: EndpointPolicy, client: httpx2.AsyncClient, seed: int) -> None:
        self._policy = policy
        self._endpoint = policy.endpoint
        self._client = client
        self._seed = seed
        self._losses = Losses(policy.endpoint.dead_after)
        self._questions: dict[str, Brief | Question] = {}

    async def attempt(self, trial: Trial) -> Rollout:
        if self._losses.are_final:
            return self._rollout(trial, Patch(""), "", lost=f"the endpoint was not asked: {self._losses}")
        began = time.perf_counter()
        question = self._question(trial.task)
        body = self._body(question, trial)
        prompt = body["prompt"] if "prompt" in body else "\n\n".join(turn["content"] for turn in body["messages"])
        try:
            text, tokens = await self._answer(body)
        except LostAttemptError as lost:
            self._losses.add(str(lost))
            return self._rollout(trial, Patch(""), prompt, lost=f"the endpoint gave no answer: {lost}")
        self._losses.clear()
        # A proposed patch is read against the tree, which a large repository makes slow: others are asked meanwhile.
        patch = await asyncio.to_thread(question.patch, text)
        seconds = time.perf_counter() - began
        return self._rollout(
            trial, patch or Patch(""), prompt, text, well_formed=patch is not None, tokens=tokens, seconds=seconds
        )

    def _rollout(self, trial: Trial, patch: Patch, prompt: str, completion: str = "", **more: Any) -> Rollout:
        return Rollout(
            trial.task.id, self._policy.name, trial.temperature, trial.sample, self._seed, patch, prompt, completion,
            **more,
        )  # fmt: skip

    def _body(self, question: Brief | Question, trial: Trial) -> dict[str, Any]:
        asked = (
            {"messages": question.messages}
            if isinstance(question, Brief)
            else {"prompt": question.prompt, "stop": ["\n"]}
        )
        values = {
            "model": self._endpoint.model, **asked, "temperature": trial.temperature,
            "max_tokens": self._most_tokens(), "seed": 1000 * self._seed + trial.sample, **self._endpoint.body,
        }  # fmt: skip
        return {name: value for name, value in values.items() if name not in self._endpoint.omit}

    def _most_tokens(self) -> int:
        return self._endpoint.max_tokens or (MAX_CHAT_TOKENS if self._endpoint.api == "chat" else MAX_ANSWER_TOKENS)

    def _question(self, task: Task) -> Brief | Question:
        """Attempts at one task come one after another, and share what is asked."""
        if task.id not in self._questions:
            if len(self._questions) >= 2 * self._endpoint.at_a_time:
                self._questions.clear()
            self._questions[task.id] = Brief(task) if self._endpoint.api == "chat" else ask(task)
        return self._questions[task.id]

    async def _answer(self, body: Mapping[str, Any]) -> tuple[str, int]:
        """(text, tokens generated). Raises LostAttemptError, or UserError."""
        asking = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._endpoint.tries),
            wait=self._pause,
            retry=tenacity.retry_if_exception_type(LostAttemptError),
            reraise=True,
        )
        found: tuple[str, int] = await asking(self._ask, body)
        return found

    def _pause(self, state: tenacity.RetryCallState) -> float:
        usual = tenacity.wait_random_exponential(multiplier=self._endpoint.pause, max=LONGEST_PAUSE)(state)
        error = state.outcome.exception() if state.outcome is not None else None
        wished = error.pause if isinstance(error, LostAttemptError) else None
        return usual if wished is None else max(usual, min(wished, LONGEST_PAUSE))

    async def _ask(self, body: Mapping[str, Any]) -> tuple[str, int]:
        path = "/chat/completions" if self._endpoint.api == "chat" else "/completions"
        url = self._endpoint.base_url.rstrip("/") + path
        try:
            async with asyncio.timeout(self._endpoint.seconds):  # the client's own limit starts anew with each byte
                async with self._client.stream("POST", url, json=dict(body)) as response:
                    content = await _whole(response, url)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise LostAttemptError(
                f"{url}: no answer within {self._endpoint.seconds:g} s ({type(error).__name__})"
            ) from error
        except httpx2.HTTPError as error:
            raise LostAttemptError(f"{url}: {str(error) or type(error).__name__}") from error
        if response.is_success:
            return _read(content, url)
        said = _said(content)
        if response.status_code in TRANSIENT or response.is_server_error:
            raise LostAttemptError(f"{url}: {response.status_code} {said}", _retry_after(response))
        if any(words in said.lower() for words in TOO_LONG):
            return f"[no answer: {said}]", 0
        raise UserError(f"the endpoint {url} refuses the request: {response.status_code} {said}{_advice(response)}")


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


async def _whole(response: httpx2.Response, url: str) -> bytes:
    """What a server answers, unpacked. One that never ends would fill the memory before its time is up."""
    found = bytearray()
    async for part in response.aiter_bytes():
        found += part
        if len(found) > LARGEST_ANSWER:
            raise LostAttemptError(f"{url}: its answer has more than {LARGEST_ANSWER >> 20} MB")
    return bytes(found)


def _read(content: bytes, url: str) -> tuple[str, int]:
    try:
        found = msgspec.json.decode(content, type=_Completion)
        choice = found.choices[0]
    except (msgspec.DecodeError, IndexError, UnicodeDecodeError) as error:
        raise LostAttemptError(f"{url}: what it answers is no completion ({error})") from error
    text = choice.message.content if choice.message is not None else choice.text
    return text or "", (found.usage.completion_tokens or 0) if found.usage is not None else 0


def _said(content: bytes) -> str:
    """The server's own words, short."""
    try:
        value = json.loads(content)
        error = value.get("error", value) if isinstance(value, dict) else value
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, RecursionError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:300]


def _advice(response: httpx2.Response) -> str:
    if response.status_code in (401, 403):
        return "; put the key into an environment variable and name it with --key-env"
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
