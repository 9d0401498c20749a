"""Attention of one decoding step over prompts that many rows share, and over the own tokens of each row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from regrade.policy_training.policies.shared_cache import SharedPromptCache

ATTENTION = "regrade_shared_prompt"


@contextmanager
def shared_prompt_attention_of(model: Any) -> Iterator[None]:
    """Switch the model to the shared-prompt attention inside the `with` block."""
    AttentionInterface.register(ATTENTION, shared_prompt_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before


def shared_prompt_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    prompt_memory: SharedPromptCache,
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
    memory: SharedPromptCache, layer: int, query: Tensor, window: int | None, sinks: Tensor | None
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
    memory: SharedPromptCache, layer: int, query: Tensor, window: int | None, sinks: Tensor | None
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
