"""Models that cannot be trained are refused before their weights are read, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies import models
from regrade.policy_training.policies.models import LanguageModel, check_memory, load_model
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.training_plan import TrainingPlan


@pytest.fixture(scope="module")
def folder(undecided_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without its weights."""
    copied = tmp_path_factory.mktemp("models") / "model"
    copytree(undecided_folder, copied)
    (copied / "model.safetensors").unlink()
    return copied


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(UserError, match="its tokenizer has 360 tokens, and its embeddings 100 rows") as caught:
        load_model(str(other))
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(frozen: float) -> TrainingPlan:
        return TrainingPlan(settings=SFTSettings(frozen=frozen), model=str(folder), budget=Budget(steps=1))

    monkeypatch.setattr(models, "free_memory", lambda: ("this machine", 2e5))
    with pytest.raises(UserError, match=r"needs at least 0.0 GB to train \(0 million weights, 100% of") as caught:
        train(plan(0.0), tasks, scorer, tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be loaded"):  # its layers do not learn, so it fits
        train(plan(1.0), tasks, scorer, tmp_path / "frozen")


def test_what_a_training_needs_is_a_lower_bound(
    undecided: LanguageModel, undecided_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = undecided.model
    weights = model.num_parameters()
    learned = weights - model.get_input_embeddings().weight.numel()
    for free, fits in ((4 * weights + 12 * learned, True), (4 * weights + 12 * learned - 1, False)):
        monkeypatch.setattr(models, "free_memory", lambda free=free: ("this machine", float(free)))
        if fits:
            check_memory(str(undecided_folder), 1.0)
        else:
            with pytest.raises(UserError, match="train adapters"):
                check_memory(str(undecided_folder), 1.0)
    monkeypatch.undo()
    _, free = models.free_memory()
    assert 1e7 < free < 1e14
