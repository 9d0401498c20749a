"""Supervised fine-tuning: it learns answers, keeps to its budget, and stops where it may be stopped."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.policies.local_model import complete
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import (
    AnswerQuality,
    Example,
    Plateau,
    answer_quality,
    demonstrations,
    train_sft,
)

OF_FOUR = SFTSettings(batch_size=4)

MakeTask = Callable[[str], Task]


def greedy(language_model: LanguageModel, prompt: str) -> str:
    ((_, (tokens,)),) = complete(language_model, [language_model.encode(prompt)], [0.0], seed=0)
    return language_model.decode(tokens)


def loss_of_answer(language_model: LanguageModel, example: Example) -> tuple[float, int]:
    """What transformers itself computes: summed loss over the answer's tokens, and their number."""
    prompt = language_model.encode(example.prompt)
    ids = torch.tensor([[*prompt, *language_model.encode(example.completion), *language_model.stop_ids]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    answers = int((labels != -100).sum())
    with torch.no_grad():
        return float(language_model.model(ids, labels=labels).loss) * answers, answers


def test_the_quality_of_answers_is_the_models_own(language_model: LanguageModel) -> None:
    examples = [Example("Prompt:\n", "1 return x"), Example("Another one:\n", "2 pass"), Example("Prompt:\n", "3 y")]
    sums, count = [], 0
    for example in examples:
        total, answers = loss_of_answer(language_model, example)
        sums.append(-total)
        count += answers
    for tokens in (2048, 1):
        found = answer_quality(language_model, examples, tokens_per_batch=tokens)
        assert found.log_likelihood == pytest.approx(sum(sums) / count, rel=1e-4)
        assert found.exact == 0.0
        assert found.probability == pytest.approx(sum(map(math.exp, sums)) / len(sums), rel=1e-3)


def test_answers_are_exact_where_greedy_decoding_gives_them(undecided: LanguageModel, tasks: list[Task]) -> None:
    examples = demonstrations(tasks)
    exact = [greedy(undecided, example.prompt) == example.completion for example in examples]
    assert [answer_quality(undecided, [example]).exact for example in examples] == exact
    known = [Example(example.prompt, greedy(undecided, example.prompt)) for example in examples]
    share = answer_quality(undecided, [*known, Example(known[0].prompt, "1 nothing like it")]).exact
    assert share == pytest.approx(len(known) / (len(known) + 1))


@pytest.mark.slow
def test_it_learns_the_demonstrations_and_answers_them(
    language_model: LanguageModel, make_task: MakeTask, tmp_path: Path
) -> None:
    examples = demonstrations([make_task("second"), make_task("add")])
    embeddings = language_model.model.get_input_embeddings().weight.clone()
    before = answer_quality(language_model, examples)
    settings = SFTSettings(learning_rate=1e-2, batch_size=2)
    train_sft(language_model, examples, settings, out=tmp_path, budget=Budget(steps=40), seed=0)
    after = answer_quality(language_model, examples)
    assert after.exact == 1.0
    assert after.log_likelihood > 0.1 * before.log_likelihood
    assert torch.equal(language_model.model.get_input_embeddings().weight, embeddings)
    prompts = [language_model.encode(example.prompt) for example in examples]
    found = dict(complete(language_model, prompts, [0.0], seed=0))
    answers = [language_model.decode(found[place][0]) for place in range(len(prompts))]
    assert answers == [example.completion for example in examples]


def test_it_stops_at_the_seconds_of_its_budget(language_model: LanguageModel, tmp_path: Path) -> None:
    steps: list[tuple[int, float]] = []

    def log(step: int, seconds: float, _numbers: Mapping[str, float]) -> None:
        steps.append((step, seconds))
        time.sleep(0.05)

    examples = [Example("Prompt:\n", f"{k} return x") for k in range(4)]
    train_sft(language_model, examples, OF_FOUR, out=tmp_path, budget=Budget(seconds=0.5), seed=0, log=log)
    # the step that ends beyond the budget is the last one
    assert steps[-1][1] >= 0.5
    assert len(steps) < 2 or steps[-2][1] < 0.5 + 0.05
    assert not language_model.model.training


@pytest.mark.parametrize("budget", [Budget(steps=8), Budget(seconds=4.0)])
def test_the_learning_rate_falls_to_nothing_at_the_end_of_the_budget(
    language_model: LanguageModel, tmp_path: Path, budget: Budget
) -> None:
    rates: list[float] = []

    def log(_step: int, _seconds: float, numbers: Mapping[str, float]) -> None:
        rates.append(numbers["learning_rate"])
        time.sleep(0.2)

    examples = [Example("Prompt:\n", f"{k} return x") for k in range(4)]
    settings = SFTSettings(learning_rate=1e-3, batch_size=4)
    train_sft(language_model, examples, settings, out=tmp_path, budget=budget, seed=0, log=log)
    assert rates[0] < rates[2] <= 1e-3  # a warm-up
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.3 * max(rates)


def test_it_stops_at_the_steps_of_its_budget(language_model: LanguageModel, tmp_path: Path) -> None:
    steps: list[int] = []
    examples = [Example("Prompt:\n", f"{k} return x") for k in range(4)]
    train_sft(
        language_model, examples, OF_FOUR, out=tmp_path, budget=Budget(steps=3, seconds=600), seed=0,
        log=lambda step, _seconds, _numbers: steps.append(step),
    )  # fmt: skip
    assert steps == [1, 2, 3]


def test_the_best_weights_come_back_after_the_plateau(language_model: LanguageModel, tmp_path: Path) -> None:
    """Training ends two checks after the best one and goes back to it."""
    seen: list[torch.Tensor] = []
    found = iter([AnswerQuality(value, 0.5, -1.0) for value in (0.1, 0.3, 0.3, 0.2, 0.9)])

    def measure() -> AnswerQuality:
        seen.append(language_model.model.base_model.norm.weight.detach().clone())
        return next(found)

    plateau = Plateau(model=language_model.model, measure=measure, every=1)
    examples = [Example("Prompt:\n", f"{k} return x") for k in range(4)]
    train_sft(language_model, examples, OF_FOUR, out=tmp_path, budget=Budget(steps=20), seed=0, plateau=plateau)
    assert [quality.probability for _, quality in plateau.history] == [0.1, 0.3, 0.3, 0.2]
    assert torch.equal(language_model.model.base_model.norm.weight, seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_interruption_ends_training_at_once(language_model: LanguageModel, tmp_path: Path) -> None:
    steps: list[int] = []

    def interrupt(step: int, _seconds: float, _numbers: Mapping[str, float]) -> None:
        steps.append(step)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    examples = [Example("Prompt:\n", f"{k} return x") for k in range(4)]
    with pytest.raises(KeyboardInterrupt):
        train_sft(language_model, examples, OF_FOUR, out=tmp_path, budget=Budget(steps=50), seed=0, log=interrupt)
    assert steps == [1, 2]


def test_no_examples_is_a_user_error(language_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no examples to learn from"):
        train_sft(language_model, [], SFTSettings(), out=tmp_path, budget=Budget(steps=1), seed=0)


def test_the_loss_is_the_mean_over_answer_tokens(language_model: LanguageModel, tmp_path: Path) -> None:
    examples = [Example("A prompt:\n", "1 return x"), Example("Another, longer prompt:\n", "2 pass")]
    losses_and_counts = [loss_of_answer(language_model, example) for example in examples]
    total, count = map(sum, zip(*losses_and_counts, strict=True))
    losses: list[float] = []
    train_sft(
        language_model, examples, SFTSettings(batch_size=2), out=tmp_path, budget=Budget(steps=1), seed=0,
        log=lambda _step, _seconds, numbers: losses.append(numbers["loss"]),
    )  # fmt: skip
    assert losses == [pytest.approx(total / count, rel=1e-3)]
