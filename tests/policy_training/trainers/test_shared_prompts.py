"""Running each prompt once gives what running every row gives: log-probabilities, states, gradients."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers.shared_prompts import (
    final_states,
    pack,
    packed_log_probs,
    prediction_states,
    unflatten,
)

END = 1


def some_tokens(count: int, seed: int) -> list[int]:
    """Token ids that are neither padding nor the end."""
    return [random.Random(f"{seed}-{place}").randrange(2, 300) for place in range(count)]


PROMPTS = [some_tokens(length, seed) for seed, length in enumerate((5, 12, 3))]
# (prompt, completion): unequal groups, identical completions, one that is another's beginning
ROWS = [
    (0, [7, 8, 9]), (1, [4, END]), (0, [7, 8, 9]), (0, [7, 8]), (2, [30, 31, 32, 33, END]), (1, [END]), (1, [4, END]),
]  # fmt: skip


def rows() -> tuple[list[list[int]], list[list[int]]]:
    return [PROMPTS[prompt] for prompt, _ in ROWS], [completion for _, completion in ROWS]


def separate(model: torch.nn.Module, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def test_packing_merges_equal_completions_and_remembers_places() -> None:
    prompts, completions = rows()
    packed, places = pack(prompts, completions)
    assert [len(row.completions) for row in packed] == [2, 2, 1]
    for (row, column), prompt, completion in zip(places, prompts, completions, strict=True):
        assert list(packed[row].prompt) == prompt
        assert list(packed[row].completions[column]) == completion


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_packed_log_probs_and_gradients_are_those_of_separate_rows(
    language_model: LanguageModel, temperature: float
) -> None:
    model = language_model.model
    prompts, completions = rows()
    weights = [torch.randn(len(completion), generator=torch.Generator().manual_seed(9)) for completion in completions]
    packed, places = pack(prompts, completions)
    found, _ = packed_log_probs(model, packed, temperature)
    expected = [
        separate(model, prompt, completion, temperature)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    for (row, column), reference in zip(places, expected, strict=True):
        torch.testing.assert_close(found[row][column], reference, atol=1e-5, rtol=1e-5)

    def gradients(log_probs: list[Tensor]) -> list[Tensor]:
        loss = torch.stack([(weight * piece).sum() for weight, piece in zip(weights, log_probs, strict=True)]).sum()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    ours = gradients([found[row][column] for row, column in places])
    for mine, reference in zip(ours, gradients(expected), strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-3)


ACTIONS = [[True, True, False], [False, True], [False, False, True], [True, False], [True, True, False, False, True],
           [True], [False, True]]  # fmt: skip
"""Equal completions with other masks are not merged."""


@pytest.mark.parametrize("longest_row", [1000, 10])
def test_observations_are_read_and_have_no_log_probs(language_model: LanguageModel, longest_row: int) -> None:
    """Also if a group is spread over several rows: values and gradients are those of separate rows."""
    model = language_model.model
    prompts, completions = rows()
    packed, places = pack(prompts, completions, ACTIONS, longest_row=longest_row)
    assert sum(len(row.completions) for row in packed) == 6
    assert len(packed) == (3 if longest_row == 1000 else 5)
    assert all(len(row.completions) == 1 or row.length <= longest_row for row in packed)
    found, entropies = packed_log_probs(model, packed, 0.7, entropy=True)
    expected = [
        separate(model, prompt, completion, 0.7)[torch.tensor(is_action)]
        for prompt, completion, is_action in zip(prompts, completions, ACTIONS, strict=True)
    ]
    assert entropies is not None
    for (row, column), reference in zip(places, expected, strict=True):
        torch.testing.assert_close(found[row][column], reference, atol=1e-5, rtol=1e-5)
        assert entropies[row][column].shape == reference.shape
    ours = torch.cat([found[row][column] for row, column in places]).square().sum()
    weights = list(model.parameters())
    theirs = torch.autograd.grad(torch.cat(expected).square().sum(), weights)
    for mine, reference in zip(torch.autograd.grad(ours, weights), theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-3, rtol=1e-3)


def test_entropies_are_those_of_the_models_distribution(language_model: LanguageModel) -> None:
    packed, _ = pack([PROMPTS[0]], [[7, 8, 9]])
    _, entropies = packed_log_probs(language_model.model, packed, 0.8, entropy=True)
    logits = language_model.model(torch.tensor([[*PROMPTS[0], 7, 8, 9]])).logits[0, len(PROMPTS[0]) - 1 : -1] / 0.8
    assert entropies is not None
    torch.testing.assert_close(entropies[0][0], torch.distributions.Categorical(logits=logits).entropy())


def test_states_are_the_models_own(language_model: LanguageModel) -> None:
    prompts, completions = rows()
    packed, places = pack(prompts, completions)
    base = language_model.model.base_model
    states = prediction_states(language_model.model, packed)
    before = [unflatten(states[:, axis], packed) for axis in range(states.shape[1])]
    last = iter(final_states(language_model.model, packed))
    final = [[next(last) for _ in row.completions] for row in packed]
    for (row, column), prompt, completion in zip(places, prompts, completions, strict=True):
        alone = base(torch.tensor([prompt + completion])).last_hidden_state[0]
        mine = torch.stack([axis[row][column] for axis in before], 1)
        torch.testing.assert_close(mine, alone[len(prompt) - 1 : -1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(final[row][column], alone[-1], atol=1e-5, rtol=1e-5)


def test_the_final_state_of_an_empty_completion_is_the_prompts(language_model: LanguageModel) -> None:
    packed, _ = pack([PROMPTS[0], PROMPTS[0]], [[], [7]])
    alone = language_model.model.base_model(torch.tensor([PROMPTS[0]])).last_hidden_state[0, -1]
    torch.testing.assert_close(final_states(language_model.model, packed)[0], alone, atol=1e-5, rtol=1e-5)
