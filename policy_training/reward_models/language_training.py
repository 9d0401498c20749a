"""Trains a language reward model on the attempts of runs, tests it on held-out repositories, and writes its card."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from regrade.policy_training.reward_models.activation_store import Progress
from regrade.policy_training.reward_models.attempt_splits import AttemptSplit
from regrade.policy_training.reward_models.loading import CARD
from regrade.policy_training.reward_models.model_card import card, write_card
from regrade.policy_training.reward_models.patch_model import load_patch_model
from regrade.policy_training.reward_models.quality import Quality, measure_quality
from regrade.policy_training.reward_models.training import train_reward_model
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import RewardModelSettings


def train_and_test_language(
    split: AttemptSplit,
    out: Path,
    base: str,
    settings: RewardModelSettings,
    *,
    budget: Budget,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quality | None:
    """Train on the one side of a split, test on the other, and write the model and its card.

    Activations are stored beside the model, in OUT-activations, from which a killed training goes on.

    Args:
        base: see `load_model`.

    Returns:
        the quality on the test attempts; None: the split has none.

    Raises:
        UserError: see `train_reward_model`.
    """
    store = out.with_name(f"{out.name}-activations")
    figures = train_reward_model(
        base, split.training, settings, out=out, budget=budget, seed=seed, store=store, progress=progress
    )
    quality = measure_quality(load_patch_model(out), split.test) if split.test else None
    about = {
        "kind": "language: heads on the activations of a language model",
        "base": base,
        "objective": settings.objective,
        "input": f"instruction, diff and dependent modules, at most {settings.input_tokens} tokens",
        "ensemble": f"{settings.members} members, each on tasks drawn with replacement",
        "calibration": f"temperature scaling on {figures['answers']:.0f} attempts at {figures['tasks']:.0f} tasks",
        "seed": str(seed),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("regrade", "torch", "transformers", "trl")),
    }
    write_card(out / CARD, card(out.name, about, split.training, quality))
    return quality
