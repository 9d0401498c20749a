"""The stability guard: induced failures in real trainings of a tiny model, and none in healthy ones."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from regrade.datasets.errors import UnstableTrainingError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers import stability
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.online import train_online
from regrade.policy_training.trainers.settings import OnlineSettings, SFTSettings, StabilitySettings
from regrade.policy_training.trainers.sft import answer_quality, demonstrations, train_sft
from regrade.policy_training.trainers.stability import StabilityGuard


def weights_of(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in language_model.model.named_parameters()}


class Rows:
    """A training log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def __call__(self, step: int, _seconds: float, numbers: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **numbers})


def test_a_batch_that_is_not_finite_is_left_out(
    undecided: LanguageModel, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights after two steps are those of one, and the training goes on."""
    told: list[str] = []
    guard, rows = StabilityGuard(StabilitySettings(), tmp_path, tell=told.append), Rows()
    seen: list[dict[str, torch.Tensor]] = []
    compute = stability.GuardedSteps.training_step

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute(self, *args, **kwargs)
        seen.append(weights_of(undecided))
        if self.state.global_step == 1:
            self.step_loss = math.nan
            for weight in self.model.parameters():
                if weight.grad is not None:
                    weight.grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(stability.GuardedSteps, "training_step", poisoned)
    examples = demonstrations(tasks)
    train_sft(
        undecided, examples, SFTSettings(learning_rate=1e-3), out=tmp_path, budget=Budget(steps=4), seed=0,
        log=rows, guard=guard,
    )  # fmt: skip
    assert [(step, alarm.kind, alarm.reaction) for step, alarm in guard.alarms] == [(2, "non-finite", "skip")]
    changed = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in itertools.pairwise(seen)]
    assert changed == [True, False, True], "the second step changed nothing"
    assert all(torch.isfinite(weight).all() for weight in undecided.model.parameters())
    assert rows.rows[1]["alarms"] == 1
    assert told == [
        f"stability: step 2: the loss is not finite (nan); the step was left out (see {tmp_path}/alarms/step-2)"
    ]
    record = json.loads((tmp_path / "alarms" / "step-2" / "alarm.json").read_text())
    assert record["kind"] == "non-finite"
    assert [step["step"] for step in record["steps"]] == [1, 2]


@pytest.mark.slow
def test_a_rate_that_is_too_high_rolls_back(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    told: list[str] = []
    guard, rows = StabilityGuard(StabilitySettings(kl_every=1), tmp_path, tell=told.append), Rows()
    settings = OnlineSettings(algorithm="grpo", learning_rate=0.25, prompts_per_step=2, samples_per_prompt=12)
    before = answer_quality(undecided, demonstrations(tasks)).log_likelihood
    with pytest.raises(UnstableTrainingError, match=r"at step 9 after 3 rollbacks: the KL .* To go on, lower"):
        train_online(
            undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=16), seed=0, log=rows, guard=guard
        )
    assert [step for step, _ in guard.alarms] == [3, 5, 7, 9], "the first step after a full one is stopped"
    assert guard.rollbacks == 3
    assert "given up after 3 rollbacks, with the weights of step 0" in told[-1]
    assert answer_quality(undecided, demonstrations(tasks)).log_likelihood == before
    assert [row["rollbacks"] for row in rows.rows if "rollbacks" in row] == [1, 2, 3]
