"""Adapts a trunk to preferences: Bradley-Terry with TRL's RewardTrainer.

Bradley-Terry on pairs (Ouyang et al. 2203.02155; the margin of Touvron et al. 2307.09288): one output at the patch's
last token, in the place of the language-model head. Training runs each task's prompt once for all of its patches;
therefore the pairs of a task stay together in a batch. By default only the upper half of the layers learns, which
halves the time of a step.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import AutoModelForSequenceClassification, PrinterCallback, set_seed
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from regrade.datasets.process_identity import this_process
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.threads import restored_threads
from regrade.policy_training.reward_models.inputs import PatchInput
from regrade.policy_training.reward_models.preferences import Preference
from regrade.policy_training.reward_models.trunks import Trunk
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog, common_arguments, freeze_bottom
from regrade.policy_training.trainers.settings import RewardModelSettings
from regrade.policy_training.trainers.shared_prompts import PackedRow, final_states, pack


@quiet_libraries()
@restored_threads()
def adapt_trunk(
    trunk: Trunk,
    inputs: Sequence[PatchInput],
    groups: Sequence[str],
    preferences: Sequence[Preference],
    settings: RewardModelSettings,
    *,
    budget: Budget,
    seed: int,
    log: StepLog | None = None,
) -> Trunk:
    """A copy of the trunk, trained to score the chosen patch of each pair above the rejected one.

    Args:
        inputs, groups: of the attempts that `preferences` index: what the model reads, and the name of the task.
        budget: in optimizer steps, seconds, or both.
    """
    set_seed(seed)
    scorer = _with_score(trunk)
    freeze_bottom(scorer, settings.frozen)
    scorer.train()
    prefix = f"regrade-{this_process()}-reward-model-"
    with tempfile.TemporaryDirectory(prefix=prefix) as scratch:
        common = common_arguments(Path(scratch), seed=seed, budget=budget, learning_rate=settings.learning_rate)
        config = _reward_config(settings, common)
        trainer = SharedPromptRewardTrainer(
            scorer,
            args=config,
            train_dataset=_as_dataset(inputs, groups, preferences),
            processing_class=trunk.tokenizer,
            data_collator=_PairCollator(trunk.tokenizer.pad_token_id),
            callbacks=[StopAndLog(budget, log)],
            optimizers=(_optimizer(scorer, config, settings.head_learning_rate), None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Trunk(trunk.base, scorer.base_model.eval(), trunk.tokenizer)


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


def packed_scores(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """The scores of all completions, (completions,), row by row, from one forward pass."""
    return model.score(final_states(model, rows))[:, 0].float()  # type: ignore[no-any-return]


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


def _as_dataset(inputs: Sequence[PatchInput], groups: Sequence[str], preferences: Sequence[Preference]) -> Dataset:
    """Pairs as token ids, so that TRL neither truncates them nor appends a token that scoring lacks."""
    return Dataset.from_list(
        [
            {
                "task_id": groups[pair.chosen],
                "prompt_length": len(inputs[pair.chosen].prompt),
                "margin": pair.margin,
                "chosen_ids": [*inputs[pair.chosen].prompt, *inputs[pair.chosen].completion],
                "rejected_ids": [*inputs[pair.rejected].prompt, *inputs[pair.rejected].completion],
            }
            for pair in preferences
        ]
    )


def _with_score(trunk: Trunk) -> Any:
    """A copy of the trunk with a new head of one output, in float32."""
    config = copy.deepcopy(trunk.model.config)
    config.num_labels = 1
    config.pad_token_id = trunk.tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.base_model.load_state_dict(trunk.model.state_dict())
    return model.to(trunk.model.device)


def _optimizer(model: Any, config: RewardConfig, head_learning_rate: float) -> torch.optim.Optimizer:
    """The head is new, so it learns faster than the trunk."""
    head = list(model.score.parameters())
    own = {id(weight) for weight in head}
    trunk = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in own]
    groups = [{"params": trunk, "lr": config.learning_rate}, {"params": head, "lr": head_learning_rate}]
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
