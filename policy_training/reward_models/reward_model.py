"""A reward model: learns from executed attempts to rank the answers to a prompt.

Bradley-Terry on pairs (Ouyang et al. 2203.02155; the margin of Touvron et al. 2307.09288) with TRL's RewardTrainer,
from the policy's own checkpoint: one output at the answer's last token replaces the language-model head.

Training and scoring run each prompt once for all of its answers; therefore the pairs of a task stay together in a
batch. By default only the upper half of the layers learns, which halves the time of a step.
"""

from __future__ import annotations

import copy
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, set_seed
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from regrade.datasets.errors import UserError
from regrade.datasets.process_identity import this_process
from regrade.policy_training.environments.attempts import ScoredAnswer
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.threads import restored_threads
from regrade.policy_training.reward_models.calibration import ScoreCalibration
from regrade.policy_training.reward_models.preferences import Preference, agreement, distinct, pairs, split_by_task
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog, common_arguments, freeze_bottom
from regrade.policy_training.trainers.settings import RewardModelSettings
from regrade.policy_training.trainers.shared_prompts import PackedRow, final_states, pack, passes

TOKENS_PER_PASS = 6144


class NoPreferencesError(UserError):
    """No two answers to one task have different rewards."""


@dataclass
class RewardModel:
    """Scores answers; only score differences between answers to the same prompt are meaningful."""

    model: Any
    """transformers.PreTrainedModel for sequence classification with one label"""
    tokenizer: Any

    @torch.no_grad()
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """One score per pair of prompt and completion, in their order; higher is better."""
        self.model.eval()
        ids = {text: self.encode(text) for text in {*prompts, *map(str.strip, completions)}}
        rows, positions = pack([ids[prompt] for prompt in prompts], [ids[text.strip()] for text in completions])
        order = sorted(
            range(len(rows)), key=lambda index: rows[index].length
        )  # rows of similar lengths need little padding
        scores: dict[int, list[float]] = {}
        for start, end in passes([rows[index].length for index in order], TOKENS_PER_PASS) if rows else []:
            batch = order[start:end]
            batch_scores = iter(packed_scores(self.model, [rows[index] for index in batch]).tolist())
            scores.update({index: [next(batch_scores) for _ in rows[index].completions] for index in batch})
        return [scores[row][column] for row, column in positions]

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def save(self, folder: Path) -> Path:
        """Write model and tokenizer atomically. Returns the folder."""
        return LanguageModel("reward model", self.model, self.tokenizer).save(folder)

    @classmethod
    def load(cls, folder: Path) -> RewardModel:
        """Raises UserError if the folder contains no reward model."""
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no reward model: give a folder that `regrade train reward-model` wrote")
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        if model.config.num_labels != 1 or loading["missing_keys"]:
            raise UserError(
                f"{folder} holds another kind of model: give a folder that `regrade train reward-model` wrote"
            )
        return cls(model.eval(), AutoTokenizer.from_pretrained(folder))


