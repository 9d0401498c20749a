"""What leaves frozen layers may be kept: training goes the same way, and models that do more are left alone."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers import sft
from regrade.policy_training.trainers.callbacks import Budget, freeze_bottom, layer_stack
from regrade.policy_training.trainers.frozen_activations import cached_frozen_activations
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import train_sft

EXAMPLES = [Transcript.of_answer("Prompt" * (k + 1) + ":\n", f"{k} return x") for k in range(6)]


def batch(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    rows = [torch.tensor(language_model.encode(example.prompt)) for example in EXAMPLES]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.tensor([[1] * len(row) + [0] * (padded.shape[1] - len(row)) for row in rows])
    return {"input_ids": padded, "attention_mask": mask}


class RowsSeen:
    """How many rows went through the lowest layer."""

    def __init__(self, model: Any) -> None:
        self.rows = 0
        layer_stack(model)[1][0].register_forward_hook(self.count)

    def count(self, _module: Any, args: tuple[Any, ...], _output: Any) -> None:
        self.rows += len(args[0])


def last_states(language_model: LanguageModel, **inputs: torch.Tensor) -> torch.Tensor:
    """Hidden states at the places that hold tokens, as [tokens, width]."""
    states = language_model.model.base_model(**inputs, use_cache=False).last_hidden_state
    return states[inputs["attention_mask"].bool()]


def test_training_goes_the_same_way_and_runs_frozen_layers_once_an_example(
    language_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {name: weight.clone() for name, weight in language_model.model.state_dict().items()}
    ends, rows = [], []
    for keep in (True, False):
        if not keep:
            monkeypatch.setattr(sft, "cached_frozen_activations", lambda _model: nullcontext())
        language_model.model.load_state_dict(start)
        seen = RowsSeen(language_model.model)
        settings = SFTSettings(learning_rate=1e-3, batch_size=2, frozen=0.5)
        train_sft(language_model, EXAMPLES, settings, out=tmp_path, budget=Budget(steps=12), seed=0)
        ends.append({name: weight.clone() for name, weight in language_model.model.state_dict().items()})
        rows.append(seen.rows)
    assert any(not torch.equal(ends[0][name], start[name]) for name in start)
    for name in start:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-3, atol=1e-5)
    assert rows == [len(EXAMPLES) + 2, 24]  # two rows more find out that it is possible


@pytest.mark.parametrize("limit", [0, 4_000, 1 << 30])
def test_states_are_the_models_own_whatever_is_kept(language_model: LanguageModel, limit: int) -> None:
    freeze_bottom(language_model.model, 0.5)
    inputs = batch(language_model)
    expected = last_states(language_model, **inputs)
    with cached_frozen_activations(language_model.model, limit) as possible:
        assert possible
        language_model.model.train()
        for order in ([0, 1, 2, 3, 4, 5], [5, 1, 4, 0, 3, 2]):
            shuffled = {name: values[order] for name, values in inputs.items()}
            found = language_model.model.base_model(**shuffled, use_cache=False).last_hidden_state
            places = [(order.index(row), row) for row in range(6)]
            found = torch.cat([found[place][inputs["attention_mask"][row].bool()] for place, row in places])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_measuring_and_odd_batches_run_the_whole_model(language_model: LanguageModel) -> None:
    freeze_bottom(language_model.model, 0.5)
    inputs = batch(language_model)
    seen = RowsSeen(language_model.model)
    with cached_frozen_activations(language_model.model):
        seen.rows = 0
        language_model.model.eval()
        last_states(language_model, **inputs)
        assert seen.rows == 6
        language_model.model.train()
        positions = torch.arange(inputs["input_ids"].shape[1])[None].expand(6, -1)
        left = {name: values.flip(1) for name, values in inputs.items()}
        for _ in range(2):
            last_states(language_model, **inputs, position_ids=positions)
            last_states(language_model, **left)
        assert seen.rows == 5 * 6
        for _ in range(2):
            last_states(language_model, **inputs)
        assert seen.rows == 6 * 6  # an ordinary batch, the second time from memory
    last_states(language_model, **inputs)
    assert seen.rows == 7 * 6


def test_the_layers_are_whole_again_after_an_error(language_model: LanguageModel) -> None:
    freeze_bottom(language_model.model, 0.5)
    name, layers = layer_stack(language_model.model)
    language_model.model.train()
    with cached_frozen_activations(language_model.model):
        hook = layers[-1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            last_states(language_model, **batch(language_model))
        hook.remove()
    assert list(language_model.model.base_model.get_submodule(name)) == list(layers)


def test_models_that_add_positions_to_embeddings_are_left_alone() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)).train()
    freeze_bottom(model, 0.5)
    with cached_frozen_activations(model) as possible:
        assert not possible
        assert len(model.transformer.h) == 2


@pytest.mark.parametrize("frozen", [0.0, 1.0])
def test_without_both_kinds_of_layers_there_is_nothing_to_keep(language_model: LanguageModel, frozen: float) -> None:
    freeze_bottom(language_model.model, frozen)
    with cached_frozen_activations(language_model.model) as possible:
        assert not possible
