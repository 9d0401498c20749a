"""Continuous batching: rows that leave as they end, and groups of rows with one prompt that enter as slots are free."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from regrade.policy_training.policies.shared_attention import shared_prompt_attention_of
from regrade.policy_training.policies.shared_cache import CacheWriter, SharedPromptCache


@dataclass
class Completion:
    """A sampled completion of a prompt."""

    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    """Of each token, at its sampling temperature (for 0: at 1)."""


@dataclass(frozen=True)
class RandomNumbers:
    """Uniform numbers in [0, 1) of a group of equal prompts, one for each token that is drawn."""

    key: tuple[int, ...]
    steps: int
    """Numbers of an action."""

    @classmethod
    def of(cls, prompt: Sequence[int], seed: int, occurrence: int, steps: int) -> RandomNumbers:
        """
        Args:
            occurrence: of the prompt among equal ones: a repeated prompt gets other numbers.
        """
        digest = hashlib.sha256(np.asarray(prompt, dtype=np.int64).tobytes()).digest()
        return cls((seed, occurrence, *digest), steps)

    def of_first_actions(self, count: int) -> Tensor:
        """(count, steps), for the rows with the indices from 0 in the group."""
        return torch.from_numpy(np.random.default_rng(self.key).random((count, self.steps), dtype=np.float32))

    def of_action(self, index: int, turn: int) -> Tensor:
        """(steps,), for a later action of a row."""
        generator = np.random.default_rng([*self.key, index, turn])
        return torch.from_numpy(generator.random(self.steps, dtype=np.float32))


@dataclass(frozen=True)
class PromptGroup:
    """Rows with an equal prompt, which enter the batch together."""

    prompt: Sequence[int]
    members: Sequence[Any]
    """One per row, whatever the caller identifies it by."""
    temperatures: Sequence[float]
    numbers: Tensor
    """(rows, tokens of an action): random numbers of the first actions."""


@dataclass(kw_only=True)
class RowBatch:
    """Groups in a fixed number of slots with `seats` rows each, of which only those that draw an action are decoded."""

    model: Any
    stops: frozenset[int]
    max_action_tokens: int
    most_rows: int
    slots: int
    seats: int
    waiting: list[PromptGroup]
    """That have not entered; the next one is the last."""
    members: dict[int, Any] = field(default_factory=dict)
    """By row (slot x seats + seat): all rows that have entered and were not released."""
    actions: dict[int, Completion] = field(default_factory=dict)
    """By row: its current or last action."""
    memory: SharedPromptCache | None = None

    @classmethod
    def of(
        cls, model: Any, groups: Sequence[PromptGroup], rows: int, *, stop_ids: Sequence[int], max_action_tokens: int
    ) -> RowBatch:
        """
        Args:
            rows: in the batch at a time; at least those of one group are.
        """
        seats = max((len(group.members) for group in groups), default=1)
        # 1.5 times as many slots as fill the rows, because a group leaves only when its last row ends.
        slots = max(1, min(len(groups), -(-3 * rows // (2 * seats))))
        return cls(
            model=model,
            stops=frozenset(stop_ids),
            max_action_tokens=max_action_tokens,
            most_rows=rows,
            slots=slots,
            seats=seats,
            waiting=sorted(groups, key=lambda group: len(group.prompt)),
        )

    def __post_init__(self) -> None:
        rows = self.slots * self.seats
        self.free = list(range(self.slots))[::-1]
        self._open = [0] * self.slots
        self._active = torch.empty(0, dtype=torch.long)
        """Rows that draw an action, ascending."""
        self._shown: dict[int, list[int]] = {}
        """Row -> tokens to run before its next action."""
        self._ended: list[int] = []
        self._last = torch.zeros(rows, dtype=torch.long)
        self._drawn = torch.zeros(rows, dtype=torch.long)
        """Tokens of the current action."""
        self._written = torch.zeros(rows, dtype=torch.long)
        """Tokens in the row's private cache: all of its own but the last one drawn."""
        self._lengths = torch.zeros(rows, dtype=torch.long)
        self._temperatures = torch.zeros(rows)
        self._numbers = torch.zeros((rows, self.max_action_tokens))
        self._stop_ids = torch.tensor(sorted(self.stops), dtype=torch.long)

    @property
    def can_advance(self) -> bool:
        """Is there a row to decode, or room for a group that waits?"""
        return self._is_drawing or self._has_room()

    @property
    def _is_drawing(self) -> bool:
        return bool(len(self._active)) or bool(self._shown)

    def _has_room(self) -> bool:
        """For the next waiting group; where nothing else is left in the batch, there always is."""
        if not self.waiting or not self.free:
            return False
        return not self.members or len(self.members) + len(self.waiting[-1].members) <= self.most_rows

    def advance(self) -> bool:
        """Let waiting groups enter if there is room, else draw one more token of every open action, if there is one.

        Returns:
            False if nothing is left: no row has entered and not been released, and no group waits.
        """
        if self._has_room():
            self._admit(self._coming())
        elif self._is_drawing:
            self._step()
        return bool(self.members or self.waiting or self._ended)

    def _coming(self) -> list[PromptGroup]:
        """The waiting groups that enter now: at least one."""
        coming = [self.waiting.pop()]
        room = self.most_rows - len(self.members) - len(coming[0].members)
        while self.waiting and len(coming) < len(self.free) and len(self.waiting[-1].members) <= room:
            coming.append(self.waiting.pop())
            room -= len(coming[-1].members)
        return coming

    def take_ended(self) -> list[int]:
        """The rows whose action has ended since the last call: the caller goes on with each, or releases it."""
        ended, self._ended = self._ended, []
        return ended

    def go_on(self, row: int, tokens: Sequence[int], numbers: Tensor) -> None:
        """Show tokens to a row whose action has ended, and draw its next action with these random numbers."""
        self._shown[row] = [int(self._last[row]), *tokens]
        self._numbers[row] = numbers
        self._drawn[row] = 0
        self.actions[row] = Completion()

    def release(self, row: int) -> None:
        """A row whose action has ended leaves the batch."""
        del self.members[row], self.actions[row]
        slot = row // self.seats
        self._open[slot] -= 1
        if self._open[slot] == 0:
            self.free.append(slot)
            assert self.memory is not None
            self.memory.used[slot] = 0

    def _admit(self, groups: list[PromptGroup]) -> None:
        """Run the prompts once, put them into free slots, and draw the first token of each row."""
        keys, values, logits = _run_prompts(self.model, [group.prompt for group in groups])
        if self.memory is None:  # the first prompts are the longest
            self.memory = SharedPromptCache.like(keys, self.slots, self.seats, self.max_action_tokens)
        taken = [self.free.pop() for _ in groups]
        self.memory.write(taken, keys, values, [len(group.prompt) for group in groups])
        entering = []
        for slot, group in zip(taken, groups, strict=True):
            rows = torch.arange(len(group.members)) + slot * self.seats
            self._numbers[rows] = group.numbers
            self._temperatures[rows] = torch.tensor(list(group.temperatures), dtype=torch.float32)
            self._lengths[rows] = len(group.prompt)
            self._drawn[rows] = self._written[rows] = 0
            self._open[slot] = len(group.members)
            for row, member in zip(rows.tolist(), group.members, strict=True):
                self.members[row], self.actions[row] = member, Completion()
            entering.append(rows)
        rows = torch.cat(entering)
        sizes = torch.tensor([len(group.members) for group in groups], device=logits.device)
        self._take(rows, logits.repeat_interleave(sizes, 0))

    def _step(self) -> None:
        """Draw one more token of every open action, in one pass over the last token of each row, or over all that a
        row was shown since its last action."""
        assert self.memory is not None
        shown, self._shown = sorted(self._shown.items()), {}
        singles = self._active
        longer = torch.tensor([row for row, _ in shown], dtype=torch.long)
        counts = torch.tensor([len(tokens) for _, tokens in shown], dtype=torch.long)
        rows = torch.cat((singles, longer.repeat_interleave(counts)))
        tokens = torch.cat((self._last[singles], torch.tensor([each for _, some in shown for each in some]).long()))
        places = torch.cat([torch.zeros_like(singles), *(torch.arange(int(count)) for count in counts)])
        positions = self._written[rows] + places
        self.memory.prepare(rows, positions, len(singles), longer, places)
        device = self.model.device
        with torch.no_grad(), shared_prompt_attention_of(self.model):
            hidden = self.model.base_model(
                input_ids=tokens[None].to(device),
                position_ids=(self._lengths[rows] + positions)[None].to(device),
                past_key_values=CacheWriter(self.memory),
                use_cache=True,
                prompt_memory=self.memory,
            ).last_hidden_state[0]
            ends = torch.cat((torch.arange(len(singles)), len(singles) + counts.cumsum(0) - 1))
            logits = self.model.lm_head(hidden[ends.to(device)] if shown else hidden)
        self._written[singles] += 1
        self._written[longer] += counts
        self._active = torch.empty(0, dtype=torch.long)
        self._take(torch.cat((singles, longer)), logits)

    def _take(self, rows: Tensor, logits: Tensor) -> None:
        """Draw a token of each row; those that have not ended join the active ones."""
        points = self._numbers[rows, self._drawn[rows]].to(logits.device)
        tokens, log_probs = (drawn.cpu() for drawn in _draw(logits, self._temperatures[rows].to(logits.device), points))
        self._last[rows] = tokens
        self._drawn[rows] += 1
        for row, token, log_prob in zip(rows.tolist(), tokens.tolist(), log_probs.tolist(), strict=True):
            action = self.actions[row]
            action.tokens.append(token)
            action.log_probs.append(log_prob)
        ended = torch.isin(tokens, self._stop_ids) | (self._drawn[rows] == self.max_action_tokens)
        self._ended += rows[ended].tolist()
        self._active = torch.cat((self._active, rows[~ended])).sort().values


