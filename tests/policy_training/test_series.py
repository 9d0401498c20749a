"""Checkpoints kept along a real, tiny training, and evaluated as a series."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regrade.cli.main import app
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import Judge, Sweep, enter
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.policies.models import load_model
from regrade.policy_training.policy_files import checkpoints_in, entrants_of_checkpoints
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import RewardModelSettings, SFTSettings
from regrade.policy_training.training_plan import TrainingPlan
from regrade.reports.results import load_results
from regrade.reports.summary import summary
from regrade.rewards import tests as passing


@pytest.mark.slow
def test_breakage_is_followed_along_a_training(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    settings = SFTSettings(learning_rate=1e-2)
    plan = TrainingPlan(settings=settings, model=str(undecided_folder), budget=Budget(steps=40), save_every=20)
    last = train(plan, tasks, scorer, tmp_path / "training")
    folder = tmp_path / "training" / "checkpoints"
    assert checkpoints_in(folder) == [("sft", 20, folder / "sft-20"), ("sft", 40, folder / "sft-40")]
    weights = {path.name: load_model(str(path), device="cpu").model.state_dict() for path in folder.iterdir()}
    assert all(weight.equal(weights[last.name][name]) for name, weight in weights["sft-40"].items())
    assert not all(weight.equal(weights[last.name][name]) for name, weight in weights["sft-20"].items())

    run = Run(tmp_path / "run")
    for entrant in entrants_of_checkpoints(folder):
        enter(run, entrant, Sweep(), (), tasks, Judge(scorer=scorer, reward=passing))
    found = summary(run.folder)["series"]
    assert [(point["step"], point["policy"]) for point in found["sft"]] == [(20, "sft@20"), (40, "sft@40")]
    assert found["sft"][1]["fix_and_clean"]["value"] == 1.0, "it has learned both answers"
    assert all(0 <= point["breakage_incidence"]["value"] <= 1 for point in found["sft"])
    assert [policy.name for policy in load_results(run.folder).series["sft"]] == ["sft@20", "sft@40"]
    shown = CliRunner().invoke(app, ["report", str(run.folder)])
    assert shown.exit_code == 0
    assert json.loads((run.folder / "summary.json").read_text())["series"] == found


def test_a_reward_model_has_no_series(tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    plan = TrainingPlan(settings=RewardModelSettings(), model="m", budget=Budget(steps=1), save_every=1)
    with pytest.raises(UserError, match="save_every="):
        train(plan, tasks, scorer, tmp_path)
