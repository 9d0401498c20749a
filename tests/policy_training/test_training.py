"""`regrade train`: every algorithm, from a saved model to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies.models import load_model
from regrade.policy_training.reward_models.reward_model import RewardModel
from regrade.policy_training.train import Algorithm, TrainingPlan, train
from regrade.policy_training.trainers.callbacks import Budget


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_every_algorithm_leaves_a_checkpoint_and_a_log(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: Algorithm
) -> None:
    every = None if algorithm == "reward-model" else 1
    plan = TrainingPlan(algorithm, str(undecided_folder), Budget(steps=2), samples=6, save_every=every)
    seen: list[tuple[int, int]] = []
    checkpoint = train(plan, tasks, scorer, tmp_path / "run", progress=lambda *counts: seen.append(counts))
    if algorithm == "reward-model":
        assert len(RewardModel.load(checkpoint).score(["Fix:\n"], ["1 pass"])) == 1
    else:
        before, after = (
            load_model(str(folder), device="cpu").model.state_dict() for folder in (undecided_folder, checkpoint)
        )
        assert any(not weight.equal(after[name]) for name, weight in before.items())
        kept = checkpoint.parent.glob(f"{algorithm}-*")
        assert sorted(path.name for path in kept) == [f"{algorithm}-1", f"{algorithm}-2"]
    lines = (tmp_path / "run" / "training" / f"{algorithm}.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)] == [1, 2]
    assert seen[-1] == (2, 2)


def test_what_cannot_be_trained_is_a_user_error(tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training algorithm 'magic'; choose from: sft"):
        train(TrainingPlan("magic", "m", Budget(steps=1)), tasks, scorer, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no tasks to train on"):
        train(TrainingPlan("ppo", "m", Budget(steps=1)), [], scorer, tmp_path)
