"""Run each prompt once for all of its completions, in sampling and in the log-probability pass.

A group of G completions shares one prompt of P tokens, and answers here are short (C << P). Run row by row, as
trainers do, a group costs G x (P + C) tokens; here it costs P + G x C, and identical completions are run once.

- Sampling: the prompt's keys and values are computed once and *not* copied per completion. Each decoding step attends
  to them as one group of G x heads queries and to a small private cache of the tokens generated so far.
- Log-probabilities: a row holds `prompt, completion 1, completion 2, ...`; a block mask lets each completion see
  the prompt and itself only, and position ids restart after the prompt for each. Logits are computed on completion
  tokens alone. Gradients are those of the separate rows (held by a test).

Works for decoder-only models of transformers that use its attention interface and rotary or absolute position ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache

ATTENTION = "regrade_shared_prompt"


@dataclass
class PromptMemory:
    """Keys and values of a batch of prompts, kept once per prompt."""

    keys: list[Tensor]
    """Per layer (prompts, key heads, P, head size)."""
    values: list[Tensor]
    bias: Tensor
    """(prompts, 1, 1, P): 0 on tokens, -inf on padding."""

    def select(self, prompts: Tensor) -> PromptMemory:
        return PromptMemory([k[prompts] for k in self.keys], [v[prompts] for v in self.values], self.bias[prompts])


class SuffixCache(Cache):  # type: ignore[misc]
    """Keys and values of the generated tokens alone, in memory laid out beforehand."""

    def __init__(self, layers: int, rows: int, steps: int, like: Tensor) -> None:
        super().__init__(layers=[])
        shape = (layers, rows, like.shape[1], steps, like.shape[3])
        self.key_memory = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.value_memory = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        end = self.length + 1
        self.key_memory[layer_idx, :, :, self.length : end] = key_states
        self.value_memory[layer_idx, :, :, self.length : end] = value_states
        return self.key_memory[layer_idx, :, :, :end], self.value_memory[layer_idx, :, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        del layer_idx
        return self.length

    def select(self, rows: Tensor) -> None:
        """Keep some rows only."""
        self.key_memory = self.key_memory[:, rows]
        self.value_memory = self.value_memory[:, rows]


def shared_prompt_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    prompt_memory: PromptMemory,
    **_: Any,
) -> tuple[Tensor, None]:
    """One decoding step: attention over the shared prompt and the private suffix, in one softmax.

    Shapes: query (rows, heads, 1, d); key and value (rows, key heads, t, d), rows = prompts x G, ordered by prompt.
    """
    del attention_mask
    rows, heads, _one, size = query.shape
    memory_k, memory_v = prompt_memory.keys[module.layer_idx], prompt_memory.values[module.layer_idx]  # type: ignore[index]
    prompts, key_heads = memory_k.shape[:2]
    group, repeat = rows // prompts, heads // key_heads
    scale = size**-0.5 if scaling is None else scaling

    by_head = query.view(rows, key_heads, repeat, size) * scale
    to_prompt = by_head.view(prompts, group, key_heads, repeat, size).transpose(1, 2)
    to_prompt = to_prompt.reshape(prompts, key_heads, group * repeat, size)
    prompt_scores = to_prompt @ memory_k.transpose(-1, -2) + prompt_memory.bias
    suffix_scores = by_head @ key.transpose(-1, -2)  # (rows, key heads, repeat, t)
    length = prompt_scores.shape[-1]
    prompt_scores = prompt_scores.view(prompts, key_heads, group, repeat, length).transpose(1, 2)
    prompt_scores = prompt_scores.reshape(rows, key_heads, repeat, length)
    weights = torch.cat((prompt_scores, suffix_scores), -1).float().softmax(-1).to(query.dtype)
    on_prompt, on_suffix = weights[..., :length], weights[..., length:]
    on_prompt = on_prompt.view(prompts, group, key_heads, repeat, length).transpose(1, 2)
    from_prompt = on_prompt.reshape(prompts, key_heads, group * repeat, length) @ memory_v
    from_prompt = from_prompt.view(prompts, key_heads, group, repeat, size).transpose(1, 2)
    out = from_prompt.reshape(rows, key_heads, repeat, size) + on_suffix @ value
    return out.reshape(rows, 1, heads, size), None


@contextmanager
def _attention(model: Any) -> Iterator[None]:
    """Switch the model to the shared-prompt attention, and back whatever happens."""
    AttentionInterface.register(ATTENTION, shared_prompt_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before


@torch.no_grad()
def remember(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[PromptMemory, Tensor]:
    """Run the prompts once. Returns their memory and the logits (prompts, vocabulary) of the next token."""
    device = model.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    width = int(lengths.max())
    ids = torch.zeros((len(prompts), width), dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, device=device)
    # Right padding: causal attention never looks at it, so no mask is needed in this pass.
    cache = DynamicCache(config=model.config)
    hidden = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    padding = torch.arange(width, device=device)[None] >= lengths[:, None]
    bias = torch.zeros((len(prompts), 1, 1, width), dtype=hidden.dtype, device=device)
    bias.masked_fill_(padding[:, None, None], float("-inf"))
    memory = PromptMemory([layer.keys for layer in cache.layers], [layer.values for layer in cache.layers], bias)
    return memory, model.lm_head(last)


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    *,
    stop_ids: Sequence[int],
    max_tokens: int,
    generator: torch.Generator,
) -> list[list[list[int]]]:
    """Sample one completion per prompt and entry of `temperatures` (0: greedy).

    Args:
        prompts: token ids, one list per prompt.
        temperatures: one per completion of a prompt, so that a whole sweep shares one pass over the prompt.
        stop_ids: tokens that end a completion (kept as its last token).
        generator: source of randomness; the same state gives the same completions.

    Returns:
        token ids as [prompt][completion][token].
    """
    memory, logits = remember(model, prompts)
    group, count = len(temperatures), len(prompts)
    device = logits.device
    heat = torch.tensor(list(temperatures) * count, device=device)
    stops = torch.tensor(list(stop_ids), device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device).repeat_interleave(group)
    cache = SuffixCache(len(memory.keys), count * group, max_tokens, memory.keys[0])
    tokens = _draw(logits.repeat_interleave(group, 0), heat, generator)
    out = [tokens]
    done = torch.isin(tokens, stops)
    alive = torch.arange(count, device=device)  # prompts with at least one unfinished completion
    rows = torch.arange(count * group, device=device)
    with _attention(model):
        for step in range(1, max_tokens):
            unfinished = (~done).view(count, group).any(1).nonzero().flatten()
            if len(unfinished) == 0:
                break
            if len(unfinished) <= 0.8 * len(alive):  # drop finished groups from the batch once it pays for the copy
                keep = torch.isin(alive, unfinished).nonzero().flatten()
                memory = memory.select(keep)
                cache.select((keep[:, None] * group + torch.arange(group, device=device)).flatten())
                alive = alive[keep]
                rows = (alive[:, None] * group + torch.arange(group, device=device)).flatten()
            hidden = model.base_model(
                input_ids=out[-1][rows, None], position_ids=(lengths[rows] + step - 1)[:, None],
                past_key_values=cache, use_cache=True, prompt_memory=memory,
            ).last_hidden_state[:, -1]  # fmt: skip
            cache.length += 1
            tokens = torch.full_like(out[-1], int(stops[0]))
            tokens[rows] = _draw(model.lm_head(hidden), heat[rows], generator)
            tokens = torch.where(done, stops[0], tokens)
            out.append(tokens)
            done |= torch.isin(tokens, stops)
    flat = torch.stack(out, 1).tolist()
    stop_set = set(stop_ids)
    cut = [_until_stop(row, stop_set) for row in flat]
    return [cut[start : start + group] for start in range(0, len(cut), group)]


def _draw(logits: Tensor, temperatures: Tensor, generator: torch.Generator) -> Tensor:
    """One token a row: argmax where the temperature is 0, else by inverting the cumulative distribution."""
    greedy = temperatures == 0
    probabilities = (logits.float() / temperatures.masked_fill(greedy, 1.0)[:, None]).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # Scaled by the last sum, which rounding leaves a little off 1, so that no draw falls beyond the vocabulary.
    point = torch.rand((len(logits), 1), generator=generator, device=logits.device) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, point, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return torch.where(greedy, logits.argmax(-1), drawn)


def _until_stop(tokens: list[int], stops: set[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stops:
            return tokens[: place + 1]
    return tokens


@dataclass(frozen=True)
class PackedRow:
    """One prompt and its distinct completions, laid out in one row."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