def packed_scores(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """The scores of all completions, (completions,), row by row, from one forward pass."""
    return model.score(final_states(model, rows))[:, 0].float()  # type: ignore[no-any-return]


def _reward_config(settings: RewardModelSettings, common: dict[str, Any]) -> RewardConfig:
    return RewardConfig(
        **common,
        per_device_train_batch_size=settings.pairs_per_step,
        center_rewards_coefficient=0.01,
        max_length=None,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=2,
        remove_unused_columns=False,
    )


@quiet_libraries()
@restored_threads()
def train_reward_model(
    source: LanguageModel | str | Path,
    preferences: Sequence[Preference],
    settings: RewardModelSettings,
    *,
    out: Path,
    budget: Budget,
    seed: int,
    log: StepLog | None = None,
) -> RewardModel:
    """Train a reward model from a policy's weights and save it in `out`; the policy itself does not change.

    Args:
        source: the policy, or its name or folder.
        budget: in optimizer steps, seconds, or both.

    Raises:
        NoPreferencesError: there is no preference.
        UserError: there is no such model.
    """
    if not preferences:
        raise NoPreferencesError(
            "no preferences to learn from: no task had two scored answers with different rewards; "
            "sample more answers per task, or at a higher temperature"
        )
    policy = source if isinstance(source, LanguageModel) else load_model(str(source), to_train=True)
    set_seed(seed)
    reward_model = RewardModel(_with_value_output(policy), copy.deepcopy(policy.tokenizer))
    freeze_bottom(reward_model.model, settings.frozen)
    reward_model.model.train()
    prefix = f"regrade-{this_process()}-reward-model-"
    with tempfile.TemporaryDirectory(prefix=prefix) as scratch:  # so that `out` is complete or missing
        common = common_arguments(Path(scratch), seed=seed, budget=budget, learning_rate=settings.learning_rate)
        config = _reward_config(settings, common)
        trainer = SharedPromptRewardTrainer(
            reward_model.model,
            args=config,
            train_dataset=_as_dataset(preferences, reward_model),
            processing_class=reward_model.tokenizer,
            data_collator=_PairCollator(reward_model.tokenizer.pad_token_id),
            callbacks=[StopAndLog(budget, log)],
            optimizers=(_optimizer(reward_model.model, config, settings.head_learning_rate), None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    reward_model.model.eval()
    reward_model.save(out)
    return reward_model


def train_and_test_reward_model(
    source: LanguageModel | str | Path,
    answers: Sequence[ScoredAnswer],
    settings: RewardModelSettings,
    *,
    out: Path,
    budget: Budget,
    seed: int,
    log: StepLog | None = None,
) -> dict[str, float]:
    """Train on pairs of some tasks, save in `out`, and test on executed answers to the other tasks.

    The calibration from this test is saved with the model (see `ScoreCalibration`).

    Returns:
        figures on the held-out tasks: `pair_accuracy`, `pairs`, `auc`, `answers`, `verified`, `tasks` (NaN if
        undefined), and the number of `training_pairs` and `training_tasks`.

    Raises:
        NoPreferencesError: there is no preference.
        UserError: there is no such model.
    """
    learned, held_out = split_by_task(answers, settings.test_share, seed)
    preferences = pairs(learned, seed=seed)
    if settings.preferences is not None and len(preferences) > settings.preferences:
        preferences = random.Random(seed).sample(preferences, settings.preferences)
    reward_model = train_reward_model(source, preferences, settings, out=out, budget=budget, seed=seed, log=log)
    tested = distinct(held_out)
    scores = reward_model.score([a.prompt for a in tested], [a.completion for a in tested])
    figures = {
        name: math.nan if value is None else float(value) for name, value in asdict(agreement(tested, scores)).items()
    }
    if tested:
        ScoreCalibration(tuple(scores), tuple(answer.verified for answer in tested)).save(out)
    tasks = {preference.task_id for preference in preferences}
    return {**figures, "training_pairs": float(len(preferences)), "training_tasks": float(len(tasks))}


class SharedPromptRewardTrainer(RewardTrainer):  # type: ignore[misc]
    """RewardTrainer that runs each prompt of a batch once; loss, margin, centring and metrics are inherited."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        lengths = inputs.pop("prompt_lengths").tolist()
        bare = self.accelerator.unwrap_model(model)

        def packed(input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
            texts = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
            cut = list(zip(texts, lengths, strict=True))
            rows, positions = pack([text[:length] for text, length in cut], [text[length:] for text, length in cut])
            flat = packed_scores(bare, rows)
            starts = torch.tensor([0, *(len(row.completions) for row in rows)]).cumsum(0).tolist()
            return SimpleNamespace(
                logits=torch.stack([flat[starts[row] + column] for row, column in positions])[:, None]
            )

        return super().compute_loss(packed, inputs, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """Tasks in random order, the pairs of a task together."""
        tasks = (self.train_dataset if train_dataset is None else train_dataset)["task_id"]
        return _TaskSampler(list(tasks), self.args.seed)


class _TaskSampler(Sampler[int]):
    def __init__(self, tasks: Sequence[str], seed: int) -> None:
        self.rows: dict[str, list[int]] = {}
        for row, task in enumerate(tasks):
            self.rows.setdefault(task, []).append(row)
        self.chance = random.Random(seed)

    def __iter__(self) -> Iterator[int]:
        order = list(self.rows)
        self.chance.shuffle(order)
        for task in order:
            yield from self.chance.sample(self.rows[task], len(self.rows[task]))

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


class _PairCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's, with the length of the prompt of each row: chosen ones first, then the rejected ones."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        lengths = torch.tensor([example["prompt_length"] for example in examples])
        return {**super().torch_call(examples), "prompt_lengths": lengths.repeat(2)}


def _as_dataset(preferences: Sequence[Preference], reward_model: RewardModel) -> Dataset:
    """Pairs as token ids, so that TRL neither truncates them nor appends a token that scoring lacks."""
    rows = []
    for preference in preferences:
        prompt = reward_model.encode(preference.prompt)
        rows.append(
            {
                "task_id": preference.task_id,
                "prompt_length": len(prompt),
                "margin": preference.margin,
                "chosen_ids": prompt + reward_model.encode(preference.chosen),
                "rejected_ids": prompt + reward_model.encode(preference.rejected),
            }
        )
    return Dataset.from_list(rows)


def _with_value_output(policy: LanguageModel) -> Any:
    """The policy's trunk with a new head of one output, in float32."""
    config = copy.deepcopy(policy.model.config)
    config.num_labels = 1
    config.pad_token_id = policy.tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.base_model.load_state_dict(policy.model.base_model.state_dict())
    return model.to(policy.model.device)


def _optimizer(model: Any, config: RewardConfig, head_learning_rate: float) -> torch.optim.Optimizer:
    """The head is new, so it learns faster than the trunk."""
    head = list(model.score.parameters())
    own = {id(weight) for weight in head}
    trunk = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in own]
    groups = [{"params": trunk, "lr": config.learning_rate}, {"params": head, "lr": head_learning_rate}]
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
