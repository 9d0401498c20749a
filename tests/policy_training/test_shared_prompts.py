"""Running each prompt once gives what running every row gives: tokens, log-probabilities, gradients."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from regrade.policy_training.models import LanguageModel
from regrade.policy_training.shared_prompts import (
    final_states,
    pack,
    packed_log_probs,
    prediction_states,
    sample,
    unflatten,
)

END = 1


def some_tokens(count: int, seed: int) -> list[int]:
    """Token ids that are neither padding nor the end."""
    return [random.Random(f"{seed}-{place}").randrange(2, 300) for place in range(count)]


def generate(model: Any, prompt: list[int], stops: list[int]) -> list[int]:
    """The greedy answer that transformers gives to one prompt alone."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=stops, pad_token_id=0
    )
    return out[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


def test_greedy_sampling_is_generate_of_each_prompt_alone(language_model: LanguageModel) -> None:
    model = language_model.model
    prompts = [some_tokens(length, seed) for seed, length in enumerate((3, 11, 7, 1, 19))]
    # tokens that are known to come up end an answer too, so that rows finish at different steps and leave the batch
    stops = [END, *(generate(model, prompt, [END])[step] for step, prompt in zip((1, 4, 8), prompts, strict=False))]
    got = sample(model, prompts, [0.0, 0.0], stop_ids=stops, max_tokens=12, generator=torch.Generator())
    expected = [generate(model, prompt, stops) for prompt in prompts]
    assert got == [[answer, answer] for answer in expected]
    assert len({len(answer) for answer in expected}) > 2


def test_greedy_rows_do_not_depend_on_their_neighbours_in_a_sweep(language_model: LanguageModel) -> None:
    prompts = [some_tokens(length, seed) for seed, length in enumerate((4, 9))]
    model = language_model.model
    swept = sample(model, prompts, [0.0, 1.0, 2.0], stop_ids=[END], max_tokens=10, generator=torch.Generator())
    alone = sample(model, prompts, [0.0], stop_ids=[END], max_tokens=10, generator=torch.Generator())
    assert [answers[0] for answers in swept] == [answers[0] for answers in alone]


def test_sampling_follows_the_models_distribution(language_model: LanguageModel) -> None:
    """First tokens of 4,000 draws at temperature 0.7, against the model's own probabilities."""
    prompt = some_tokens(6, 3)
    draws, group = 4000, 200
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(language_model.model.config.vocab_size)
    for _ in range(draws // group):
        found = sample(language_model.model, [prompt], [0.7] * group, stop_ids=[END], max_tokens=1, generator=generator)
        counts += torch.bincount(torch.tensor([answer[0] for answer in found[0]]), minlength=len(counts))
    with torch.no_grad():
        logits = language_model.model(torch.tensor([prompt])).logits[0, -1]
    expected = (logits / 0.7).softmax(-1)
    # total variation distance of an empirical distribution: about sum sqrt(p (1 - p) / (2 pi n))
    noise = float((expected * (1 - expected) / (2 * torch.pi * draws)).sqrt().sum())
    assert float((counts / draws - expected).abs().sum()) / 2 < 1.5 * noise


def test_the_same_generator_gives_the_same_answers(language_model: LanguageModel) -> None:
    prompts = [some_tokens(5, 1), some_tokens(8, 2)]

    def draw(seed: int) -> list[list[list[int]]]:
        generator = torch.Generator().manual_seed(seed)
        return sample(language_model.model, prompts, [1.0] * 3, stop_ids=[END], max_tokens=8, generator=generator)

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_the_models_own_attention_is_restored(language_model: LanguageModel) -> None:
    before = language_model.model.config._attn_implementation
    with pytest.raises(IndexError):  # a prompt of ids beyond the vocabulary
        sample(language_model.model, [[10_000]], [1.0], stop_ids=[END], max_tokens=3, generator=torch.Generator())
    assert language_model.model.config._attn_implementation == before


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
