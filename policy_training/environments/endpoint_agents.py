"""Chat models behind an endpoint as agents: a policy whose attempts are episodes with tool calls.

Each attempt is one episode in a thread of its own; the requests of all go through one connection. If the endpoint gives
no answer, the attempt is lost, however far it came: unscored, and repeated by the next run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from regrade.datasets.episodes import Episode
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Keep, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.rollout_scoring import EvidenceSource
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.chat_loop import ChatAnswer, Message, run_chat_episode
from regrade.policy_training.environments.chat_models import chat_answer, chat_request, check_is_chat
from regrade.policy_training.policies.concurrency import AttemptFunction, Losses, concurrently
from regrade.policy_training.policies.endpoint_requests import (
    Endpoint,
    EndpointConnection,
    LostAttemptError,
    ServerAnswer,
    connected,
)

logger = logging.getLogger(__name__)


@dataclass
class EndpointAgentPolicy:
    """A chat model behind an endpoint that reads, edits and tests by tool calls.

    Raises:
        UserError: the endpoint is no chat.
    """

    endpoint: Endpoint
    name: str
    scorer: EvidenceSource
    """Runs the tests that an agent asks for."""
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)

    def __post_init__(self) -> None:
        check_is_chat(self.endpoint)

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        yield from self.attempt(trials(tasks, samplings), seed, lambda _trial, _rollout: None)

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        """One rollout per trial. Raises UserError if the key is missing or rejected, or the server refuses tools."""
        self.endpoint.key()

        @asynccontextmanager
        async def session() -> AsyncIterator[AttemptFunction]:
            async with connected(self.endpoint) as connection:
                agents = _AgentSession(self, connection, seed)
                try:
                    yield agents.attempt
                finally:
                    await agents.close()

        return concurrently(trials, session, self.endpoint.at_a_time, keep)


class _AgentSession:
    """The episodes of one evaluation."""

    def __init__(self, policy: EndpointAgentPolicy, connection: EndpointConnection, seed: int) -> None:
        self._policy = policy
        self._connection = connection
        self._seed = seed
        self._losses = Losses(policy.endpoint.dead_after)
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(policy.endpoint.at_a_time, thread_name_prefix="agent")
        self._requests: set[Future[ServerAnswer]] = set()
        self._is_closed = False

    async def close(self) -> None:
        """Stop the episodes that still run, at their next request."""
        self._is_closed = True
        for request in list(self._requests):
            request.cancel()
        await self._loop.run_in_executor(None, lambda: self._threads.shutdown(cancel_futures=True))

    async def attempt(self, trial: Trial) -> Rollout:
        if self._losses.are_final:
            return self._rollout(trial, lost=f"the endpoint was not asked: {self._losses}")
        began = time.perf_counter()
        try:
            episode, chat, problem = await self._loop.run_in_executor(self._threads, self._play, trial)
        except LostAttemptError as lost:
            self._losses.add(str(lost))
            if logger.isEnabledFor(logging.WARNING):
                why = self._connection.without_key(lost)
                logger.warning("attempt lost: task %s, sample %d: %s", trial.task.id, trial.sample, why)
            return self._rollout(trial, lost=f"the endpoint gave no answer: {lost}")
        self._losses.clear()
        return self._rollout(
            trial,
            episode.patch,
            prompt=episode.instruction,
            completion=_said(chat),
            well_formed=any(step.tool for step in episode.steps),
            tokens=episode.tokens,
            seconds=time.perf_counter() - began,
            lost=problem,
            episode=episode,
        )

    def _play(self, trial: Trial) -> tuple[Episode, list[Message], str]:
        """One episode, in a thread, the chat, and why the episode does not count (see `RunningEpisode.lost`)."""
        environment = RepositoryEnvironment({trial.task.id: trial.task}, self._policy.scorer, self._policy.limits)
        seed = 1000 * self._seed + trial.sample

        def complete(messages: Sequence[Message], tools: list[dict[str, Any]]) -> ChatAnswer:
            body = chat_request(self._policy.endpoint, messages, tools, trial.temperature, seed)
            return chat_answer(self._ask(body))

        episode, chat = run_chat_episode(environment, trial.task.id, complete)
        return episode, chat, environment.session.lost

    def _ask(self, body: dict[str, Any]) -> ServerAnswer:
        """The server's answer, by the event loop of the session. Raises CancelledError once the session is closed."""
        if self._is_closed:
            raise asyncio.CancelledError
        request = asyncio.run_coroutine_threadsafe(self._connection.complete(body), self._loop)
        self._requests.add(request)
        try:
            return request.result()
        finally:
            self._requests.discard(request)

    def _rollout(self, trial: Trial, patch: Patch | None = None, **more: Any) -> Rollout:
        return trial.rollout(self._policy.name, self._seed, patch, **more)


def _said(chat: Sequence[Message]) -> str:
    """What the model wrote, for readers; the episode has the rest."""
    said = [message for message in chat if message["role"] == "assistant"]
    parts = [
        part
        for message in said
        for part in (message["content"], *(json.dumps(call["function"]) for call in message.get("tool_calls", ())))
    ]
    return "\n".join(str(part) for part in parts if part).encode("utf-8", "replace").decode("utf-8")