def pack(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> tuple[list[PackedRow], list[tuple[int, int]]]:
    """Group completions by prompt and merge identical ones.

    Returns:
        rows, and for each input its (row, completion) place in them.
    """
    groups: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    order: dict[tuple[int, ...], int] = {}
    places = []
    for prompt, completion in zip(prompts, completions, strict=True):
        key, answer = tuple(prompt), tuple(completion)
        row = order.setdefault(key, len(order))
        known = groups.setdefault(key, {})
        places.append((row, known.setdefault(answer, len(known))))
    return [PackedRow(prompt, tuple(known)) for prompt, known in groups.items()], places


def passes(lengths: list[int], tokens: int) -> list[tuple[int, int]]:
    """Slices of rows whose padded size stays under `tokens` (one row at least)."""
    slices, start, widest = [], 0, 0
    for place, length in enumerate(lengths):
        if place > start and max(widest, length) * (place - start + 1) > tokens:
            slices.append((start, place))
            start, widest = place, 0
        widest = max(widest, length)
    return [*slices, (start, len(lengths))]


def packed_log_probs(
    model: Any, rows: Sequence[PackedRow], temperature: float = 1.0, *, entropy: bool = False
) -> tuple[list[list[Tensor]], list[list[Tensor]] | None]:
    """Log-probabilities (and entropies) of every completion token, as [row][completion] -> (C,) tensors.

    One forward pass over the rows, padded to the longest; the caller chooses how many rows fit.
    """
    log_probs, spread = token_log_probs(model, rows, prediction_states(model, rows), temperature, entropy=entropy)
    return unflatten(log_probs, rows), None if spread is None else unflatten(spread, rows)


def prediction_states(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """Last hidden states that predict the completion tokens, (tokens, hidden); `unflatten` knows their order."""
    hidden = _packed_hidden(model, rows)
    where = [(index, place) for index, row in enumerate(rows) for place, _ in _predictions(row)]
    return _gather(hidden, where)


def final_states(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """Last hidden state at the last token of each completion, (completions, hidden), row by row.

    At an empty completion it is that of the prompt's last token.
    """
    hidden = _packed_hidden(model, rows)
    where = []
    for index, row in enumerate(rows):
        end = len(row.prompt)
        for completion in row.completions:
            end += len(completion)
            where.append((index, end - 1 if completion else len(row.prompt) - 1))
    return _gather(hidden, where)


def _gather(hidden: Tensor, where: list[tuple[int, int]]) -> Tensor:
    index = torch.tensor(where, dtype=torch.long, device=hidden.device).view(-1, 2)
    return hidden[index[:, 0], index[:, 1]]


def token_log_probs(
    model: Any, rows: Sequence[PackedRow], states: Tensor, temperature: float = 1.0, *, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities, and entropies if wanted, of the completion tokens, (tokens,), from `prediction_states`."""
    tokens = [token for row in rows for _, token in _predictions(row)]
    targets = torch.tensor(tokens, dtype=torch.long, device=states.device)
    normal = (model.lm_head(states).float() / temperature).log_softmax(-1)
    spread = -(normal.exp() * normal).sum(-1) if entropy else None
    return normal.gather(1, targets[:, None])[:, 0], spread


def _predictions(row: PackedRow) -> Iterator[tuple[int, int]]:
    """(place whose hidden state predicts it, token) for each completion token."""
    start = len(row.prompt)
    for completion in row.completions:
        for offset, token in enumerate(completion):
            yield (len(row.prompt) - 1 if offset == 0 else start + offset - 1), token
        start += len(completion)


def unflatten(flat: Tensor, rows: Sequence[PackedRow]) -> list[list[Tensor]]:
    """One number a completion token, row by row and completion by completion, as [row][completion] -> (C,)."""
    sizes = [len(completion) for row in rows for completion in row.completions]
    pieces = iter(torch.split(flat, sizes))
    return [[next(pieces) for _ in row.completions] for row in rows]


def _packed_hidden(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    width = max(row.length for row in rows)
    device = model.device
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    # segment 0 is the prompt, k the k-th completion, -1 padding
    segments = torch.full((len(rows), width), -1)
    for index, row in enumerate(rows):
        start = len(row.prompt)
        ids[index, :start] = torch.tensor(row.prompt)
        positions[index, :start] = torch.arange(start)
        segments[index, :start] = 0
        for number, completion in enumerate(row.completions, 1):
            end = start + len(completion)
            ids[index, start:end] = torch.tensor(completion)
            positions[index, start:end] = len(row.prompt) + torch.arange(len(completion))
            segments[index, start:end] = number
            start = end
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    same = segments[:, :, None] == segments[:, None, :]
    mask = causal & (same | (segments[:, None, :] == 0))
    mask |= torch.eye(width, dtype=torch.bool)  # padding attends to itself: a row of -inf would be NaN
    bias = torch.zeros(mask.shape, dtype=model.dtype).masked_fill_(~mask, torch.finfo(model.dtype).min)
    return model.base_model(  # type: ignore[no-any-return]
        input_ids=ids.to(device), position_ids=positions.to(device), attention_mask=bias[:, None].to(device),
        use_cache=False,
    ).last_hidden_state  # fmt: skip
