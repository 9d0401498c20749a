"""Sample dialogues: a model acts, is shown what came of it, and acts again; many dialogues at a time.

The machinery is that of `sampling.py`: a prompt runs once for all dialogues that begin with it, each row has a private
cache of its own tokens, and rows leave and enter as soon as they can. A row whose action has ended leaves the decoding
for the time of its reply, which may take long (it runs tests): replies are computed in threads while the other rows go
on. What a reply shows is then appended to the row's cache in the pass of the next decoding step. Nothing is run twice.

The tokens of a dialogue depend on the weights, the seed, its prompt and its number among the dialogues with an equal
prompt, and on its own replies: neither on the other dialogues nor on the time that a reply takes (up to rounding).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from regrade.policy_training.policies.row_batch import PromptGroup, RandomNumbers, RowBatch
from regrade.policy_training.policies.sampling import ROWS
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.policies.transcripts import TokenizedEpisode

MOST_THREADS = 32
"""Replies computed at a time."""


class Dialogue(Protocol):
    """One dialogue with a model, in tokens."""

    @property
    def prompt(self) -> Sequence[int]: ...

    @property
    def temperature(self) -> float:
        """0: greedy."""
        ...

    def reply(self, tokens: list[int]) -> list[int] | None:
        """The tokens that follow an action; None: the dialogue is over. Called in a thread, one call at a time.

        Args:
            tokens: of the action, with the one that ended it (the last one of a cut action is another token).
        """
        ...


def run_dialogues(
    model: Any,
    dialogues: Sequence[Dialogue],
    *,
    stop_ids: Sequence[int],
    max_action_tokens: int,
    max_tokens: int,
    seed: int,
    rows: int = ROWS,
    group: int | None = None,
    times: SamplingTimes | None = None,
) -> Iterator[tuple[int, TokenizedEpisode]]:
    """Sample all dialogues; yield each as soon as it is over.

    Args:
        stop_ids: tokens that end an action (kept as its last token).
        max_action_tokens: where an action ends otherwise.
        max_tokens: of a dialogue after its prompt, actions and replies together. A dialogue is over when there is no
            room for its last reply and a whole action after it.
        seed: of the random numbers; see the module for what else a dialogue depends on.
        rows: dialogues at a time.
        group: number the dialogues with an equal prompt anew after so many of them, as `stream` does. Default: never.
        times: receives the times, in addition to what it holds.

    Yields:
        (index in `dialogues`, its tokens with their log-probabilities at its temperature; for 0: at 1). Those with the
        longest prompts come first.

    Raises:
        ValueError: `max_tokens` has no room for one action.
        Exception: of a reply.
    """
    if max_tokens < max_action_tokens:
        raise ValueError(f"max_tokens is {max_tokens}: give at least max_action_tokens, {max_action_tokens}")
    running = _RunningDialogues(
        dialogues=dialogues,
        most_tokens=max_tokens - max_action_tokens,
        batch=RowBatch.of(
            model,
            _groups(dialogues, seed, max_action_tokens, rows, group),
            rows,
            stop_ids=stop_ids,
            max_action_tokens=max_action_tokens,
        ),
        times=SamplingTimes() if times is None else times,
        pool=ThreadPoolExecutor(max(1, min(rows, len(dialogues), MOST_THREADS)), thread_name_prefix="regrade-reply"),
    )
    try:
        yield from running.run()
    finally:
        running.pool.shutdown(cancel_futures=True)


def _groups(
    dialogues: Sequence[Dialogue], seed: int, max_action_tokens: int, rows: int, size: int | None
) -> list[PromptGroup]:
    """The dialogues with equal prompts, at most `rows` together."""
    by_prompt: dict[tuple[tuple[int, ...], int], list[int]] = {}
    seen: Counter[tuple[int, ...]] = Counter()
    for index, dialogue in enumerate(dialogues):
        prompt = tuple(dialogue.prompt)
        by_prompt.setdefault((prompt, 0 if size is None else seen[prompt] // size), []).append(index)
        seen[prompt] += 1
    groups = []
    for (prompt, occurrence), indices in by_prompt.items():
        numbers = RandomNumbers.of(prompt, seed, occurrence, max_action_tokens)
        first = numbers.of_first_actions(len(indices))
        members = [_OpenDialogue(index, number, numbers) for number, index in enumerate(indices)]
        for start in range(0, len(members), rows):
            some = members[start : start + rows]
            temperatures = [dialogues[row.index].temperature for row in some]
            groups.append(PromptGroup(prompt, some, temperatures, first[start : start + rows]))
    return groups


@dataclass
class _OpenDialogue:
    """A dialogue that is being sampled."""

    index: int
    number: int
    """In its group."""
    numbers: RandomNumbers
    turn: int = 0
    tokens: list[int] = field(default_factory=list)
    is_action: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    def add(self, tokens: Sequence[int], log_probs: Sequence[float] | None) -> None:
        """Append an action, or what it was shown (without log-probabilities)."""
        self.tokens += tokens
        self.is_action += [log_probs is not None] * len(tokens)
        self.log_probs += [0.0] * len(tokens) if log_probs is None else log_probs

    def episode(self, prompt: Sequence[int]) -> TokenizedEpisode:
        return TokenizedEpisode(tuple(prompt), tuple(self.tokens), tuple(self.is_action), tuple(self.log_probs))


@dataclass(kw_only=True)
class _RunningDialogues:
    dialogues: Sequence[Dialogue]
    most_tokens: int
    """After which a dialogue has no room for an action."""
    batch: RowBatch
    times: SamplingTimes
    pool: ThreadPoolExecutor
    waiting: dict[Future[tuple[list[int] | None, float]], int] = field(default_factory=dict)
    """Reply -> row of the batch."""

    def run(self) -> Iterator[tuple[int, TokenizedEpisode]]:
        began = time.perf_counter()
        while self.batch.advance():
            for number in self.batch.take_ended():
                self._ask(number)
            if not self.waiting:
                continue
            for number in self._answered():
                row = self.batch.members[number]
                self.batch.release(number)
                self.times.seconds += time.perf_counter() - began
                yield row.index, row.episode(self.dialogues[row.index].prompt)
                began = time.perf_counter()
        self.times.seconds += time.perf_counter() - began

    def _ask(self, number: int) -> None:
        """Have the reply to a row's action computed."""
        row, action = self.batch.members[number], self.batch.actions[number]
        row.add(action.tokens, action.log_probs)
        self.times.action_tokens += len(action.tokens)
        dialogue, tokens = self.dialogues[row.index], list(action.tokens)

        def reply() -> tuple[list[int] | None, float]:
            began = time.perf_counter()
            shown = dialogue.reply(tokens)
            return shown, time.perf_counter() - began

        self.waiting[self.pool.submit(reply)] = number

    def _answered(self) -> list[int]:
        """Let the rows go on whose reply is there; returns those whose dialogue is over. Waits only if there is nothing
        to generate."""
        if not self.batch.can_advance:
            began = time.perf_counter()
            wait(self.waiting, return_when=FIRST_COMPLETED)
            self.times.waited_seconds += time.perf_counter() - began
        done = [future for future in self.waiting if future.done()]  # in the order in which they were asked
        over = []
        for future in done:
            number = self.waiting.pop(future)
            shown, seconds = future.result()
            self.times.reply_seconds += seconds
            self.times.replies += 1
            row = self.batch.members[number]
            if shown is None or len(row.tokens) + len(shown) > self.most_tokens:
                over.append(number)
                continue
            row.add(shown, None)
            row.turn += 1
            self.times.shown_tokens += len(shown)
            self.batch.go_on(number, shown, row.numbers.of_action(row.number, row.turn))
        return over
