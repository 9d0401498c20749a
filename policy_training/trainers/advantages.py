"""The per-token formulas of PPO: advantages, their mean and scale, the critic's loss. All tensors are (rows, tokens).

`mask` is 1 on the tokens that the policy generated and 0 on padding and on tokens of tools. Values on masked tokens are
ignored, and results are 0 there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 1506.02438, eq. 16); each row is one episode.

    A_t = delta_t + gamma lam A_u and delta_t = r_t + gamma V_u - V_t, where u is the next token that the policy
    generated: masked tokens in between are skipped. After the last one, V and A are 0.

    Args:
        gamma: discount per token.
        lam: lambda of GAE.

    Returns:
        advantages, and returns (the critic's targets: advantage + value); (rows, tokens) each.
    """
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    for position in reversed(range(values.shape[1])):
        own = mask[:, position].bool()
        delta = rewards[:, position] + gamma * next_value - values[:, position]
        advantage = delta + gamma * lam * next_advantage
        advantages[:, position] = torch.where(own, advantage, 0.0)
        next_advantage = torch.where(own, advantage, next_advantage)
        next_value = torch.where(own, values[:, position], next_value)
    return advantages, torch.where(mask.bool(), advantages + values, 0.0)


def center(numbers: Tensor, mask: Tensor) -> Tensor:
    """Shift to mean 0 over the unmasked tokens; (rows, tokens)."""
    kept = mask.bool()
    return torch.where(kept, numbers - numbers[kept].mean(), 0.0)


def whiten(numbers: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over the unmasked tokens; (rows, tokens)."""
    kept = numbers[mask.bool()]
    if kept.numel() == 0:
        return torch.zeros_like(numbers)
    spread = kept.var(correction=0).add(1e-8).sqrt()
    return torch.where(mask.bool(), (numbers - kept.mean()) / spread, 0.0)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error per token, (rows, tokens): the larger one of the value and of the value clipped to within
    `clip` of the old value (Schulman et al. 1707.06347, as in OpenAI's baselines)."""
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square())


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 a constant one. NaN without variance."""
    kept = mask.bool()
    if int(kept.sum()) < 2:
        return float("nan")
    spread = float(returns[kept].var())
    return 1 - float((returns - values)[kept].var()) / spread if spread > 0 else float("nan")
