"""Heads of a reward model: a logit for each component, from the activations of a frozen trunk.

A head is a logistic regression. Each member of the ensemble has all heads, and is fitted to tasks that are drawn with
replacement (bagging, Breiman 1996): where the members disagree, the training tasks do not determine the answer. With
the activations computed once, all heads of all members are fitted together, in seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the squared weights; each head takes that with the smallest log-loss on the validation tasks."""
STEPS = 200
"""Iterations of L-BFGS, at most."""
FILE = "heads.safetensors"


@dataclass(frozen=True)
class HeadEnsemble:
    """The weights of all heads of all members."""

    weight: Tensor
    """(members, heads, width)"""
    bias: Tensor
    """(members, heads)"""
    mean: Tensor
    """Of the training activations, (width,)."""
    scale: Tensor
    """Their standard deviation, (width,)."""

    def logits(self, activations: Tensor) -> Tensor:
        """(members, examples, heads), of activations, (examples, width)."""
        return _logits((activations.float() - self.mean) / self.scale, self.weight, self.bias)

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({field.name: getattr(self, field.name).contiguous() for field in fields(self)}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> HeadEnsemble:
        from safetensors.torch import load_file

        return cls(**load_file(folder / FILE))


@dataclass(frozen=True)
class HeadExamples:
    """Activations with labels."""

    activations: Tensor
    """(examples, width)"""
    labels: Tensor
    """(examples, heads), 0 or 1; NaN: not measured, so this head does not learn from this example."""
    clusters: Sequence[Hashable]
    """Examples of one cluster, such as a task, are not independent."""


def train_heads(
    learned: HeadExamples, validation: HeadExamples, *, members: int, seed: int, steps: int = STEPS
) -> HeadEnsemble:
    """Fit all heads of all members.

    Args:
        validation: chooses each head's penalty; examples of other clusters.
        members: of the ensemble, at least 1; the first one learns from all examples once.
    """
    mean = learned.activations.float().mean(0)
    scale = learned.activations.float().std(0, unbiased=False).clamp_min(1e-6)
    states = (learned.activations.float() - mean) / scale
    heads = learned.labels.shape[1]
    grid = torch.tensor(PENALTIES)[:, None].expand(-1, heads)
    everything = torch.ones(1, len(states))
    tried = _fit(states, learned.labels, everything.expand(len(PENALTIES), -1), grid, steps)
    losses = _losses(_logits((validation.activations.float() - mean) / scale, *tried), validation.labels, None)
    penalty = torch.tensor(PENALTIES)[losses.argmin(0)]
    counts = torch.cat([everything, _drawn(learned.clusters, members - 1, seed)])
    weight, bias = _fit(states, learned.labels, counts, penalty.expand(members, -1), steps)
    return HeadEnsemble(weight, bias, mean, scale)


def _drawn(clusters: Sequence[Hashable], members: int, seed: int) -> Tensor:
    """How often each example counts, (members, examples): as often as its cluster was drawn."""
    names = list(dict.fromkeys(clusters))
    index = {name: number for number, name in enumerate(names)}
    of_example = torch.tensor([index[name] for name in clusters], dtype=torch.long)
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(names), (members, len(names)), generator=chance)
    counts = torch.zeros(members, len(names)).scatter_add_(1, drawn, torch.ones(members, len(names)))
    return counts[:, of_example]


def _fit(states: Tensor, labels: Tensor, counts: Tensor, penalties: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Weights (members, heads, width) and biases (members, heads).

    Args:
        counts: how often each example counts, (members, examples).
        penalties: (members, heads).
    """
    members, heads = penalties.shape
    weight = torch.zeros(members, heads, states.shape[1], requires_grad=True)
    bias = torch.zeros(members, heads, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        losses = _losses(_logits(states, weight, bias), labels, counts)
        total = (losses + penalties / 2 * weight.square().sum(2)).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _logits(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("nd,mhd->mnh", states, weight) + bias[:, None]


def _losses(logits: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
    """The mean log-loss of each head of each member over the examples with a label, (members, heads)."""
    is_known = ~labels.isnan()
    targets = labels.nan_to_num().expand_as(logits)
    losses = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weights = is_known[None].float() if counts is None else is_known[None] * counts[:, :, None]
    return (losses * weights).sum(1) / weights.sum(1).clamp_min(1e-9)
