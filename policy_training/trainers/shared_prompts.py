"""Log-probabilities of completions with one forward pass per prompt for all of its completions.

A group of G completions shares one prompt of P tokens, and answers here are short (C << P). Run row by row, as
trainers do, a group costs G x (P + C) tokens; here it costs P + G x C, and identical completions are run once: a row
holds `prompt, completion 1, completion 2, ...`; a block mask lets each completion see the prompt and itself only, and
position ids restart after the prompt for each. Logits are computed on completion tokens alone. Gradients are those of
the separate rows (checked by a test). `sampling` does the same for drawing completions.

A completion may be a whole trajectory: actions of the policy and observations in turn. Observations are read, like the
prompt, but the policy did not write them: no logits are computed on them, and they have no log-probabilities.

Works for decoder-only models of transformers that use its attention interface and rotary or absolute position ids, also
with attention sinks and sliding windows (GPT-OSS). Of a mixture of experts, `balance_loss` is the router's loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrade.policy_training.policies.precision import mixed_precision

LONGEST_ROW = 1536
"""Tokens of a row with several completions: the attention's cost grows with the square of a row's length."""


@dataclass(frozen=True)
class PackedRow:
    """One prompt and distinct completions of it, in one row."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    actions: tuple[tuple[bool, ...] | None, ...] = ()
    """For each completion, whether the policy wrote the token; None: it wrote all. Empty: it wrote all of all."""

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))

    def written(self, number: int) -> list[int]:
        """The places in a completion of the tokens that the policy wrote."""
        is_action = self.actions[number] if self.actions else None
        places = range(len(self.completions[number]))
        return list(places) if is_action is None else [place for place in places if is_action[place]]


_MaskedTokens = tuple[tuple[int, ...], tuple[bool, ...] | None]


def pack(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    actions: Sequence[Sequence[int]] | None = None,
    *,
    longest_row: int = LONGEST_ROW,
) -> tuple[list[PackedRow], list[tuple[int, int]]]:
    """Group completions by prompt and merge identical ones.

    Args:
        actions: for each completion, whether the policy wrote the token. Default: None: it wrote all.
        longest_row: a group that makes a longer row is spread over several.

    Returns:
        rows, and for each input its (row, completion) position in them.
    """
    groups: dict[tuple[int, ...], dict[_MaskedTokens, tuple[int, int]]] = {}
    rows: list[tuple[tuple[int, ...], list[_MaskedTokens]]] = []
    last: dict[tuple[int, ...], int] = {}
    lengths: list[int] = []
    positions = []
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        key, answer = tuple(prompt), (tuple(completion), None if actions is None else tuple(map(bool, actions[index])))
        known = groups.setdefault(key, {})
        if answer not in known:
            row = last.get(key)
            if row is None or lengths[row] + len(completion) > longest_row:
                row = last[key] = len(rows)
                rows.append((key, []))
                lengths.append(len(key))
            known[answer] = (row, len(rows[row][1]))
            rows[row][1].append(answer)
            lengths[row] += len(completion)
        positions.append(known[answer])
    return [_row(prompt, answers, actions is not None) for prompt, answers in rows], positions


def _row(prompt: tuple[int, ...], answers: list[_MaskedTokens], is_masked: bool) -> PackedRow:
    masks = tuple(is_action for _, is_action in answers) if is_masked else ()
    return PackedRow(prompt, tuple(tokens for tokens, _ in answers), masks)


def passes(lengths: list[int], tokens: int) -> list[tuple[int, int]]:
    """(start, end) of slices of rows whose padded size is at most `tokens`, with one row at least."""
    slices, start, widest = [], 0, 0
    for index, length in enumerate(lengths):
        if index > start and max(widest, length) * (index - start + 1) > tokens:
            slices.append((start, index))
            start, widest = index, 0
        widest = max(widest, length)
    return [*slices, (start, len(lengths))]


def packed_log_probs(
    model: Any, rows: Sequence[PackedRow], temperature: float = 1.0, *, entropy: bool = False
) -> tuple[list[list[Tensor]], list[list[Tensor]] | None]:
    """Log-probabilities (and entropies) of the tokens that the policy wrote, as [row][completion] -> (C,) tensors.

    One forward pass over the rows, padded to the longest; the caller limits their number.
    """
    log_probs, spread = token_log_probs(model, rows, prediction_states(model, rows), temperature, entropy=entropy)
    return unflatten(log_probs, rows), None if spread is None else unflatten(spread, rows)


def prediction_states(model: Any, rows: Sequence[PackedRow], balance: list[Tensor] | None = None) -> Tensor:
    """Last hidden states that predict the written tokens, (tokens, hidden) in float32, in the order of `unflatten`.

    Args:
        balance: receives the router's loss of this pass. Default: None: none is computed.
    """
    hidden = _packed_hidden(model, rows, balance)
    where = [(index, position) for index, row in enumerate(rows) for position, _ in _predictions(row)]
    return _gather(hidden, where)


