"""In which precision a model computes: who decides it, and what rounding changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies import precision
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.precision import (
    SMALL,
    VARIABLE,
    mixed_precision,
    to_sample_from,
    uses_bfloat16,
)
from regrade.policy_training.policies.sampling import stream
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.ppo import train_ppo
from regrade.policy_training.trainers.settings import PPOSettings, SFTSettings
from regrade.policy_training.trainers.sft import answer_quality, demonstrations, train_sft
from regrade.policy_training.trainers.shared_prompts import final_states, pack, packed_log_probs

PROMPT = [2 + 7 * place % 290 for place in range(200)]
"""So long that rounded positions would be far off."""
ANSWER = [30, 31, 32, 33]
DRIFT = 0.3
"""Nats by which rounding may move the log-probability of a token of a model with large random weights."""


@pytest.fixture(params=[False, True], ids=["without", "with"])
def has_instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU without, and one with instructions for bfloat16, and no variable."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model computes in bfloat16."""
    monkeypatch.setenv(VARIABLE, "bfloat16")


def log_probs(model: Any) -> Tensor:
    with torch.no_grad():
        ((found,),), _ = packed_log_probs(model, pack([PROMPT], [ANSWER])[0])
    assert found.dtype == torch.float32
    return found


def test_the_machine_and_the_size_decide(has_instructions: bool) -> None:
    assert uses_bfloat16("cpu", SMALL) is has_instructions
    assert not uses_bfloat16("cpu", SMALL - 1)
    assert uses_bfloat16("cuda", 1)


def test_the_variable_decides_otherwise(has_instructions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    del has_instructions
    monkeypatch.setenv(VARIABLE, "bfloat16")
    assert uses_bfloat16("cpu", 1)
    monkeypatch.setenv(VARIABLE, "float32")
    assert not uses_bfloat16("cpu", SMALL)
    assert not uses_bfloat16("cuda", SMALL)
    monkeypatch.setenv(VARIABLE, "fp16")
    with pytest.raises(UserError, match="REGRADE_PRECISION is 'fp16': set it to float32 or bfloat16, or unset it"):
        uses_bfloat16("cpu")


@pytest.mark.parametrize("has_instructions", [True], indirect=True)
def test_a_small_model_stays_in_float32(language_model: LanguageModel, has_instructions: bool) -> None:
    del has_instructions
    model = language_model.model
    assert to_sample_from(model) is model
    with mixed_precision(model):
        assert model.lm_head(torch.ones(1, 32)).dtype == torch.float32


def test_a_rounded_copy_has_nearly_the_log_probs_of_the_model(
    language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model.model
    exact, weights = log_probs(model), [weight.clone() for weight in model.parameters()]
    monkeypatch.setenv(VARIABLE, "bfloat16")
    copy = to_sample_from(model)
    ((_, (answer,)),) = stream(copy, [PROMPT], [1.0], stop_ids=[], max_tokens=4, seed=0)
    monkeypatch.delenv(VARIABLE)
    ((expected,),), _ = packed_log_probs(model, pack([PROMPT], [answer.tokens])[0])
    torch.testing.assert_close(torch.tensor(answer.log_probs), expected.detach(), atol=DRIFT, rtol=0)
    assert torch.tensor(answer.log_probs).sub(expected.detach()).abs().max() > 0, "it was not rounded"

    assert {weight.dtype for weight in copy.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in copy.parameters())
    assert copy.lm_head.weight is copy.get_input_embeddings().weight, "tied as in the model"
    buffers = dict(model.named_buffers())
    assert any(name.endswith("inv_freq") for name in buffers)
    for name, buffer in copy.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=0, atol=0)
    assert all(map(torch.equal, weights, model.parameters()))
    assert torch.equal(log_probs(model), exact)


@pytest.mark.usefixtures("rounded")
def test_passes_of_training_round_products_and_no_results(language_model: LanguageModel) -> None:
    model, rows = language_model.model, pack([PROMPT], [ANSWER])[0]
    with mixed_precision(model):
        assert model.lm_head(torch.ones(1, 32)).dtype == torch.bfloat16
    found = log_probs(model)
    assert final_states(model, rows).dtype == torch.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "float32")
        exact = log_probs(model)
    torch.testing.assert_close(found, exact, atol=DRIFT, rtol=0)
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("variable", ["float32", "bfloat16"])
def test_a_model_with_weights_in_bfloat16_computes_in_them(
    language_model: LanguageModel, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = log_probs(language_model.model)
    monkeypatch.setenv(VARIABLE, variable)
    model = to_sample_from(language_model.model) if variable == "bfloat16" else language_model.model.bfloat16()
    assert to_sample_from(model) is model
    torch.testing.assert_close(log_probs(model), exact, atol=20 * DRIFT, rtol=0)
    assert final_states(model, pack([PROMPT], [ANSWER])[0]).dtype == torch.float32


@pytest.mark.usefixtures("rounded")
def test_sft_in_mixed_precision_learns_weights_in_float32(
    language_model: LanguageModel, tasks: list[Task], tmp_path: Path
) -> None:
    lessons = demonstrations(tasks)
    before = answer_quality(language_model, lessons).log_likelihood
    settings = SFTSettings(learning_rate=1e-2, batch_size=2, frozen=0.5)
    train_sft(language_model, lessons, settings, out=tmp_path, budget=Budget(steps=12), seed=0)
    assert answer_quality(language_model, lessons).log_likelihood > 0.6 * before
    assert {weight.dtype for weight in language_model.model.parameters()} == {torch.float32}


@pytest.mark.usefixtures("rounded")
def test_ppo_in_mixed_precision_moves_weights_in_float32(
    undecided: LanguageModel, make_task: Callable[[str], Task], scorer: Scorer, tmp_path: Path
) -> None:
    """The sampler's copy, the reference, and the value head, which reads hidden states in float32."""
    before = [weight.clone() for weight in undecided.model.parameters()]
    rows: list[dict[str, float]] = []
    train_ppo(
        undecided, [make_task("second")], scorer, PPOSettings(epochs=1, samples_per_prompt=6), out=tmp_path,
        budget=Budget(steps=2), seed=0, log=lambda _step, _seconds, numbers: rows.append(dict(numbers)),
    )  # fmt: skip
    assert all(torch.isfinite(torch.tensor(rows[0][name])) for name in ("loss", "value/loss"))
    after = list(undecided.model.parameters())
    assert {weight.dtype for weight in after} == {torch.float32}
    assert not all(map(torch.equal, before, after))
