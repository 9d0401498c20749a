"""Sample completions with one forward pass per prompt and no idle rows in the batch.

A group of G completions shares one prompt. Its keys and values are computed once and *not* copied per completion: each
decoding step attends to them as one group of G x heads queries, and to a small private cache of the tokens drawn so
far. Answers have different lengths, so rows leave as they end, and further prompts enter as soon as slots are free
(continuous batching, Orca, Yu et al. 2022).

A completion depends on the weights, the seed, its prompt and its index in the group, not on the other rows of the
batch: each row has its own random numbers (up to rounding, which differs with the size of a batch).

Works for decoder-only models of transformers that use its attention interface and rotary or absolute position ids.
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
    group = len(temperatures)
    batch = _SamplingBatch(
        model=model,
        temperatures=list(temperatures),
        stops=frozenset(stop_ids),
        max_tokens=max_tokens,
        slots=_slots(rows, group, len(prompts)),
    )
    draws = _random_numbers(prompts, group, max_tokens, seed)
    waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    while waiting or batch.live:
        room = min(len(batch.free), max(0, rows - len(batch.active)) // group)
        if waiting and (room or not batch.live):
            coming = [waiting.pop() for _ in range(min(max(1, room), len(waiting)))]
            batch.admit(coming, [prompts[index] for index in coming], draws[coming])
        elif len(batch.active):
            batch.step()
        yield from batch.finished()


def _slots(rows: int, group: int, prompts: int) -> int:
    """Slots for prompts: 1.5 times as many as fill the rows, because a group leaves only when its last row ends."""
    return max(1, min(prompts, -(-3 * rows // (2 * group))))


def _random_numbers(prompts: Sequence[Sequence[int]], group: int, steps: int, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), (prompts, group, steps); a repeated prompt gets different ones."""
    seen: Counter[bytes] = Counter()
    out = np.empty((len(prompts), group, steps), dtype=np.float32)
    for index, prompt in enumerate(prompts):
        digest = hashlib.sha256(np.asarray(prompt, dtype=np.int64).tobytes()).digest()
        out[index] = np.random.default_rng([seed, seen[digest], *digest]).random((group, steps), dtype=np.float32)
        seen[digest] += 1
    return torch.from_numpy(out)


@dataclass
class _OpenPrompt:
    """A prompt whose completions are being sampled."""

    index: int
    """Its index in the caller's list."""
    length: int
    completions: list[Completion]
    open: int
    """Completions that have not ended."""


