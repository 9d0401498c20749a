"""Does PPO stay at an optimum that it has found? On the task of `test_known_optimum.py`, where it is exact.

    python benchmarks/ppo_rates.py                 # some 15 minutes on one core
    python benchmarks/ppo_rates.py --seeds 2

Each line is a setting, each number a run of another seed: the expected reward less the price of the KL divergence from
the initial policy, by the greatest possible one, after 60 and after 120 steps. The learning rate is constant, or falls
linearly to 0 at the last step, as it does in `train_ppo`. The mean of the advantages is 0; they keep their scale, as by
default, or are scaled to a standard deviation of 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch as patched

import torch
from _latest import record

sys.path.append(str(Path(__file__).resolve().parents[1]))

from regrade.policy_training.trainers import ppo
from regrade.policy_training.trainers.settings import PPOSettings
from tests.policy_training.trainers import test_known_optimum as toy

CONSTANT: dict[str, Any] = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}
LINEAR: dict[str, Any] = {"lr_scheduler_type": "linear", "warmup_steps": 2}


WAYS: list[tuple[str, dict[str, Any], bool, int, float]] = [
    ("constant rate, scaled", CONSTANT, True, 2, toy.BETA),
    ("constant rate", CONSTANT, False, 2, toy.BETA),
    ("falling rate, scaled", LINEAR, True, 2, toy.BETA),
    ("falling rate", LINEAR, False, 2, toy.BETA),
    ("falling rate, 4 epochs", LINEAR, False, 4, toy.BETA),
    ("constant rate, scaled, no price", CONSTANT, True, 2, 0.0),
    ("falling rate, no price", LINEAR, False, 2, 0.0),
]
"""Name, schedule, are advantages scaled to standard deviation 1, epochs, and the price of KL."""


def share_of_optimum(
    schedule: dict[str, Any], is_scaled: bool, epochs: int, price: float, *, seed: int, steps: int
) -> float:
    language_model = toy.two_token_model()
    reference = {prompt: toy.log_probs(language_model.model, prompt) for prompt in toy.PROMPTS}
    settings = PPOSettings(
        learning_rate=1e-2, value_learning_rate=2e-2, kl_coef=price, epochs=epochs, samples_per_prompt=32,
        normalize_advantages=is_scaled,
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="regrade-bench-") as scratch,
        patched.object(ppo, "rate_schedule", lambda _steps: schedule),
    ):
        toy.train(language_model, settings, steps, Path(scratch), seed)
    if price:
        return toy.regularized(language_model.model, reference) / toy.best_regularized(reference)
    return toy.expected_reward(language_model.model) / toy.OPTIMUM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", help="ways whose names contain this text")
    parser.add_argument("--dry", action="store_true", help="do not record the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for name, *way in (each for each in WAYS if (options.only or "") in each[0]):
        for steps in (60, 120):
            found = [share_of_optimum(*way, seed=seed, steps=steps) for seed in range(options.seeds)]
            print(f"{name:34} {steps:4} steps: " + " ".join(f"{each:6.3f}" for each in found), flush=True)
            figures[f"{name}, {steps} steps"] = [round(each, 4) for each in found]
    if not options.dry and options.only is None:
        record("ppo_rates", figures)


if __name__ == "__main__":
    main()
