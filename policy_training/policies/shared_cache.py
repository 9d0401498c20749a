"""Keys and values of prompts, each once for all of its completions, and of what each completion has written itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

CACHE_STEP = 64
"""Tokens by which the private caches grow at least."""


@dataclass(kw_only=True)
class SharedPromptCache:
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
    def like(cls, keys: list[Tensor], slots: int, seats: int, steps: int) -> SharedPromptCache:
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


class CacheWriter(Cache):  # type: ignore[misc]
    """The model's cache: writes the new keys and values into the shared cache, where the attention reads them."""

    def __init__(self, memory: SharedPromptCache) -> None:
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
