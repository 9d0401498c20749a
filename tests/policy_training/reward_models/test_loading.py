"""Folders of reward models: what is no model, a damaged one, another base or version is one clear line each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.reward_models import language_reward_model
from regrade.policy_training.reward_models.heads import FILE
from regrade.policy_training.reward_models.loading import load_reward_model, write_record
from regrade.policy_training.reward_models.trunks import Trunk
from regrade.rewards import learned
from regrade.rewards.reward_model_folders import RECORD, read_record


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "judge"))


def changed(folder: Path, **details: Any) -> None:
    """The folder with other details, and a digest that fits them."""
    write_record(folder, read_record(folder).kind, {**read_record(folder).details, **details})


def record_with(**values: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps({**json.loads((folder / RECORD).read_text()), **values}))

    return write


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a folder of something else": (lambda folder: (folder / RECORD).unlink(), "holds no reward model"),
    "another version": (record_with(format=2), "has format 2, and this version of regrade reads 1"),
    "no JSON": (lambda folder: (folder / RECORD).write_text("{"), "is damaged"),
    "no digest": (lambda folder: (folder / RECORD).write_text('{"format": 1, "kind": "language"}'), "is damaged"),
    "a number in the place of a text": (record_with(digest=7), "is damaged"),
    "an unknown kind": (lambda folder: write_record(folder, "oracle", {}), "is of kind 'oracle', not one of language"),
    "other weights": (lambda folder: (folder / FILE).write_bytes(b"0" * 100), "are not those that were trained"),
    "a missing file": (lambda folder: (folder / FILE).unlink(), "are not those that were trained"),
    "an edited record": (
        lambda folder: record_with(details={**read_record(folder).details, "tokens": 64})(folder),
        "are not those that were trained",
    ),
    "inputs of another version": (
        lambda folder: changed(folder, input_format=0), "reads inputs of version 0, and this version of regrade"
    ),
    "another version of its base": (
        lambda folder: changed(folder, trunk_digest="0" * 64), "was trained on another version of"
    ),
    "a missing base": (
        lambda folder: changed(folder, with_trunk=False, base="./gone"), "needs its base: model './gone' cannot be loaded"
    ),
    "a calibration without a bin": (
        lambda folder: changed(folder, calibrations={"clean": {"temperature": 1, "edges": [], "means": []}}), "is damaged"
    ),
    "an unknown component": (lambda folder: changed(folder, calibrations={"beauty": {}}), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_one_clear_line(folder: Path, what: str) -> None:
    damage, message = BAD[what]
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_reward_model(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("what", ["a folder of something else", "another version", "no JSON"])
def test_what_a_record_shows_is_told_when_the_reward_is_composed(folder: Path, what: str) -> None:
    damage, message = BAD[what]
    damage(folder)
    with pytest.raises(UserError, match=message):
        learned(folder)


def test_a_base_that_changed_is_refused_and_the_same_one_is_shared(
    model_folder: Path, base: LanguageModel, tmp_path: Path
) -> None:
    """A model on a frozen base that has a name stores the heads alone."""
    model = load_reward_model(model_folder)
    assert isinstance(model, language_reward_model.LanguageRewardModel)
    own = base.save(tmp_path / "base")
    model.trunk = Trunk.named(str(own))
    model.save(tmp_path / "small", {}, with_trunk=False)
    assert not (tmp_path / "small" / "trunk").exists()
    assert load_reward_model(tmp_path / "small").identity
    base.model.model.norm.weight.data += 0.1
    base.save(own)
    with pytest.raises(UserError, match="another version of"):
        load_reward_model(tmp_path / "small")


def test_the_identity_is_that_of_the_files(model_folder: Path, folder: Path) -> None:
    assert load_reward_model(folder).identity == load_reward_model(model_folder).identity
    changed(folder, seed=99)
    assert load_reward_model(folder).identity != load_reward_model(model_folder).identity
