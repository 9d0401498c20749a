"""Sample completions with one forward pass per prompt and no idle rows in the batch.

A group of G completions shares one prompt. Its keys and values are computed once and *not* copied per completion: each
decoding step attends to them as one group of G x heads queries, and to a small private cache of the row's own tokens.
Answers have different lengths, so rows leave as they end, and further prompts enter as soon as slots are free
(continuous batching, Orca, Yu et al. 2022). A row may also go on after its answer: the tokens that it is shown then are
appended to its private cache in the pass of the next decoding step (`dialogues.py`).

A completion depends on the weights, the seed, its prompt and its index in the group, not on the other rows of the
batch: each row has its own random numbers (up to rounding, which differs with the size of a batch).

Works for decoder-only models of transformers that use its attention interface and rotary or absolute position ids, also
with attention sinks and sliding windows (GPT-OSS), of which the caches keep all tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache

ATTENTION = "regrade_shared_prompt"
ROWS = 96
"""Default number of completions decoded at a time. On a CPU, more take proportionally longer, and fewer waste the
reading of weights."""
CACHE_STEP = 64
"""Tokens by which the private caches grow at least."""


@dataclass
class Completion:
    """A sampled completion of a prompt."""

    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    """Of each token, at its sampling temperature (for 0: at 1)."""


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    *,
    stop_ids: Sequence[int],
    max_tokens: int,
    seed: int,
    rows: int = ROWS,
) -> list[list[list[int]]]:
    """All of `stream`, in the order of the prompts: token ids as [prompt][completion][token]."""
    samples = stream(model, prompts, temperatures, stop_ids=stop_ids, max_tokens=max_tokens, seed=seed, rows=rows)
    by_prompt = dict(samples)
    return [[completion.tokens for completion in by_prompt[index]] for index in range(len(prompts))]


def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    *,
    stop_ids: Sequence[int],
    max_tokens: int,
    seed: int,
    rows: int = ROWS,
) -> Iterator[tuple[int, list[Completion]]]:
    """Sample one completion per prompt and entry of `temperatures`; yield each prompt's as soon as all have ended.

    Args:
        prompts: token ids, one list per prompt.
        temperatures: one per completion of a prompt (0: greedy), so that a whole sweep shares one pass over it.
        stop_ids: tokens that end a completion (kept as its last token).
        max_tokens: where a completion ends otherwise.
        seed: of the random numbers; see the module for what else a completion depends on.
        rows: completions decoded at a time; at least one prompt's are.

    Yields:
        (index in `prompts`, its completions). The longest prompts come first.
    """
    count = len(temperatures)
    seen: Counter[tuple[int, ...]] = Counter()
    groups = []
    for index, prompt in enumerate(prompts):
        numbers = RandomNumbers.of(prompt, seed, seen[tuple(prompt)], max_tokens)
        seen[tuple(prompt)] += 1
        members = [(index, number) for number in range(count)]
        groups.append(PromptGroup(prompt, members, temperatures, numbers.of_first_actions(count)))
    batch = RowBatch.of(model, groups, rows, stop_ids=stop_ids, max_action_tokens=max_tokens)
    done: dict[int, dict[int, Completion]] = {}
    while batch.advance():
        for row in batch.take_ended():
            index, number = batch.members[row]
            answers = done.setdefault(index, {})
            answers[number] = batch.actions[row]
            batch.release(row)
            if len(answers) == count:
                del done[index]
                yield index, [answers[number] for number in range(count)]


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
    memory: _KeyValueCache | None = None

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
            self.memory = _KeyValueCache.like(keys, self.slots, self.seats, self.max_action_tokens)
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
        with torch.no_grad(), _attention(self.model):
            hidden = self.model.base_model(
                input_ids=tokens[None].to(device),
                position_ids=(self._lengths[rows] + positions)[None].to(device),
                past_key_values=_CacheWriter(self.memory),
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


@dataclass(kw_only=True)
class _KeyValueCache:
    """Keys and values: of each slot's prompt once, and of each row's own tokens."""

    prompt: list[tuple[Tensor, Tensor]]
    """Per layer, keys and values, (slots, key heads, P, head size)."""
    own: list[tuple[Tensor, Tensor]]
    """Per layer, keys and values, (rows, key heads, T, head size)."""
    bias: Tensor
    """(slots, 1, 1, P): 0 on the tokens of a prompt, -inf elsewhere."""
    used: list[int]
    """Length of the prompt in each slot."""
    rows: Tensor = field(init=False)
    """The row of each token of this step."""
    positions: Tensor = field(init=False)
    """Where each of them is written among the row's own."""
    singles: int = 0
    """The first tokens of the step, each of another row: the next token of an action."""
    longer: Tensor = field(init=False)
    """The rows of the other tokens, which are several of each row."""
    which: Tensor = field(init=False)
    """For each of the other tokens, the index of its row in `longer`."""
    places: Tensor = field(init=False)
    """For each of them, its number among those of its row."""
    width: int = 0
    """Longest prompt of this step."""
    length: int = 0
    """Tokens of the row that has the most of its own."""
    own_bias: Tensor = field(init=False)
    """(singles, 1, 1, t): 0 up to the token being run, -inf after it."""
    longer_bias: Tensor = field(init=False)
    """(longer rows, 1, S, width + t): 0 on what each of its tokens sees, -inf elsewhere."""
    distances: Tensor = field(init=False)
    """(singles, 1, 1, width + t): how many tokens before the token being run each one stands."""
    longer_distances: Tensor = field(init=False)
    """(longer rows, 1, S, width + t): the same for their tokens."""

    @classmethod
    def like(cls, keys: list[Tensor], slots: int, seats: int, steps: int) -> _KeyValueCache:
        """An empty cache for prompts as long as these, and at first `steps` tokens per row."""
        _, heads, width, size = keys[0].shape

        def pair(*shape: int) -> tuple[Tensor, Tensor]:
            return keys[0].new_zeros(shape), keys[0].new_zeros(shape)

        return cls(
            prompt=[pair(slots, heads, width, size) for _ in keys],
            own=[pair(slots * seats, heads, steps, size) for _ in keys],
            bias=keys[0].new_full((slots, 1, 1, width), float("-inf")),
            used=[0] * slots,
        )

    def write(self, slots: list[int], keys: list[Tensor], values: list[Tensor], lengths: list[int]) -> None:
        """Put prompts into slots."""
        width = keys[0].shape[2]
        for (to_keys, to_values), some_keys, some_values in zip(self.prompt, keys, values, strict=True):
            to_keys[slots, :, :width] = some_keys
            to_values[slots, :, :width] = some_values
        for slot, length in zip(slots, lengths, strict=True):
            self.used[slot] = length
            self.bias[slot] = float("-inf")
            self.bias[slot, ..., :length] = 0.0

    def prepare(self, rows: Tensor, positions: Tensor, singles: int, longer: Tensor, places: Tensor) -> None:
        """Set the tokens of the step: `rows` and `positions` of each, and the others as in the fields, on the CPU."""
        device = self.bias.device
        self.length, self.width, self.singles = int(positions.max()) + 1, max(self.used), singles
        self._make_room()
        self.rows, self.positions = rows.to(device), positions.to(device)
        if singles:
            last = positions[:singles]
            after = torch.arange(int(last.max()) + 1)[None] > last[:, None]
            self.own_bias = self._minus_infinity_on(after)[:, None, None]
            self.distances = self._distances(rows[:singles], last[:, None], after.shape[-1])[:, None]
        if len(longer):
            which = torch.searchsorted(longer, rows[singles:])
            last = torch.zeros((len(longer), int(places.max()) + 1), dtype=torch.long)
            last[which, places[singles:]] = positions[singles:]
            after = torch.arange(int(positions[singles:].max()) + 1)[None, None] > last[:, :, None]
            self.longer, self.which, self.places = (each.to(device) for each in (longer, which, places[singles:]))
            on_prompt = self.bias[self.slots_of(self.longer), 0, :, : self.width].expand(-1, last.shape[1], -1)
            self.longer_bias = torch.cat((on_prompt, self._minus_infinity_on(after)), -1)[:, None]
            self.longer_distances = self._distances(longer, last, after.shape[-1])[:, None]

    def _minus_infinity_on(self, where: Tensor) -> Tensor:
        bias = torch.zeros(where.shape, dtype=self.bias.dtype).masked_fill_(where, float("-inf"))
        return bias.to(self.bias.device)

    def _distances(self, rows: Tensor, positions: Tensor, length: int) -> Tensor:
        """(rows, S, width + length): from the tokens at the (rows, S) positions among the rows' own, back to those of
        the prompt and to the rows' own."""
        prompts = torch.tensor(self.used)[self.slots_of(rows)]
        on_prompt = (prompts[:, None] + positions)[..., None] - torch.arange(self.width)
        return torch.cat((on_prompt, positions[..., None] - torch.arange(length)), -1).to(self.bias.device)

    def slots_of(self, rows: Tensor) -> Tensor:
        return rows // (len(self.own[0][0]) // len(self.bias))

    def _make_room(self) -> None:
        """Let the private caches have room for the step."""
        have = self.own[0][0].shape[2]
        if self.length > have:
            more = (0, 0, 0, max(self.length - have, have // 2, CACHE_STEP))
            pad = torch.nn.functional.pad
            for layer, (keys, values) in enumerate(self.own):  # layer by layer: the old one is freed before the next
                self.own[layer] = pad(keys, more), pad(values, more)

    def add(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values of the step's tokens, (tokens, key heads, head size)."""
        own_keys, own_values = self.own[layer]
        own_keys[self.rows, :, self.positions] = keys
        own_values[self.rows, :, self.positions] = values


class _CacheWriter(Cache):  # type: ignore[misc]
    """The model's cache: writes the new keys and values into the shared cache, where the attention reads them."""

    def __init__(self, memory: _KeyValueCache) -> None:
        super().__init__(layers=[])
        self.memory = memory

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self.memory.add(layer_idx, key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        del layer_idx
        return self.memory.length - 1


def shared_prompt_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    prompt_memory: _KeyValueCache,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """One decoding step: attention over the shared prompt and the row's own tokens, in one softmax.

    Args:
        query: of all tokens of the step, (1, heads, tokens, head size).
        sliding_window: tokens that each one sees, with itself. Default: None: all.
        s_aux: (heads,), the attention sinks: what the softmax spends on no token. Default: None: nothing.

    Returns:
        (1, tokens, heads, head size), and None for the attention weights.
    """
    del key, value, attention_mask
    memory, layer = prompt_memory, module.layer_idx
    scaled = query[0].transpose(0, 1) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    parts = []
    if memory.singles:
        parts.append(_attention_of_singles(memory, layer, scaled[: memory.singles], sliding_window, s_aux))  # type: ignore[arg-type]
    if memory.singles < len(scaled):
        parts.append(_attention_of_longer(memory, layer, scaled[memory.singles :], sliding_window, s_aux))  # type: ignore[arg-type]
    return (torch.cat(parts) if len(parts) > 1 else parts[0])[None], None


def _weights(scores: Tensor, distances: Tensor, window: int | None, sinks: Tensor | None) -> Tensor:
    """Attention weights, of the form of the scores.

    Args:
        sinks: a score of no token, of a form that the scores' last axis is missing in.
    """
    if window is not None:
        scores = scores.masked_fill(distances >= window, float("-inf"))
    if sinks is None:
        return scores.float().softmax(-1)
    none = sinks.to(scores.dtype)[..., None].expand(*scores.shape[:-1], 1)
    return torch.cat((scores, none), -1).float().softmax(-1)[..., :-1]


def _attention_of_singles(
    memory: _KeyValueCache, layer: int, query: Tensor, window: int | None, sinks: Tensor | None
) -> Tensor:
    """The next token of each action: (tokens, heads, head size) to the same.

    Prompts are read where they are, for all rows of all slots, which keeps groups complete. What the rows have written
    themselves is much more, so it is gathered for the rows that draw alone: of many dialogues, few do at a time.
    """
    active, heads, size = query.shape
    running = memory.rows[: memory.singles]
    prompt_keys, prompt_values = (states[:, :, : memory.width] for states in memory.prompt[layer])
    length = memory.own_bias.shape[-1]
    own_keys, own_values = (states[:, :, :length][running] for states in memory.own[layer])
    slots, key_heads = prompt_keys.shape[:2]
    rows, repeat = len(memory.own[layer][0]), heads // key_heads
    group = rows // slots

    of_running = query.reshape(active, key_heads, repeat, size)
    by_head = query.new_zeros((rows, key_heads, repeat, size))
    by_head[running] = of_running
    by_slot = by_head.view(slots, group, key_heads, repeat, size).transpose(1, 2)
    by_slot = by_slot.reshape(slots, key_heads, group * repeat, size)
    prompt_scores = by_slot @ prompt_keys.transpose(-1, -2) + memory.bias[..., : memory.width]
    prompt_scores = prompt_scores.view(slots, key_heads, group, repeat, -1).transpose(1, 2)
    prompt_scores = prompt_scores.reshape(rows, key_heads, repeat, -1)[running]
    own_scores = of_running @ own_keys.transpose(-1, -2) + memory.own_bias
    scores = torch.cat((prompt_scores, own_scores), -1)
    by_key_head = None if sinks is None else sinks.view(key_heads, repeat)
    weights = _weights(scores, memory.distances, window, by_key_head).to(query.dtype)
    on_own = weights[..., memory.width :]
    on_prompt = weights.new_zeros((rows, key_heads, repeat, memory.width))
    on_prompt[running] = weights[..., : memory.width]
    on_prompt = on_prompt.view(slots, group, key_heads, repeat, -1).transpose(1, 2)
    from_prompt = on_prompt.reshape(slots, key_heads, group * repeat, -1) @ prompt_values
    from_prompt = from_prompt.view(slots, key_heads, group, repeat, size).transpose(1, 2)
    out = from_prompt.reshape(rows, key_heads, repeat, size)[running] + on_own @ own_values
    return out.reshape(active, heads, size)


def _attention_of_longer(
    memory: _KeyValueCache, layer: int, query: Tensor, window: int | None, sinks: Tensor | None
) -> Tensor:
    """Several tokens of some rows, which are few: (tokens, heads, head size) to the same."""
    tokens, heads, size = query.shape
    length = memory.longer_bias.shape[-1] - memory.width
    of_slots = memory.slots_of(memory.longer)
    keys, values = (
        torch.cat((shared[of_slots, :, : memory.width], own[memory.longer, :, :length]), 2)
        for shared, own in zip(memory.prompt[layer], memory.own[layer], strict=True)
    )
    count, key_heads = keys.shape[:2]
    repeat, most = heads // key_heads, memory.longer_bias.shape[2]
    by_row = query.new_zeros((count, most, key_heads, repeat, size))
    by_row[memory.which, memory.places] = query.reshape(tokens, key_heads, repeat, size)
    by_row = by_row.permute(0, 2, 3, 1, 4).reshape(count, key_heads, repeat * most, size)
    scores = (by_row @ keys.transpose(-1, -2)).view(count, key_heads, repeat, most, -1) + memory.longer_bias[:, :, None]
    by_key_head = None if sinks is None else sinks.view(key_heads, repeat, 1)
    weights = _weights(scores, memory.longer_distances[:, None], window, by_key_head).to(query.dtype)
    out = weights.view(count, key_heads, repeat * most, -1) @ values
    out = out.view(count, key_heads, repeat, most, size).permute(0, 3, 1, 2, 4)
    return out[memory.which, memory.places].reshape(tokens, heads, size)


@contextmanager
def _attention(model: Any) -> Iterator[None]:
    """Switch the model to the shared-prompt attention inside the `with` block."""
    AttentionInterface.register(ATTENTION, shared_prompt_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before


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
