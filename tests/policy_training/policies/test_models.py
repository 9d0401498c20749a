"""Models that cannot be trained are refused before their weights are read, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies import models
from regrade.policy_training.policies.models import LanguageModel, check_memory, load_model
from regrade.policy_training.policies.writing_errors import os_errors
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


LAYER = "model.layers.0.mlp.down_proj.weight"
DAMAGED: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (
        lambda weights: weights.pop(LAYER),
        f"its files lack 1 weight of the model that config.json describes, such as {LAYER}: save",
    ),
    "other shape": (
        lambda weights: weights.update({LAYER: weights[LAYER][:16].clone()}),
        f"its files have in another shape 1 weight of the model that config.json describes, such as {LAYER}",
    ),
    "NaN": (lambda weights: weights[LAYER].view(-1)[:1].fill_(torch.nan), f"the weight {LAYER} is not finite"),
    "infinite": (lambda weights: weights[LAYER].view(-1)[:1].fill_(-torch.inf), f"the weight {LAYER} is not finite"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_weights_are_refused(
    undecided_folder: Path, tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """transformers would draw missing ones at random, and answers of NaN are all the same token."""
    damage, said = DAMAGED[how]
    folder = Path(copytree(undecided_folder, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        load_model(str(folder), to_train=True)
    assert said in str(caught.value)
    assert capfd.readouterr().err == "", "one line, and no table of transformers"


def test_unused_weights_are_told(undecided_folder: Path, tmp_path: Path) -> None:
    folder = Path(copytree(undecided_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.warns(
        UserWarning, match=r"9 weights of its files, such as model\.layers\.1\.[\w.]+, belong to no layer"
    ):
        load_model(str(folder))


def test_a_tokenizer_without_an_end_is_refused(undecided_folder: Path, tmp_path: Path) -> None:
    folder = Path(copytree(undecided_folder, tmp_path / "model"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None}))
    with pytest.raises(UserError, match="has no token that ends a text"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("text", "said"), [("{", "adapter_config.json"), ("{}", "names no base_model"), ("[1]", "names no base_model")]
)
def test_damaged_adapters_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_model(str(tmp_path))


def test_a_full_disk_that_the_tokenizer_notices_is_an_error_of_the_system(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space left on device"), os_errors(tmp_path):
        language_model.tokenizer.backend_tokenizer.save("/dev/full")
