"""Supervised fine-tuning: it learns answers, keeps to its budget, and stops where it may be stopped."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.policies.local_model import complete
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import Transcript, Turn, tokenized
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import (
    AnswerQuality,
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


def loss_of_answer(language_model: LanguageModel, example: Transcript) -> tuple[float, int]:
    """What transformers itself computes: summed loss over the answer's tokens, and their number."""
    prompt = language_model.encode(example.prompt)
    ids = torch.tensor([[*prompt, *language_model.encode(example.completion), *language_model.stop_ids]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    answers = int((labels != -100).sum())
    with torch.no_grad():
        return float(language_model.model(ids, labels=labels).loss) * answers, answers


def test_the_quality_of_answers_is_the_models_own(language_model: LanguageModel) -> None:
    examples = [
        Transcript.of_answer("Prompt:\n", "1 return x"),
        Transcript.of_answer("Another one:\n", "2 pass"),
        Transcript.of_answer("Prompt:\n", "3 y"),
    ]
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


ROUND = Transcript(
    "Prompt:\n",
    (Turn("1 wrong", "ok", is_learned=False), Turn("test", "1 failed"), Turn("undo", "ok"), Turn("2 right", "ok"),
     Turn("submit")),
)  # fmt: skip
"""A wrong edit, taken back."""


def rows_of_training(
    language_model: LanguageModel, examples: list[Transcript], out: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels that TRL's trainer was given, sorted."""
    rows: list[tuple[list[int], list[int]]] = []

    def keep(trainer: SFTTrainer) -> None:
        rows.extend(zip(trainer.train_dataset["input_ids"], trainer.train_dataset["labels"], strict=True))

    with monkeypatch.context() as patched:
        patched.setattr(SFTTrainer, "train", keep)
        train_sft(language_model, examples, OF_FOUR, out=out, budget=Budget(steps=1), seed=0)
    return sorted(rows)


def test_only_actions_are_learned_and_an_answer_of_one_turn_is_trained_as_trl_would(
    language_model: LanguageModel, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = demonstrations(tasks)
    rows = rows_of_training(language_model, examples, tmp_path, monkeypatch)
    its_own = SFTTrainer(
        language_model.model, processing_class=language_model.tokenizer,
        args=SFTConfig(output_dir=str(tmp_path), max_length=None, report_to="none", use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list([
            {"prompt": example.prompt, "completion": f"{example.completion}<end>"} for example in examples
        ]),
    ).train_dataset  # fmt: skip
    assert rows == sorted(zip(its_own["input_ids"], its_own["labels"], strict=True))

    ((tokens, labels),) = rows_of_training(language_model, [ROUND], tmp_path, monkeypatch)
    decode = language_model.tokenizer.decode
    assert (
        decode(tokens) == "Prompt:\n1 wrong<end>\nok\ntest<end>\n1 failed\nundo<end>\nok\n2 right<end>\nok\nsubmit<end>"
    )
    assert decode([label for label in labels if label != -100]) == "test<end>undo<end>2 right<end>submit<end>"
    assert all(label in (-100, token) for token, label in zip(tokens, labels, strict=True))
    with pytest.raises(UserError, match="no examples to learn from"):
        train_sft(
            language_model,
            [Transcript("P", (Turn("1 x", is_learned=False),))],
            OF_FOUR,
            out=tmp_path,
            budget=Budget(steps=1),
            seed=0,
        )


def test_the_quality_of_a_transcript_is_that_of_its_learned_actions(language_model: LanguageModel) -> None:
    episode = tokenized(ROUND, language_model.encode, language_model.stop_ids[0])
    ids = torch.tensor([[*episode.prompt, *episode.tokens]])
    with torch.no_grad():
        log_probs = language_model.model(ids).logits[0].log_softmax(-1)
    places = [len(episode.prompt) + place for place, learned in enumerate(episode.is_action) if learned]
    total = sum(float(log_probs[place - 1, ids[0, place]]) for place in places)
    same_text = Transcript(ROUND.prompt, tuple(turn._replace(is_learned=True) for turn in ROUND.turns))
    alone = answer_quality(language_model, [ROUND])
    assert alone.log_likelihood == pytest.approx(total / len(places), rel=1e-4)
    assert alone.probability == pytest.approx(math.exp(total), rel=1e-3)
    both = answer_quality(language_model, [ROUND, same_text])
    assert both.probability < alone.probability


def test_answers_are_exact_where_greedy_decoding_gives_them(undecided: LanguageModel, tasks: list[Task]) -> None:
    examples = demonstrations(tasks)
    exact = [greedy(undecided, example.prompt) == example.completion for example in examples]
    assert [answer_quality(undecided, [example]).exact for example in examples] == exact
    known = [Transcript.of_answer(example.prompt, greedy(undecided, example.prompt)) for example in examples]
    share = answer_quality(undecided, [*known, Transcript.of_answer(known[0].prompt, "1 nothing like it")]).exact
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

    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
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
    times = [0.0]

    def log(_step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        rates.append(numbers["learning_rate"])
        times.append(seconds)
        time.sleep(0.2)

    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
    settings = SFTSettings(learning_rate=1e-3, batch_size=4)
    train_sft(language_model, examples, settings, out=tmp_path, budget=budget, seed=0, log=log)
    assert rates[0] < rates[2] <= 1e-3  # a warm-up
    assert rates[3:] == sorted(rates[3:], reverse=True)
    longest = max(later - earlier for earlier, later in pairwise(times))
    left = 0.0 if budget.seconds is None else 2 * longest / budget.seconds  # on a busy machine steps are few and long
    assert 0 < rates[-1] < max(0.3, left) * max(rates)


def test_it_stops_at_the_steps_of_its_budget(language_model: LanguageModel, tmp_path: Path) -> None:
    steps: list[int] = []
    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
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
    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
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

    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
    with pytest.raises(KeyboardInterrupt):
        train_sft(language_model, examples, OF_FOUR, out=tmp_path, budget=Budget(steps=50), seed=0, log=interrupt)
    assert steps == [1, 2]


def test_no_examples_is_a_user_error(language_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no examples to learn from"):
        train_sft(language_model, [], SFTSettings(), out=tmp_path, budget=Budget(steps=1), seed=0)


def test_the_loss_is_the_mean_over_answer_tokens(language_model: LanguageModel, tmp_path: Path) -> None:
    examples = [
        Transcript.of_answer("A prompt:\n", "1 return x"),
        Transcript.of_answer("Another, longer prompt:\n", "2 pass"),
    ]
    losses_and_counts = [loss_of_answer(language_model, example) for example in examples]
    total, count = map(sum, zip(*losses_and_counts, strict=True))
    losses: list[float] = []
    train_sft(
        language_model, examples, SFTSettings(batch_size=2), out=tmp_path, budget=Budget(steps=1), seed=0,
        log=lambda _step, _seconds, numbers: losses.append(numbers["loss"]),
    )  # fmt: skip
    assert losses == [pytest.approx(total / count, rel=1e-3)]