@dataclass(kw_only=True)
class _SamplingBatch:
    """Prompts in a fixed number of slots, `group` rows each, of which only the unfinished ones are decoded."""

    model: Any
    temperatures: list[float]
    stops: frozenset[int]
    max_tokens: int
    slots: int
    live: dict[int, _OpenPrompt] = field(default_factory=dict)
    """By slot."""
    free: list[int] = field(init=False)
    active: Tensor = field(init=False)
    """Rows (slot x group + index in the group) that have not ended, ascending."""
    memory: _KeyValueCache | None = None

    def __post_init__(self) -> None:
        rows = self.slots * self.group
        self.free = list(range(self.slots))[::-1]
        self.active = torch.empty(0, dtype=torch.long)
        self.last = torch.zeros(rows, dtype=torch.long)
        self.drawn = torch.zeros(rows, dtype=torch.long)
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.row_temperatures = torch.tensor(self.temperatures).repeat(self.slots)
        self.numbers = torch.zeros((rows, self.max_tokens))
        self._done: list[_OpenPrompt] = []

    @property
    def group(self) -> int:
        return len(self.temperatures)

    def admit(self, indices: list[int], prompts: list[Sequence[int]], numbers: Tensor) -> None:
        """Run the prompts once, put them into free slots, and draw the first token of each completion."""
        keys, values, logits = _run_prompts(self.model, prompts)
        if self.memory is None:  # the first prompts are the longest
            self.memory = _KeyValueCache.like(keys, self.slots, self.group, self.max_tokens)
        taken = [self.free.pop() for _ in prompts]
        self.memory.write(taken, keys, values, [len(prompt) for prompt in prompts])
        rows = (torch.tensor(taken)[:, None] * self.group + torch.arange(self.group)).flatten()
        self.numbers[rows] = numbers.flatten(0, 1)
        self.drawn[rows] = 0
        for slot, index, prompt in zip(taken, indices, prompts, strict=True):
            self.lengths[slot * self.group : (slot + 1) * self.group] = len(prompt)
            self.live[slot] = _OpenPrompt(index, len(prompt), [Completion() for _ in self.temperatures], self.group)
        self._take(rows, logits.repeat_interleave(self.group, 0))
        self.active = torch.cat((self.active, rows[self._open(rows)])).sort().values

    def step(self) -> None:
        """Draw one more token of every unfinished completion."""
        assert self.memory is not None
        device = self.model.device
        rows = self.active
        self.memory.prepare(rows.to(device), (self.drawn[rows] - 1).to(device))
        with torch.no_grad(), _attention(self.model):
            hidden = self.model.base_model(
                input_ids=self.last[rows, None].to(device),
                position_ids=(self.lengths[rows] + self.drawn[rows] - 1)[:, None].to(device),
                past_key_values=_CacheWriter(self.memory),
                use_cache=True,
                prompt_memory=self.memory,
            ).last_hidden_state[:, -1]
            logits = self.model.lm_head(hidden)
        self._take(rows, logits)
        self.active = rows[self._open(rows)]

    def finished(self) -> Iterator[tuple[int, list[Completion]]]:
        """The prompts that have ended since the last call."""
        done, self._done = self._done, []
        return ((prompt.index, prompt.completions) for prompt in done)

    def _take(self, rows: Tensor, logits: Tensor) -> None:
        points = self.numbers[rows, self.drawn[rows]].to(logits.device)
        tokens, log_probs = (
            drawn.cpu() for drawn in _draw(logits, self.row_temperatures[rows].to(logits.device), points)
        )
        self.last[rows] = tokens
        self.drawn[rows] += 1
        for row, token, log_prob in zip(rows.tolist(), tokens.tolist(), log_probs.tolist(), strict=True):
            slot, number = divmod(row, self.group)
            prompt = self.live[slot]
            completion = prompt.completions[number]
            completion.tokens.append(token)
            completion.log_probs.append(log_prob)
            if token in self.stops or len(completion.tokens) == self.max_tokens:
                prompt.open -= 1
                if prompt.open == 0:
                    self._done.append(self.live.pop(slot))
                    self.free.append(slot)
                    assert self.memory is not None
                    self.memory.used[slot] = 0

    def _open(self, rows: Tensor) -> Tensor:
        ended = torch.isin(self.last[rows], torch.tensor(sorted(self.stops)))
        return ~ended & (self.drawn[rows] < self.max_tokens)


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
    """The rows of this step."""
    positions: Tensor = field(init=False)
    """Position of the token that each of them writes."""
    width: int = 0
    """Longest prompt of this step."""
    own_bias: Tensor = field(init=False)
    """(rows, 1, 1, t): 0 up to the token being run, -inf after it, for all rows."""

    @classmethod
    def like(cls, keys: list[Tensor], slots: int, group: int, steps: int) -> _KeyValueCache:
        """An empty cache for prompts as long as these, and `steps` tokens per row."""
        _, heads, width, size = keys[0].shape

        def pair(*shape: int) -> tuple[Tensor, Tensor]:
            return keys[0].new_zeros(shape), keys[0].new_zeros(shape)

        return cls(
            prompt=[pair(slots, heads, width, size) for _ in keys],
            own=[pair(slots * group, heads, steps, size) for _ in keys],
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

    def prepare(self, rows: Tensor, positions: Tensor) -> None:
        """Set the rows of the step, and the position of the token that each of them writes."""
        self.rows, self.positions, self.width = rows, positions, max(self.used)
        count = len(self.own[0][0])
        last = positions.new_zeros(count)
        last[rows] = positions
        after = torch.arange(int(positions.max()) + 1, device=rows.device)[None] > last[:, None]
        self.own_bias = torch.zeros(after.shape, dtype=self.bias.dtype, device=rows.device)
        self.own_bias = self.own_bias.masked_fill_(after, float("-inf"))[:, None, None]


class _CacheWriter(Cache):  # type: ignore[misc]
    """The model's cache: writes the new keys and values into the shared cache, where the attention reads them."""

    def __init__(self, memory: _KeyValueCache) -> None:
        super().__init__(layers=[])
        self.memory = memory

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.memory.own[layer_idx]
        keys[self.memory.rows, :, self.memory.positions] = key_states[:, :, 0]
        values[self.memory.rows, :, self.memory.positions] = value_states[:, :, 0]
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        del layer_idx
        return self.memory.own_bias.shape[-1] - 1


def shared_prompt_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    prompt_memory: _KeyValueCache,
    **_: Any,
) -> tuple[Tensor, None]:
    """One decoding step: attention over the shared prompt and the row's own tokens, in one softmax.

    Attention is a small part of a step, so it is computed for all rows of all slots, ended or not, which keeps groups
    complete. `query` has the active rows only, (active rows, heads, 1, head size).

    Returns:
        (active rows, 1, heads, head size), and None for the attention weights.
    """
    del key, value, attention_mask
    memory = prompt_memory
    layer: int = module.layer_idx  # type: ignore[assignment]
    active, heads, _one, size = query.shape
    prompt_keys, prompt_values = (states[:, :, : memory.width] for states in memory.prompt[layer])
    length = memory.own_bias.shape[-1]
    own_keys, own_values = (states[:, :, :length] for states in memory.own[layer])
    slots, key_heads = prompt_keys.shape[:2]
    rows, repeat = len(own_keys), heads // key_heads
    group = rows // slots

    by_head = query.new_zeros((rows, key_heads, repeat, size))
    by_head[memory.rows] = query.view(active, key_heads, repeat, size) * (size**-0.5 if scaling is None else scaling)
    by_slot = by_head.view(slots, group, key_heads, repeat, size).transpose(1, 2)
    by_slot = by_slot.reshape(slots, key_heads, group * repeat, size)
    prompt_scores = by_slot @ prompt_keys.transpose(-1, -2) + memory.bias[..., : memory.width]
    prompt_scores = prompt_scores.view(slots, key_heads, group, repeat, -1).transpose(1, 2)
    prompt_scores = prompt_scores.reshape(rows, key_heads, repeat, -1)
    own_scores = by_head @ own_keys.transpose(-1, -2) + memory.own_bias
    weights = torch.cat((prompt_scores, own_scores), -1).float().softmax(-1).to(query.dtype)
    on_prompt, on_own = weights[..., : memory.width], weights[..., memory.width :]
    on_prompt = on_prompt.reshape(slots, group, key_heads, repeat, -1).transpose(1, 2)
    from_prompt = on_prompt.reshape(slots, key_heads, group * repeat, -1) @ prompt_values
    from_prompt = from_prompt.view(slots, key_heads, group, repeat, size).transpose(1, 2)
    out = from_prompt.reshape(rows, key_heads, repeat, size) + on_own @ own_values
    return out[memory.rows].reshape(active, 1, heads, size), None


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
    # Right padding: causal attention never attends to it, so this pass needs no mask.
    cache = DynamicCache(config=model.config)
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
