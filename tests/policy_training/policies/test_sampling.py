"""Sampling with shared prompts and continuous batching gives what each prompt alone gives."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.sampling import stream
from regrade.policy_training.trainers.shared_prompts import pack, packed_log_probs
from tests.policy_training.conftest import sample

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


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 96])
def test_greedy_sampling_is_generate_of_each_prompt_alone(language_model: LanguageModel, rows: int) -> None:
    model = language_model.model
    prompts = [some_tokens(length, seed) for seed, length in enumerate((3, 11, 7, 1, 19))]
    # tokens that are known to come up end an answer too, so that rows finish at different steps and leave the batch
    stops = [END, *(generate(model, prompt, [END])[step] for step, prompt in zip((1, 4, 8), prompts, strict=False))]
    got = sample(model, prompts, [0.0, 0.0], stop_ids=stops, max_tokens=12, seed=0, rows=rows)
    expected = [generate(model, prompt, stops) for prompt in prompts]
    assert got == [[answer, answer] for answer in expected]
    assert len({len(answer) for answer in expected}) > 2


def test_greedy_rows_do_not_depend_on_their_neighbours_in_a_sweep(language_model: LanguageModel) -> None:
    prompts = [some_tokens(length, seed) for seed, length in enumerate((4, 9))]
    model = language_model.model
    swept = sample(model, prompts, [0.0, 1.0, 2.0], stop_ids=[END], max_tokens=10, seed=0)
    alone = sample(model, prompts, [0.0], stop_ids=[END], max_tokens=10, seed=0)
    assert [answers[0] for answers in swept] == [answers[0] for answers in alone]


def test_sampling_follows_the_models_distribution(language_model: LanguageModel) -> None:
    """First tokens of 4,000 draws at temperature 0.7, against the model's own probabilities."""
    prompt = some_tokens(6, 3)
    draws, group = 4000, 200
    counts = torch.zeros(language_model.model.config.vocab_size)
    for seed in range(draws // group):
        found = sample(language_model.model, [prompt], [0.7] * group, stop_ids=[END], max_tokens=1, seed=seed)
        counts += torch.bincount(torch.tensor([answer[0] for answer in found[0]]), minlength=len(counts))
    with torch.no_grad():
        logits = language_model.model(torch.tensor([prompt])).logits[0, -1]
    expected = (logits / 0.7).softmax(-1)
    # total variation distance of an empirical distribution: about sum sqrt(p (1 - p) / (2 pi n))
    noise = float((expected * (1 - expected) / (2 * torch.pi * draws)).sqrt().sum())
    assert float((counts / draws - expected).abs().sum()) / 2 < 1.5 * noise


def test_the_same_seed_gives_the_same_answers(language_model: LanguageModel) -> None:
    prompts = [some_tokens(5, 1), some_tokens(8, 2)]

    def draw(seed: int) -> list[list[list[int]]]:
        return sample(language_model.model, prompts, [1.0] * 3, stop_ids=[END], max_tokens=8, seed=seed)

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_the_models_own_attention_is_restored(language_model: LanguageModel) -> None:
    before = language_model.model.config._attn_implementation
    with pytest.raises(IndexError):  # a prompt of ids beyond the vocabulary
        sample(language_model.model, [[10_000]], [1.0], stop_ids=[END], max_tokens=3, seed=0)
    assert language_model.model.config._attn_implementation == before


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_answers_do_not_depend_on_what_is_sampled_beside_them(language_model: LanguageModel, rows: int) -> None:
    prompts = [some_tokens(length, seed) for seed, length in enumerate((5, 9, 2, 14, 8, 8))]
    model, heat = language_model.model, [0.0, 0.8, 1.3]
    together = sample(model, prompts, heat, stop_ids=range(1, 60), max_tokens=12, seed=3, rows=rows)
    for prompt, answers in zip(prompts, together, strict=True):
        assert [answers] == sample(model, [prompt], heat, stop_ids=range(1, 60), max_tokens=12, seed=3)
    assert len({len(answer) for answers in together for answer in answers}) > 3  # rows left at different steps


def test_a_prompt_that_comes_twice_is_sampled_twice(language_model: LanguageModel) -> None:
    prompt = some_tokens(6, 0)
    first, second = sample(language_model.model, [prompt, prompt], [1.5] * 4, stop_ids=[END], max_tokens=8, seed=0)
    assert first != second


def test_prompts_come_as_they_end_and_none_is_lost(language_model: LanguageModel) -> None:
    prompts = [some_tokens(3 + number % 7, number) for number in range(20)]
    found = list(stream(language_model.model, prompts, [1.0] * 2, stop_ids=range(1, 90), max_tokens=9, seed=1, rows=6))
    assert sorted(index for index, _ in found) == list(range(20))
    assert [index for index, _ in found] != sorted((index for index, _ in found), key=lambda i: -len(prompts[i]))
    assert all(len(answers) == 2 and all(1 <= len(answer.tokens) <= 9 for answer in answers) for _, answers in found)


def test_log_probs_are_those_of_the_model_at_the_temperature(language_model: LanguageModel) -> None:
    prompts = [some_tokens(length, length) for length in (4, 9, 6)]
    heat = [0.0, 0.7, 1.3]
    for index, answers in stream(language_model.model, prompts, heat, stop_ids=[END], max_tokens=7, seed=0, rows=4):
        for temperature, answer in zip(heat, answers, strict=True):
            rows, _ = pack([prompts[index]], [answer.tokens])
            ((expected,),), _ = packed_log_probs(language_model.model, rows, temperature or 1.0)
            torch.testing.assert_close(torch.tensor(answer.log_probs), expected, atol=1e-4, rtol=1e-4)


def test_nothing_to_sample(language_model: LanguageModel) -> None:
    assert sample(language_model.model, [], [1.0], stop_ids=[END], max_tokens=3, seed=0) == []
