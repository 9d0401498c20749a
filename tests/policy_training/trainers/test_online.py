"""Reinforcement learning on executed tests: TRL's trainers with prompts run once, and real runs of them."""

from __future__ import annotations

import copy
import math
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from regrade import rewards
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers.callbacks import Budget, common_arguments
from regrade.policy_training.trainers.online import SharedPromptGRPOTrainer, train_online, trainer_and_config
from regrade.policy_training.trainers.ppo import VALUE_HEAD_FILE, PPOConfig, PPOTrainer, ValueHead, train_ppo
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, StabilitySettings, VLLMSettings
from regrade.policy_training.trainers.sft import answer_quality, demonstrations
from regrade.policy_training.trainers.stability import StabilityGuard

Reward = Callable[..., list[float | None]]


def trainer_of(language_model: LanguageModel, out: Path, kind: type, config: type, reward: Reward, **more: Any) -> Any:
    """A trainer on four prompts, as `train_online` would make it, with another reward."""
    arguments = {
        **common_arguments(out, seed=0, budget=Budget(steps=2), learning_rate=1e-3),
        "max_completion_length": 6, "remove_unused_columns": False, "scale_rewards": "none",
    }  # fmt: skip
    rows = [{"prompt": "x = " * (k + 1), "task_id": str(k)} for k in range(4)]
    return kind(
        model=language_model.model, reward_funcs=reward, args=config(**(arguments | more)),
        train_dataset=Dataset.from_list(rows), processing_class=language_model.tokenizer,
    )  # fmt: skip


def by_length(completions: list[str], **_: Any) -> list[float | None]:
    return [float(len(text)) for text in completions]


@pytest.fixture
def grpo(language_model: LanguageModel, tmp_path: Path) -> Any:
    size = {"per_device_train_batch_size": 8, "num_generations": 4}
    trainer = trainer_of(language_model, tmp_path, SharedPromptGRPOTrainer, GRPOConfig, by_length, **size)
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    return trainer


def batch_of(trainer: Any, advantages: list[float]) -> dict[str, Any]:
    """Completions of two prompts of unequal length, padded as TRL pads; two of them equal."""
    pad = trainer.processing_class.pad_token_id
    prompts = [[9, 10, 11], [9, 10, 11], [12, 13, 14, 15, 16], [9, 10, 11]]
    answers = [[20, 21, 1], [22, 1], [23, 24, 25, 1], [20, 21, 1]]
    left = [[pad] * (5 - len(p)) + p for p in prompts]
    right = [a + [pad] * (4 - len(a)) for a in answers]
    tokens = {"prompt_ids": torch.tensor(left), "completion_ids": torch.tensor(right)}
    return {
        **tokens, "prompt_mask": (tokens["prompt_ids"] != pad).long(),
        "completion_mask": (tokens["completion_ids"] != pad).long(),
        "advantages": torch.tensor(advantages), "num_items_in_batch": torch.tensor(12),
    }  # fmt: skip


def test_log_probs_and_entropies_are_those_of_trls_own_method(grpo: Any) -> None:
    batch = batch_of(grpo, [1.0] * 4)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    grpo.tokens_per_pass = 12  # so that the rows need several passes
    ours = grpo._get_per_token_logps_and_entropies(grpo.model, ids, mask, 4, compute_entropy=True)
    theirs = GRPOTrainer._get_per_token_logps_and_entropies(grpo, grpo.model, ids, mask, 4, compute_entropy=True)
    kept = batch["completion_mask"].bool()
    assert ours[0].shape == theirs[0].shape == (4, 4)
    for mine, reference in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine[kept], reference[kept], atol=1e-5, rtol=1e-4)


def test_masked_answers_have_no_numbers_and_no_gradient(grpo: Any) -> None:
    """`mask_truncated_completions` masks an answer that was cut off, and at the worst all of them."""
    batch = batch_of(grpo, [1.0] * 4)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    for kept in ([True, False, True, False], [False] * 4):
        answers = batch["completion_mask"] * torch.tensor(kept)[:, None]
        mask = torch.cat([batch["prompt_mask"], answers], 1)
        logs, _, _ = grpo._get_per_token_logps_and_entropies(grpo.model, ids, mask, 4, compute_entropy=True)
        assert not logs[~answers.bool()].any()
        assert logs[answers.bool()].all()
    grpo._compute_loss(grpo.model, batch | {"completion_mask": answers}).backward()
    assert not any(weight.grad is not None and weight.grad.any() for weight in grpo.model.parameters())


@pytest.mark.parametrize("advantages", [[0.5, 0.0, 0.0, -1.0], [0.0] * 4])
def test_leaving_out_rows_without_advantage_changes_no_gradient(grpo: Any, advantages: list[float]) -> None:
    def gradients(can_drop_rows: bool) -> list[torch.Tensor]:
        grpo.can_drop_rows = can_drop_rows
        loss = grpo._compute_loss(grpo.model, batch_of(grpo, advantages))
        return list(torch.autograd.grad(loss, list(grpo.model.parameters()), allow_unused=True, materialize_grads=True))

    whole = gradients(False)
    for mine, reference in zip(gradients(True), whole, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-4)
    assert any(bool(gradient.abs().sum() > 0) for gradient in whole) == any(advantages)