@torch.no_grad()
def _run_prompts(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Keys and values of each layer, (prompts, key heads, P, head size), and the next token's logits."""
    device = model.device
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    # Right padding: causal attention never attends to it, so this pass needs no mask. A cache that knows the model's
    # sliding windows would keep the last tokens alone, padding among them.
    cache = DynamicCache()
    hidden = model.base_model(input_ids=ids.to(device), past_key_values=cache, use_cache=True).last_hidden_state
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    logits = model.lm_head(hidden[torch.arange(len(prompts), device=device), last])
    return [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers], logits


def _draw(logits: Tensor, temperatures: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row, (rows,), and its log-probability, (rows,): the argmax at temperature 0, else the inverse of
    the cumulative distribution at the point."""
    greedy = temperatures == 0
    best = logits.argmax(-1)
    probabilities = (logits.float() / temperatures.masked_fill(greedy, 1.0)[:, None]).softmax(-1)
    tokens = best
    if not bool(greedy.all()):
        cumulative = probabilities.cumsum(-1)
        # Scaled by the last sum, which rounding makes differ from 1, so that no draw exceeds the vocabulary.
        where = torch.searchsorted(cumulative, points[:, None] * cumulative[:, -1:], right=True)[:, 0]
        tokens = torch.where(greedy, best, where.clamp_(max=logits.shape[-1] - 1))
    return tokens, probabilities.gather(1, tokens[:, None])[:, 0].log()
