"""A cascade in `train`: what it logs and stores, and which plans it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.cascade_memory import CascadeMemory
from regrade.policy_training.trainers.resuming import Remembering
from regrade.policy_training.trainers.settings import OnlineSettings, SFTSettings
from regrade.policy_training.training_plan import TrainingPlan


def test_a_training_logs_its_cascade_and_stores_what_was_executed(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    plan = TrainingPlan(
        settings=OnlineSettings(algorithm="grpo", samples_per_prompt=6), model=str(undecided_folder),
        budget=Budget(steps=1), cascade=CascadeSettings(charge=1.2, severity=0.0),
    )  # fmt: skip
    for changed, message in (
        (replace(plan, settings=SFTSettings()), "sft pays no attempts of its own policy: leave out cascade"),
        (replace(plan, cascade=CascadeSettings()), "with charge 0 no stage could stop an attempt"),
        (replace(plan, cascade=CascadeSettings(severity=0.1, model=tmp_path)), "holds no reward model"),
    ):
        with pytest.raises(UserError, match=message):
            train(changed, tasks, scorer, tmp_path / "refused")
    train(plan, tasks, scorer, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "training" / "grpo.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row.get("step") == 1 and "cascade/tests_run" in row]
    # All tests are in the file of the FAIL_TO_PASS tests, so that no stage comes before the whole run.
    assert row["cascade/suites_run"] > 0 == row["cascade/suites_spared"] == row["cascade/tests_spared"]
    assert row["cascade/tests_run"] == 4 * row["cascade/suites_run"]
    stored = [json.loads(line) for line in (tmp_path / "run" / "attempts" / "grpo.jsonl").read_text().splitlines()]
    assert {attempt["task_id"] for attempt in stored} <= {"second", "add"}
    assert any(attempt["fixes"] is not None for attempt in stored)
    assert len({(attempt["task_id"], attempt["patch"]) for attempt in stored}) == len(stored)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["configuration"]["cascade"]["charge"] == 1.2


def test_a_training_that_goes_on_knows_its_audits() -> None:
    memory = CascadeMemory(Cascade(CascadeSettings()))
    assert isinstance(memory, Remembering)
    memory.cascade.take_numbers()
    again = CascadeMemory(Cascade(CascadeSettings()))
    again.load_state_dict(memory.state_dict())
    assert again.state_dict() == memory.state_dict() != CascadeMemory(Cascade(CascadeSettings())).state_dict()