def test_answers_come_back_in_the_order_of_their_prompts(grpo: Any) -> None:
    prompts = [[9, 10, 11], [12, 13], [9, 10, 11], [14, 15, 16, 17], [12, 13]]
    grpo.temperature, grpo.answer_batch_rows = 0.0, 3
    answers = grpo._completions(prompts)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        alone = grpo.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        assert answer == alone[0, len(prompt) :].tolist()


def test_a_generation_spread_over_steps_gives_each_step_whole_groups(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    calls: list[list[str]] = []
    steps: list[dict[str, Any]] = []

    def reward(completions: list[str], task_id: list[str], **_: Any) -> list[float | None]:
        calls.append(task_id)
        return [float(place % 4) for place in range(len(completions))]

    class Watched(SharedPromptGRPOTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            steps.append(inputs)
            return super()._compute_loss(model, inputs)

    size = {"per_device_train_batch_size": 8, "num_generations": 4, "steps_per_generation": 2}
    sampler = copy.deepcopy(language_model.model)
    trainer = trainer_of(language_model, tmp_path, Watched, GRPOConfig, reward, **size)
    trainer.train()
    assert [sorted(names) for names in calls] == [sorted([str(k) for k in range(4)] * 4)]
    seen = [[tuple(row) for row in step["prompt_ids"].tolist()] for step in steps]
    assert [sorted(Counter(rows).values()) for rows in seen] == [[4, 4], [4, 4]]
    assert len({prompt for rows in seen for prompt in rows}) == 4
    # a row keeps its advantage (the rewards of a group are 0, 1, 2, 3) and what it was sampled with
    for step in steps:
        ids = torch.cat([step["prompt_ids"], step["completion_ids"]], 1)
        mask = torch.cat([step["prompt_mask"], step["completion_mask"]], 1)
        width = step["completion_ids"].shape[1]
        again = trainer._get_per_token_logps_and_entropies(sampler, ids, mask, width)[0]
        kept = step["completion_mask"].bool()
        torch.testing.assert_close(step["old_per_token_logps"][kept], again[kept], atol=1e-4, rtol=1e-4)
        for group in step["advantages"].view(2, 4).tolist():
            assert group == pytest.approx([-1.5, -0.5, 0.5, 1.5])


def test_unscored_answers_teach_ppo_nothing(language_model: LanguageModel, tmp_path: Path) -> None:
    """Task 2 is never scored: its rows are masked in the loss, and not taken for a reward of 0."""

    def reward(completions: list[str], task_id: list[str], **_: Any) -> list[float | None]:
        return [None if name == "2" else float(len(text)) for name, text in zip(task_id, completions, strict=True)]

    trainer = trainer_of(language_model, tmp_path, PPOTrainer, PPOConfig, reward, per_device_train_batch_size=4)
    trainer.model.train()
    rows = [{"prompt": "x = " * (k + 1), "task_id": str(k)} for k in range(4)]
    batch = trainer._generate_and_score_completions(rows)
    assert batch["tool_mask"].sum(1).bool().tolist() == [True, True, False, True]
    assert batch["num_items_in_batch"] == batch["tool_mask"].sum()
    assert not batch["advantages"][2].any()
    assert not batch["returns"][2].any()
    kept = batch["advantages"][batch["tool_mask"].bool()]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-5)
    trainer.current_gradient_accumulation_steps = 1

    def gradient(batch: dict[str, Any]) -> torch.Tensor:
        loss = trainer._compute_loss(trainer.model, batch)
        return torch.autograd.grad(loss, trainer.model.base_model.norm.weight)[0]

    rest = {key: value[[0, 1, 3]] if value.dim() else value for key, value in batch.items()}
    torch.testing.assert_close(gradient(batch), gradient(rest), atol=1e-6, rtol=1e-4)


def test_ppo_pays_for_leaving_its_reference(language_model: LanguageModel, tmp_path: Path) -> None:
    """Before the first step the policy is its reference; afterwards each token pays the log-ratio."""
    size = {"per_device_train_batch_size": 4, "kl_coef": 0.5}
    trainer = trainer_of(language_model, tmp_path, PPOTrainer, PPOConfig, lambda **_: [0.0] * 4, **size)
    trainer.model.train()
    rows = [{"prompt": "x = " * (k + 1), "task_id": str(k)} for k in range(4)]
    assert not trainer._generate_and_score_completions(rows)["returns"].any()
    with torch.no_grad():
        for weight in trainer.model.base_model.layers.parameters():
            weight.mul_(1.1)
    batch = trainer._generate_and_score_completions(rows)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    with torch.no_grad():
        now, then = (
            GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, width)[0],
            trainer._get_per_token_logps_and_entropies(trainer.reference, ids, mask, width)[0],
        )
    penalties = 0.5 * (now - then) * batch["completion_mask"]
    # gamma is 1 and the critic still says 0: with lambda 0.95 the advantage is a geometric sum of what is to come
    expected = torch.zeros_like(penalties)
    following = torch.zeros(4)
    for place in reversed(range(width)):
        following = -penalties[:, place] + 0.95 * following
        expected[:, place] = following
    torch.testing.assert_close(batch["returns"], expected * batch["completion_mask"], atol=1e-4, rtol=1e-3)


