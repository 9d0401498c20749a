"""Policies behind an OpenAI-compatible endpoint: any server with /chat/completions or /completions.

An attempt without an answer (see `endpoint_requests.py`) is *lost*: unscored, and repeated by the next run. After
`dead_after` attempts lost in a row the endpoint counts as dead, and gets no further request. A prompt that is too long
for the model is an attempt that counts, without a usable answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Keep, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.policy_training.policies.concurrency import AttemptFunction, Losses, concurrently
from regrade.policy_training.policies.endpoint_requests import (
    Endpoint,
    EndpointConnection,
    LostAttemptError,
    connected,
)
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS, SingleTurnPrompt, prompt_of
from regrade.policy_training.policies.task_descriptions import ChatPrompt

logger = logging.getLogger(__name__)
MAX_CHAT_TOKENS = 4096


@dataclass
class EndpointPolicy:
    """A model behind an endpoint."""

    endpoint: Endpoint
    name: str

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        yield from self.attempt(trials(tasks, samplings), seed, lambda _trial, _rollout: None)

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        """One rollout per trial. Raises UserError if the key is missing or rejected, or the server lacks the model."""
        self.endpoint.key()

        @asynccontextmanager
        async def session() -> AsyncIterator[AttemptFunction]:
            async with connected(self.endpoint) as connection:
                yield _EndpointSession(self, connection, seed).attempt

        return concurrently(trials, session, self.endpoint.at_a_time, keep)


class _EndpointSession:
    """The requests of one evaluation."""

    def __init__(self, policy: EndpointPolicy, connection: EndpointConnection, seed: int) -> None:
        self._policy = policy
        self._endpoint = policy.endpoint
        self._connection = connection
        self._seed = seed
        self._losses = Losses(policy.endpoint.dead_after)
        self._prompts: dict[str, ChatPrompt | SingleTurnPrompt] = {}

    async def attempt(self, trial: Trial) -> Rollout:
        if self._losses.are_final:
            return self._rollout(trial, None, "", lost=f"the endpoint was not asked: {self._losses}")
        began = time.perf_counter()
        prompt = self._prompt(trial.task)
        body = self._body(prompt, trial)
        sent = body["prompt"] if "prompt" in body else "\n\n".join(turn["content"] for turn in body["messages"])
        try:
            completion = await self._connection.complete(body)
        except LostAttemptError as lost:
            self._losses.add(str(lost))
            if logger.isEnabledFor(logging.WARNING):
                why = self._connection.without_key(lost)
                logger.warning("attempt lost: task %s, sample %d: %s", trial.task.id, trial.sample, why)
            return self._rollout(trial, None, sent, lost=f"the endpoint gave no answer: {lost}")
        self._losses.clear()
        # Parsing a patch against a large repository is slow; other requests continue meanwhile.
        patch = await asyncio.to_thread(_patch_of, prompt, completion.text)
        text = completion.text.encode("utf-8", "replace").decode(
            "utf-8"
        )  # files of answers cannot hold a lone surrogate
        seconds = time.perf_counter() - began
        return self._rollout(
            trial,
            patch,
            sent,
            text,
            well_formed=patch is not None,
            tokens=completion.tokens,
            seconds=seconds,
        )

    def _rollout(self, trial: Trial, patch: Patch | None, prompt: str, completion: str = "", **more: Any) -> Rollout:
        return trial.rollout(self._policy.name, self._seed, patch, prompt=prompt, completion=completion, **more)

    def _body(self, prompt: ChatPrompt | SingleTurnPrompt, trial: Trial) -> dict[str, Any]:
        content = (
            {"messages": prompt.messages} if isinstance(prompt, ChatPrompt) else {"prompt": prompt.text, "stop": ["\n"]}
        )
        return {
            **content,
            "temperature": trial.temperature,
            "max_tokens": self._most_tokens(),
            "seed": 1000 * self._seed + trial.sample,
        }

    def _most_tokens(self) -> int:
        return self._endpoint.max_tokens or (MAX_CHAT_TOKENS if self._endpoint.api == "chat" else MAX_ANSWER_TOKENS)

    def _prompt(self, task: Task) -> ChatPrompt | SingleTurnPrompt:
        """Attempts at one task are consecutive and share its prompt."""
        if task.id not in self._prompts:
            if len(self._prompts) >= 2 * self._endpoint.at_a_time:
                self._prompts.clear()
            self._prompts[task.id] = ChatPrompt(task) if self._endpoint.api == "chat" else prompt_of(task)
        return self._prompts[task.id]


def _patch_of(prompt: ChatPrompt | SingleTurnPrompt, text: str) -> Patch | None:
    """The patch of an answer; None if it is malformed, such as one with half of an escaped surrogate pair."""
    try:
        return prompt.patch(text)
    except PatchError:
        return None
