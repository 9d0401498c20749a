"""Heads on frozen activations: what they learn, how labels are masked, and where the ensemble disagrees."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regrade.policy_training.reward_models.heads import HeadEnsemble, HeadExamples, train_heads

WIDTH = 12


def examples(count: int, seed: int, *, known: float = 1.0, width: int = WIDTH) -> HeadExamples:
    """Two components that depend on the activations with noise, and one that depends on nothing."""
    chance = torch.Generator().manual_seed(seed)
    states = torch.randn(count, width, generator=chance) * 3 + 1
    logits = torch.stack([states[:, 0] - 1, -2 * states[:, 1] + 2, torch.zeros(count)], 1)
    labels = (torch.rand(count, 3, generator=chance) < logits.sigmoid()).float()
    labels[torch.rand(count, 3, generator=chance) > known] = math.nan
    return HeadExamples(states, labels, [index // 4 for index in range(count)])


def probabilities(heads: HeadEnsemble, states: Tensor) -> Tensor:
    return heads.logits(states).mean(0).sigmoid()


def test_every_head_learns_its_component() -> None:
    heads = train_heads(examples(800, 0), examples(400, 1), members=3, seed=0)
    fresh = examples(2000, 2)
    found = probabilities(heads, fresh.activations)
    for head, scale in ((0, 1.0), (1, -2.0)):
        truth = (scale * (fresh.activations[:, head] - 1)).sigmoid()
        assert (found[:, head] - truth).abs().mean() < 0.05
    share = float(fresh.labels[:, 2].mean())
    assert (found[:, 2] - share).abs().max() < 0.2, "noise is not learned: its penalty is high"


def test_the_first_member_is_the_penalised_likelihood_estimate() -> None:
    """Against scipy's own minimiser, at the penalty that was chosen."""
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    learned, checks = examples(300, 0), examples(200, 1)
    heads = train_heads(learned, checks, members=1, seed=0)
    states = ((learned.activations - heads.mean) / heads.scale).double().numpy()
    labels = learned.labels[:, 0].double().numpy()

    def objective(values: np.ndarray, penalty: float) -> float:
        logits = states @ values[:-1] + values[-1]
        return float(np.mean(np.logaddexp(0, logits) - labels * logits) + penalty / 2 * values[:-1] @ values[:-1])

    from regrade.policy_training.reward_models.heads import PENALTIES

    own = np.append(heads.weight[0, 0].double().numpy(), float(heads.bias[0, 0]))
    gaps = [np.abs(minimize(objective, own, args=(each,)).x - own).max() for each in PENALTIES]
    assert min(gaps) < 0.02
    assert np.all(np.isfinite(expit(own)))


def test_examples_without_a_label_do_not_move_a_head() -> None:
    learned, checks = examples(200, 0), examples(100, 1)
    more = examples(200, 5)
    unknown = torch.full_like(more.labels, math.nan)
    unknown[:, 1] = more.labels[:, 1]  # only the second component was measured there
    both = HeadExamples(
        torch.cat([learned.activations, more.activations]), torch.cat([learned.labels, unknown]),
        [*learned.clusters, *(("more", each) for each in more.clusters)],
    )  # fmt: skip
    plain, masked = (train_heads(each, checks, members=1, seed=0) for each in (learned, both))
    states = examples(50, 9).activations
    one, other = probabilities(plain, states), probabilities(masked, states)
    assert torch.allclose(one[:, 0], other[:, 0], atol=0.02)
    assert not torch.allclose(one[:, 1], other[:, 1], atol=0.02)


def test_the_members_disagree_where_nothing_was_learned() -> None:
    """Members draw whole tasks, so they disagree more with few tasks, and far from what all of them saw."""
    few, many = (train_heads(examples(count, 0), examples(200, 1), members=8, seed=0) for count in (60, 1500))
    fresh = examples(500, 3).activations

    def disagreement(heads: HeadEnsemble, states: Tensor) -> Tensor:
        return heads.logits(states)[:, :, 0].std(0)

    assert disagreement(few, fresh).mean() > 2 * disagreement(many, fresh).mean()
    assert disagreement(few, fresh * 4).mean() > disagreement(few, fresh).mean()


def test_the_seed_draws_the_members_and_files_keep_them(tmp_path: Path) -> None:
    learned, checks = examples(100, 0), examples(60, 1)
    one, same, other = (train_heads(learned, checks, members=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.weight, same.weight)
    assert torch.equal(one.weight[0], other.weight[0]), "the first member learns from every example once"
    assert not torch.equal(one.weight[1], other.weight[1])
    one.save(tmp_path)
    states = examples(5, 2).activations
    assert torch.equal(HeadEnsemble.load(tmp_path).logits(states), one.logits(states))


@pytest.mark.slow
def test_many_heads_are_trained_in_seconds() -> None:
    """As many examples as fit a test, of the width of the embedded model's activations."""
    began = time.process_time()
    train_heads(examples(3000, 0, width=1152), examples(500, 1, width=1152), members=5, seed=0)
    assert time.process_time() - began < 60