def test_ppo_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        PPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=1, use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match="set kl_coef and leave beta 0"):
        PPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=4, beta=0.1, use_cpu=True, bf16=False)
    config = PPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=3, use_cpu=True, bf16=False)
    assert config.num_generations == 1


# ---------------------------------------------------------------- real runs: real tests, executed


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_a_few_steps_make_the_verified_fix_likelier(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: Any
) -> None:
    """Also by a reward of the user's own: RLOO is paid by a composition, without any price. No alarm comes."""
    own = (0.8 * rewards.tests + 0.2 * rewards.style.otherwise(0.0)).only_if(rewards.builds)
    pays = own if algorithm == "rloo" else DEFAULT_TRAINING_REWARD
    right = demonstrations(tasks)
    before = answer_quality(undecided, right).log_likelihood
    rows: list[dict[str, float]] = []
    guard = StabilityGuard(StabilitySettings(kl_every=2), tmp_path)

    def log(_step: int, _seconds: float, numbers: Mapping[str, float]) -> None:
        rows.append(dict(numbers))

    if algorithm == "ppo":
        ppo = PPOSettings(learning_rate=2e-3, value_learning_rate=1e-2, epochs=2, samples_per_prompt=12)
        train_ppo(
            undecided,
            tasks,
            scorer,
            ppo,
            out=tmp_path,
            budget=Budget(steps=16),
            seed=0,
            reward=pays,
            log=log,
            guard=guard,
        )
    else:
        online = OnlineSettings(algorithm=algorithm, learning_rate=5e-3, prompts_per_step=2, samples_per_prompt=12)
        train_online(
            undecided, tasks, scorer, online, out=tmp_path, budget=Budget(steps=10), seed=0, reward=pays, log=log,
            guard=guard,
        )  # fmt: skip
    assert guard.alarms == []
    assert any(row.get("kl", 0.0) > 0 for row in rows)
    assert answer_quality(undecided, right).log_likelihood > 0.8 * before
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert rows[0]["fix_and_clean"] > 0
    assert rows[0]["breakage"] > 0
    assert {"generation_seconds", "execution_seconds", "no_op", "malformed"} <= rows[0].keys()
    if algorithm == "ppo":
        assert all(row.keys() >= {"value/loss"} for row in rows)
        assert any(row.get("value/explained_variance", 0) > 0 for row in rows[2:])
        head = ValueHead.load(tmp_path)
        assert head.linear.weight.abs().sum() > 0
        assert not [name for name in undecided.model.state_dict() if "value" in name]


def test_a_folder_without_value_head_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=VALUE_HEAD_FILE):
        ValueHead.load(tmp_path)


def test_too_few_tasks_for_a_batch_is_a_user_error(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"1 task x 1 sample"):
        train_ppo(language_model, tasks[:1], scorer, PPOSettings(), out=tmp_path, budget=Budget(steps=1), seed=0)


@pytest.mark.slow
def test_interruption_leaves_model_and_scorer_usable(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    attention = undecided.model.config._attn_implementation

    def interrupt(_step: int, _seconds: float, _numbers: Mapping[str, float]) -> None:
        signal.raise_signal(signal.SIGINT)

    def train(steps: int, log: Callable[[int, float, Mapping[str, float]], None] | None) -> None:
        settings = OnlineSettings(algorithm="grpo", prompts_per_step=2, samples_per_prompt=4)
        train_online(undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=steps), seed=0, log=log)

    with pytest.raises(KeyboardInterrupt):
        train(50, interrupt)
    assert undecided.model.config._attn_implementation == attention
    train(1, None)


def test_vllm_runs_where_the_settings_say(tmp_path: Path) -> None:
    def config_of(vllm: VLLMSettings | None) -> Any:
        common = common_arguments(tmp_path, seed=0, budget=Budget(steps=2), learning_rate=1e-3)
        settings = OnlineSettings(algorithm="rloo", generation="vllm", vllm=vllm)
        return trainer_and_config(settings, 8, common)[1]

    names = ("use_vllm", "vllm_mode", "vllm_server_base_url", "vllm_gpu_memory_utilization", "vllm_enable_sleep_mode")
    found = [[getattr(config_of(each), name) for name in names] for each in (
        None, VLLMSettings(gpu_memory_utilization=0.5, enable_sleep_mode=True),
        VLLMSettings(mode="server", server_base_url="http://10.0.0.2:8000"),
    )]  # fmt: skip
    assert found == [
        [True, "colocate", None, 0.3, False], [True, "colocate", None, 0.5, True],
        [True, "server", "http://10.0.0.2:8000", 0.3, False],
    ]  # fmt: skip
