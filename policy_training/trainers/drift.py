"""How far the policy is from another one on the attempts that a trainer holds: the sampler, or the initial policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrade.policy_training.trainers.snapshots import LearnedState

MOST_ROWS = 32
"""Attempts in a measurement of the KL divergence."""


def ratio_distance(log_probs: Tensor, sampled: Tensor, mask: Tensor) -> float:
    """Mean of |ratio - 1| over the unmasked tokens; all (rows, tokens). NaN without a token."""
    return float(((log_probs - sampled).exp() - 1).abs()[mask.bool()].mean())


def sequence_distance(log_probs: Tensor, sampled: Tensor, mask: Tensor) -> float:
    """The same, where of the sampler only the sums over each row are known, (rows,): per row, at its mean token."""
    tokens = mask.sum(1).clamp(min=1)
    return float(((((log_probs * mask).sum(1) - sampled) / tokens).exp() - 1).abs().mean())


@torch.no_grad()
def kl_from(start: LearnedState, trainer: Any) -> float | None:
    """KL divergence of the present policy from that of `start`, in nats per token, on the attempts of the latest step.

    The mean over their tokens of log p(now) - log p(start). None if the trainer holds no attempts that were sampled
    with the present weights: over others, this mean is no divergence.
    """
    batches: Sequence[Mapping[str, Any]] | None = getattr(trainer, "_buffered_inputs", None)
    if not batches or not is_on_policy(trainer):
        return None
    inputs = batches[(trainer._step - 1) % len(batches)]
    rows = {key: inputs[key][:MOST_ROWS] for key in KEYS if key in inputs}
    mask = (rows["completion_mask"] * rows.get("tool_mask", 1)).bool()
    if not mask.any():
        return None
    now = _log_probs(trainer, rows)
    with start.in_place(trainer.optimizer):
        then = _log_probs(trainer, rows)
    return float((now - then)[mask].mean())


def is_on_policy(trainer: Any) -> bool:
    """Were the attempts of the present step sampled with the present weights?"""
    if hasattr(trainer, "_sampled_at"):
        return bool(trainer._sampled_at == trainer.state.global_step)
    return bool(trainer.args.steps_per_generation * trainer.num_iterations <= trainer.args.gradient_accumulation_steps)


KEYS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")


def _log_probs(trainer: Any, rows: Mapping[str, Tensor]) -> Tensor:
    """(rows, tokens)"""
    trainer._actions = rows.get("tool_mask")
    ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], 1)
    attended = torch.cat([rows["prompt_mask"], rows["completion_mask"]], 1)
    width = rows["completion_ids"].shape[1]
    # With entropies, since the sampler's own log-probabilities would be returned otherwise.
    log_probs: Tensor = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, attended, width, batch_size=len(ids), compute_entropy=True
    )[0]
    return log_probs