def final_states(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """Last hidden state at the last token of each completion, (completions, hidden) in float32, row by row.

    For an empty completion it is that of the prompt's last token.
    """
    hidden = _packed_hidden(model, rows)
    where = [
        (index, (end if end > start else len(row.prompt)) - 1)
        for index, row in enumerate(rows)
        for start, end in _spans(row)
    ]
    return _gather(hidden, where)


def pooled_states(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """`final_states`, and beside each the mean over its completion's tokens, (completions, 2 x hidden)."""
    hidden = _packed_hidden(model, rows)
    return torch.stack(
        [
            torch.cat([hidden[index, end - 1], hidden[index, start:end].mean(0)])
            for index, row in enumerate(rows)
            for start, end in _spans(row)
        ]
    )


def _spans(row: PackedRow) -> Iterator[tuple[int, int]]:
    """[start, end) of each completion in its row."""
    end = len(row.prompt)
    for completion in row.completions:
        start, end = end, end + len(completion)
        yield start, end


def _gather(hidden: Tensor, where: list[tuple[int, int]]) -> Tensor:
    index = torch.tensor(where, dtype=torch.long, device=hidden.device).view(-1, 2)
    return hidden[index[:, 0], index[:, 1]]


def token_log_probs(
    model: Any, rows: Sequence[PackedRow], states: Tensor, temperature: float = 1.0, *, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities, and entropies on request, of the written tokens, (tokens,), from `prediction_states`."""
    tokens = [token for row in rows for _, token in _predictions(row)]
    targets = torch.tensor(tokens, dtype=torch.long, device=states.device)
    normal = (logits_of(model, states) / temperature).log_softmax(-1)
    spread = -(normal.exp() * normal).sum(-1) if entropy else None
    return normal.gather(1, targets[:, None])[:, 0], spread


def logits_of(model: Any, states: Tensor) -> Tensor:
    """The logits after hidden states in float32, (tokens, hidden), in float32."""
    with mixed_precision(model):
        return model.lm_head(states.to(model.lm_head.weight.dtype)).float()  # type: ignore[no-any-return]


def _predictions(row: PackedRow) -> Iterator[tuple[int, int]]:
    """(position of the hidden state that predicts it, token) for each completion token that the policy wrote."""
    start = len(row.prompt)
    for number, completion in enumerate(row.completions):
        for place in row.written(number):
            yield (len(row.prompt) - 1 if place == 0 else start + place - 1), completion[place]
        start += len(completion)


def unflatten(flat: Tensor, rows: Sequence[PackedRow]) -> list[list[Tensor]]:
    """Numbers per written token, (tokens,), as [row][completion] -> (C,)."""
    sizes = [len(row.written(number)) for row in rows for number in range(len(row.completions))]
    pieces = iter(torch.split(flat, sizes))
    return [[next(pieces) for _ in row.completions] for row in rows]


def _packed_hidden(model: Any, rows: Sequence[PackedRow], balance: list[Tensor] | None = None) -> Tensor:
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
    with mixed_precision(model):
        output = model.base_model(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            attention_mask=_biases(model, mask, positions),
            use_cache=False,
            **({} if balance is None else {"output_router_logits": True}),
        )
    if balance is not None:
        balance.append(balance_loss(model, output.router_logits, (segments >= 0).to(device)))
    return output.last_hidden_state.float()  # type: ignore[no-any-return]


def _biases(model: Any, mask: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
    """What is added to scores of attention, (rows, 1, width, width): 0 on what a token sees. By the kind of a layer, if
    the model has layers with sliding windows and others."""

    def bias(seen: Tensor) -> Tensor:
        zeros = torch.zeros(seen.shape, dtype=model.dtype)
        return zeros.masked_fill_(~seen, torch.finfo(model.dtype).min)[:, None].to(model.device)

    window, kinds = getattr(model.config, "sliding_window", None), set(getattr(model.config, "layer_types", None) or ())
    if window is None or kinds == {"full_attention"}:
        return bias(mask)
    near = mask & (positions[:, :, None] - positions[:, None, :] < window)  # positions go on from the prompt's
    return {"full_attention": bias(mask), "sliding_attention": bias(near)} if kinds else bias(near)


def balance_loss(model: Any, router_logits: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    """The load-balancing loss of a mixture of experts (Fedus et al. 2101.03961), a scalar.

    Args:
        router_logits: of each layer, (rows x width, experts).
        mask: (rows, width), 0 on padding.
    """
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or config.num_experts
    loss: Tensor = load_balancing_loss_func(router_logits, experts, config.num_experts_per_tok, mask)
    return loss
