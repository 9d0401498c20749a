"""Every algorithm reaches the optimum of a task that is small enough to compute it: all answers are enumerated.

The policy answers with at most two tokens. Rewards are a table in which the best answer shares no token with the answers
that are easier to find. The expected reward of a policy is a sum over all answers, so nothing is estimated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.policy_training.environments.attempts import Attempt, WallSeconds
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers import expert_iteration
from regrade.policy_training.trainers.callbacks import Budget, common_arguments
from regrade.policy_training.trainers.expert_iteration import ExpertIteration
from regrade.policy_training.trainers.online import trainer_and_config
from regrade.policy_training.trainers.ppo import PPOTrainer, _ppo_config
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    SFTSettings,
)
from regrade.policy_training.trainers.sft import train_sft
from regrade.rewards.evidence import TestOutcome as Outcome
from regrade.rewards.evidence import TestRun as RunOfTests
from regrade.rewards.evidence import TestStatus as Status

WORDS = ("<pad>", "<end>", "p", "q", "a", "b")
END = 1
LENGTH = 2
Answer = tuple[int, ...]
ANSWERS: tuple[Answer, ...] = (
    (END,), *(pair for pair in itertools.product(range(len(WORDS)), repeat=LENGTH) if pair[0] != END)
)  # fmt: skip
PROMPTS = ("p", "q")
BEST = {"p": ((4, END), 1.0), "q": ((5, END), 0.8)}
"""Prompt -> the best answer, and its reward. Another second token earns nothing; without an end it is cut off."""
EASY = {"p": 5, "q": 4}
"""Prompt -> the first token of answers that earn 0.1, whatever follows."""


def reward(prompt: str, answer: Answer) -> float:
    best, value = BEST[prompt]
    return value if answer == best else 0.1 if answer[0] == EASY[prompt] else 0.0


@pytest.fixture
def language_model() -> LanguageModel:
    return two_token_model()


def two_token_model() -> LanguageModel:
    """Of one layer, with random weights, the same each time."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=None, eos_token_id=END, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return LanguageModel("two tokens", LlamaForCausalLM(config).eval(), tokenizer)


@torch.no_grad()
def log_probs(model: Any, prompt: str) -> torch.Tensor:
    """Of every answer, exactly."""
    rows = torch.tensor([[WORDS.index(prompt), *answer, *[0] * (LENGTH - len(answer))] for answer in ANSWERS])
    steps = torch.log_softmax(model(rows).logits.double(), -1)
    return torch.stack(
        [sum(steps[row, k, token] for k, token in enumerate(answer)) for row, answer in enumerate(ANSWERS)]
    )


def expected_reward(model: Any) -> float:
    values = [
        float((log_probs(model, prompt).exp() * torch.tensor([reward(prompt, each) for each in ANSWERS])).sum())
        for prompt in PROMPTS
    ]
    return sum(values) / len(values)


OPTIMUM = sum(max(reward(prompt, answer) for answer in ANSWERS) for prompt in PROMPTS) / len(PROMPTS)


