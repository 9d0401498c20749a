"""Supervised fine-tuning on answers: reference fixes (demonstrations), or a policy's own verified ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.models import LanguageModel
from regrade.policy_training.progress import Budget, StepLog, StopAndLog, common_arguments, freeze_embeddings
from regrade.policy_training.prompts import ask
from regrade.policy_training.shared_prompts import pack, packed_log_probs


@dataclass(frozen=True)
class Example:
    """A prompt and the answer to learn."""

    prompt: str
    completion: str


def demonstrations(tasks: Sequence[Task]) -> list[Example]:
    """The reference fix of each task, as the answer that a policy should give.

    Raises:
        UserError: a task has no reference, or none that the answer format can express.
    """
    questions = [ask(task) for task in tasks]
    return [Example(question.prompt, question.reference_answer()) for question in questions]


@dataclass
class Plateau(TrainerCallback):  # type: ignore[misc]
    """Stops training once the validation loss has not fallen for `patience` checks; the best weights come back."""

    model: Any
    loss: Callable[[], float]
    every: int
    """Optimizer steps between checks."""
    patience: int = 2
    history: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) of each check."""
    _best: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        del args
        if state.global_step % self.every == 0 or control.should_training_stop:
            self.check(state.global_step)
            losses = [loss for _, loss in self.history]
            if len(losses) > self.patience and min(losses[-self.patience :]) >= min(losses[: -self.patience]):
                control.should_training_stop = True
        return control

    def check(self, step: int) -> None:
        """Measure, and remember the weights if they are the best so far."""
        self.model.eval()
        loss = self.loss()
        self.model.train()
        if not self.history or loss < min(loss for _, loss in self.history):
            self._best = {
                name: weight.detach().clone() for name, weight in self.model.named_parameters() if weight.requires_grad
            }
        self.history.append((step, loss))

    def restore(self) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self._best:
                    weight.copy_(self._best[name])


def train_sft(
    language_model: LanguageModel,
    examples: Sequence[Example],
    *,
    out: Path,
    budget: Budget,
    seed: int,
    learning_rate: float = 1e-4,
    batch_size: int = 8,
    plateau: Plateau | None = None,
    log: StepLog | None = None,
) -> None:
    """Train the model in place with TRL's SFTTrainer; the loss is on the answers alone.

    Raises:
        UserError: there is no example.
    """
    if not examples:
        raise UserError("no examples to learn from: give SFT at least one task with a reference patch")
    freeze_embeddings(language_model.model)
    eos = language_model.tokenizer.eos_token
    rows = [{"prompt": example.prompt, "completion": example.completion + eos} for example in examples]
    random.Random(seed).shuffle(rows)
    arguments = SFTConfig(
        **common_arguments(out, seed=seed, budget=budget, learning_rate=learning_rate),
        per_device_train_batch_size=batch_size,
        completion_only_loss=True,
        max_length=None,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=3,
        train_sampling_strategy="group_by_length",
    )
    language_model.model.train()
    callbacks = [StopAndLog(budget, log), *([plateau] if plateau is not None else [])]
    trainer = SFTTrainer(
        language_model.model, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=language_model.tokenizer, callbacks=callbacks,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if plateau is not None:
        plateau.restore()
    language_model.model.eval()


@torch.no_grad()
def answer_loss(language_model: LanguageModel, examples: Sequence[Example], tokens_per_batch: int = 2048) -> float:
    """Mean negative log-likelihood per answer token (nats), each prompt run once."""
    stop = language_model.stop_ids[0]
    prompts = [language_model.encode(example.prompt) for example in examples]
    answers = [[*language_model.encode(example.completion), stop] for example in examples]
    rows, _ = pack(prompts, answers)
    rows.sort(key=lambda row: row.length)
    total, count, start = 0.0, 0, 0
    while start < len(rows):
        size = max(1, math.floor(tokens_per_batch / rows[min(start + 7, len(rows) - 1)].length))
        log_probs, _ = packed_log_probs(language_model.model, rows[start : start + size])
        flat = torch.cat([piece for row in log_probs for piece in row])
        total -= float(flat.sum())
        count += len(flat)
        start += size
    return total / count
