"""How far the ratio of on-policy training is from 1 if old log-probabilities come from a pass of their own.

The weights are the same, so every ratio should be 1. It is not where another batch, padding or precision rounds
otherwise; and in a mixture of experts a rounded router score sends a token to another expert, which changes its
probability by far more than rounding does. The trainers here take the loss's own log-probabilities, detached, where
training is strictly on-policy: then the ratio is 1 by definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regrade.policy_training.policies.transcripts import TokenizedEpisode
from regrade.policy_training.trainers.shared_prompts import pack, packed_log_probs

FAR = 0.2
"""The usual clip range: a ratio beyond it has no gradient."""


class RatioDrift(NamedTuple):
    """Of the ratios of all tokens."""

    largest: float
    """|ratio - 1| of the token where it is largest."""
    outside: float
    """Share of the tokens with |ratio - 1| > 0.2."""
    gap: float
    """Mean |difference| of the tokens' probabilities: below 0.005 is usual, above 0.01 suspect."""


def ratio_drift(log_probs: Tensor, old_log_probs: Tensor) -> RatioDrift:
    """Of the log-probabilities of the same tokens, (tokens,) each."""
    log_probs, old_log_probs = log_probs.double(), old_log_probs.double()
    distance = ((log_probs - old_log_probs).exp() - 1).abs()
    gap = (log_probs.exp() - old_log_probs.exp()).abs().mean()
    return RatioDrift(float(distance.max()), float((distance > FAR).double().mean()), float(gap))


@torch.no_grad()
def learned_log_probs(model: Any, episodes: Sequence[TokenizedEpisode], *, together: bool) -> Tensor:
    """Log-probabilities of the actions' tokens of all episodes, (tokens,).

    Args:
        together: in one padded pass with shared prompts, as a trainer of this project runs them; otherwise in a pass
            for each episode.
    """
    batches = [list(episodes)] if together else [[episode] for episode in episodes]
    found: list[Tensor] = []
    for batch in batches:
        rows, positions = pack(
            [each.prompt for each in batch], [each.tokens for each in batch], [each.is_action for each in batch]
        )
        pieces, _ = packed_log_probs(model, rows)
        found += [pieces[row][column] for row, column in positions]
    return torch.cat(found)


def sampled_log_probs(episodes: Sequence[TokenizedEpisode]) -> Tensor:
    """Those that the sampler recorded, (tokens,)."""
    return torch.tensor([number for each in episodes for number in compress(each.log_probs, each.is_action)])