def pays(prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    return [reward(prompt, tuple(ids)) for prompt, ids in zip(prompts, completion_ids, strict=True)]


def train(
    language_model: LanguageModel, settings: OnlineSettings | PPOSettings, steps: int, out: Path, seed: int = 0
) -> list[Any]:
    common = common_arguments(out, seed=seed, budget=Budget(steps), learning_rate=settings.learning_rate)
    kind: Any
    if isinstance(settings, PPOSettings):
        kind, config = PPOTrainer, _ppo_config(settings, len(PROMPTS) * settings.samples_per_prompt, common)
    else:
        kind, config = trainer_and_config(settings, len(PROMPTS), common)
    config.max_completion_length = LENGTH
    language_model.model.train()
    rows = [{"prompt": prompt, "task_id": prompt} for prompt in PROMPTS]
    trainer = kind(
        model=language_model.model, reward_funcs=pays, args=config, train_dataset=Dataset.from_list(rows),
        processing_class=language_model.tokenizer,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    language_model.model.eval()
    history: list[Any] = trainer.state.log_history
    return history


COMMON: Mapping[str, Any] = {"learning_rate": 1e-2, "prompts_per_step": 2, "samples_per_prompt": 32}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "GRPO": {},
    "DAPO": {"epsilon_high": 0.28, "scale_rewards": "group", "mask_truncated_completions": True, "num_iterations": 2},
    "Dr.GRPO": {"loss_type": "dr_grpo", "num_iterations": 2},
    "GSPO": {
        "loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4,
        "scale_rewards": "group", "num_iterations": 2,
    },
    "CISPO": {"loss_type": "cispo", "epsilon_high": 5.0, "scale_rewards": "batch", "num_iterations": 2},
    "RLOO": {"algorithm": "rloo", "num_iterations": 2},
    "REINFORCE": {"algorithm": "reinforce"},
    "REINFORCE with a baseline": {"algorithm": "reinforce", "baseline": "batch"},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_it_reaches_the_greatest_reward(language_model: LanguageModel, tmp_path: Path, name: str) -> None:
    settings = OnlineSettings(**{"algorithm": "grpo", **COMMON, **VARIANTS[name]})
    before = expected_reward(language_model.model)
    train(language_model, settings, 100, tmp_path)
    after = expected_reward(language_model.model)
    assert before < 0.1
    assert after > 0.95 * OPTIMUM, (before, after)


BETA = 0.1


def regularized(model: Any, reference: Mapping[str, torch.Tensor]) -> float:
    """The expected reward, less BETA per nat of KL divergence from the reference."""
    values = []
    for prompt in PROMPTS:
        logs = log_probs(model, prompt)
        pay = torch.tensor([reward(prompt, each) for each in ANSWERS], dtype=torch.double)
        values.append(float((logs.exp() * (pay - BETA * (logs - reference[prompt]))).sum()))
    return sum(values) / len(values)


def best_regularized(reference: Mapping[str, torch.Tensor]) -> float:
    """The best policy is known in closed form: proportional to the reference times exp(reward / BETA)."""
    weights = [
        [float(log) + reward(prompt, each) / BETA for log, each in zip(logs, ANSWERS, strict=True)]
        for prompt, logs in reference.items()
    ]
    return sum(BETA * math.log(sum(map(math.exp, each))) for each in weights) / len(PROMPTS)


PRICED: Mapping[str, OnlineSettings | PPOSettings] = {
    "RLOO": OnlineSettings(algorithm="rloo", beta=BETA, **COMMON),
    "PPO": PPOSettings(
        learning_rate=1e-2, value_learning_rate=2e-2, kl_coef=BETA, epochs=2, prompts_per_step=2, samples_per_prompt=32
    ),
}


@pytest.mark.parametrize("name", PRICED)
def test_with_a_price_of_kl_it_reaches_the_optimum_of_both(
    language_model: LanguageModel, tmp_path: Path, name: str
) -> None:
    """And stays there: at a constant rate, PPO finds it in 60 steps and has left it after 120."""
    reference = {prompt: log_probs(language_model.model, prompt) for prompt in PROMPTS}
    best, before = best_regularized(reference), regularized(language_model.model, reference)
    train(language_model, PRICED[name], 120, tmp_path)
    after = regularized(language_model.model, reference)
    assert before < 0.1 < 0.97 * best < after <= best


def test_ppo_without_a_price_reaches_the_greatest_reward(language_model: LanguageModel, tmp_path: Path) -> None:
    settings = PPOSettings(learning_rate=1e-2, value_learning_rate=2e-2, kl_coef=0.0, epochs=2, samples_per_prompt=32)
    train(language_model, settings, 120, tmp_path)
    assert expected_reward(language_model.model) > 0.95 * OPTIMUM


VERIFIED: Mapping[str, tuple[Answer, ...]] = {"p": ((4, END), (3, END)), "q": ((5, END),)}
"""Prompt -> the answers that pass; each has a likelihood of 1 in 36 at first."""


def test_expert_iteration_reaches_the_greatest_share_of_passing_answers(
    language_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And answers as often as each passing answer was learned: there the likelihood of its lessons is the greatest."""

    def passing() -> dict[str, list[float]]:
        likelihoods = {prompt: log_probs(language_model.model, prompt).exp().tolist() for prompt in PROMPTS}
        return {
            prompt: [likelihoods[prompt][ANSWERS.index(each)] for each in answers]
            for prompt, answers in VERIFIED.items()
        }

    def sampled(*_: Any, **__: Any) -> tuple[list[Attempt], WallSeconds]:
        """64 attempts at each prompt, from the policy's exact distribution."""
        attempts = [
            attempt(prompt, ANSWERS[index])
            for prompt in PROMPTS
            for index in torch.multinomial(log_probs(language_model.model, prompt).exp(), 64, True).tolist()
        ]
        return attempts, WallSeconds(0.0, 0.0)

    monkeypatch.setattr(expert_iteration, "gather", sampled)
    loop = ExpertIteration([], ExpertIterationSettings(sft=SFTSettings(learning_rate=1e-2, batch_size=8)))
    torch.manual_seed(0)
    assert all(sum(each) < 0.1 for each in passing().values())
    nothing: Any = None
    for number in range(2):
        loop.round(language_model, [], nothing, out=tmp_path / str(number), budget=Budget(60), seed=number)
    lessons = {
        prompt: [loop.verified.count(Transcript.of_answer(prompt, words(each))) for each in answers]
        for prompt, answers in VERIFIED.items()
    }
    assert all(map(all, lessons.values())), "each was found"
    for prompt, shares in passing().items():
        assert sum(shares) > 0.95
        expected = [count / sum(lessons[prompt]) for count in lessons[prompt]]
        assert shares == pytest.approx(expected, abs=0.04)


def words(answer: Answer) -> str:
    return " ".join(WORDS[token] for token in answer if token != END)


def attempt(prompt: str, answer: Answer) -> Attempt:
    status = Status.PASSED if answer in VERIFIED[prompt] else Status.FAILED
    run = RunOfTests(outcomes={"target": Outcome(status)}, fail_to_pass=("target",), pass_to_pass=())
    rollout = Rollout(
        task_id=prompt,
        policy="p",
        temperature=1.0,
        sample=0,
        seed=0,
        patch=Patch("x"),
        prompt=prompt,
        completion=words(answer),
    )
    return Attempt(rollout, run, 1.0)


def test_sft_learns_the_frequencies_of_the_answers(language_model: LanguageModel, tmp_path: Path) -> None:
    """The least loss is the entropy of the answers given the prompt; there the policy answers as often as they occur."""
    lessons = [Transcript.of_answer("p", text) for text in ("a", "a", "a", "b")]
    train_sft(
        language_model, lessons, SFTSettings(learning_rate=1e-2, batch_size=4), out=tmp_path, budget=Budget(80), seed=0
    )
    shares = dict(zip(ANSWERS, log_probs(language_model.model, "p").exp().tolist(), strict=True))
    assert (shares[4, END], shares[5, END]) == pytest.approx((0.75, 0.25), abs=0.02)
