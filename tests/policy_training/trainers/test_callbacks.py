"""What the trainers share: what is left frozen, and quiet on the terminal."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import datasets
import pytest
import torch
from transformers.utils import logging

from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers.callbacks import Budget, freeze_bottom
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import train_sft


@pytest.mark.parametrize(("share", "frozen_layers"), [(0.0, []), (0.5, [0]), (1.0, [0, 1])])
def test_the_bottom_and_the_embeddings_do_not_learn(
    language_model: LanguageModel, tmp_path: Path, share: float, frozen_layers: list[int]
) -> None:
    before = copy.deepcopy(language_model.model.state_dict())
    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
    settings = SFTSettings(batch_size=4, frozen=share)
    train_sft(language_model, examples, settings, out=tmp_path, budget=Budget(steps=2), seed=0)
    after = language_model.model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    tied = {"model.embed_tokens.weight", "lm_head.weight"} & before.keys()
    frozen = {name for name in before if name.startswith(tuple(f"model.layers.{k}." for k in frozen_layers))}
    assert same == tied | frozen


def test_what_was_frozen_learns_again_when_less_is_frozen(language_model: LanguageModel) -> None:
    freeze_bottom(language_model.model, 1.0)
    freeze_bottom(language_model.model, 0.0)
    frozen = [name for name, weight in language_model.model.named_parameters() if not weight.requires_grad]
    assert frozen == ["model.embed_tokens.weight"]


def test_other_libraries_are_quiet_for_as_long_as_asked() -> None:
    before = (logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet_libraries():
            assert not logging.is_progress_bar_enabled()
            assert not datasets.is_progress_bar_enabled()
            warnings.warn("old", FutureWarning, stacklevel=1)
            warnings.warn("wrong", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["wrong"]
    assert (logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()) == before
