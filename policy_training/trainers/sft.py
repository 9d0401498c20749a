"""Supervised fine-tuning on transcripts: demonstrations, or a policy's own verified episodes.

Only actions are learned: not the prompt, not what the tools said, and no action that is marked as a mistake.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.harmony_actions import tokenized_calls
from regrade.policy_training.policies.gpt_oss import let_generate, prepare_to_train
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.precision import mixed_precision
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.threads import restored_threads
from regrade.policy_training.policies.transcripts import TokenizedEpisode, Transcript, tokenized
from regrade.policy_training.trainers.callbacks import Budget, StepLog, StopAndLog, common_arguments, freeze_bottom
from regrade.policy_training.trainers.frozen_activations import cached_frozen_activations
from regrade.policy_training.trainers.processes import share_of
from regrade.policy_training.trainers.resuming import Resumable, ResumePoints, train_from_last_state
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.shared_prompts import (
    PackedRow,
    logits_of,
    pack,
    passes,
    prediction_states,
    unflatten,
)
from regrade.policy_training.trainers.stability import GuardedSteps, StabilityGuard
from regrade.policy_training.trainers.tracking import Tracker


def demonstrations(tasks: Sequence[Task]) -> list[Transcript]:
    """The reference fix of each task, as the answer that a policy should return.

    Raises:
        UserError: a task has no reference, or the answer format cannot express it.
    """
    prompts = [prompt_of(task) for task in tasks]
    return [Transcript.of_answer(prompt.text, prompt.reference_answer()) for prompt in prompts]


class AnswerQuality(NamedTuple):
    """The quality of a model's actions in given transcripts; greater is better.

    The answer of one turn is the transcript of one action. Actions marked as mistakes don't count.
    """

    probability: float
    """Mean probability of all actions of a transcript, given what it has seen before each: its expected frequency when
    sampling at temperature 1, if the tools answer as they did."""
    exact: float
    """Share of the transcripts whose actions greedy decoding reproduces exactly, given what it has seen before each."""
    log_likelihood: float
    """Mean log-likelihood per token of an action, in nats."""


@dataclass(kw_only=True)
class Plateau(TrainerCallback):  # type: ignore[misc]
    """Stops training once validation has not improved for `patience` checks, and restores the best weights.

    The criterion is the mean probability of whole transcripts. It rises for epochs after the likelihood, which
    penalizes confident mistakes without bound, has started to fall; the share of exact ones rises with it, but in few
    steps.
    """

    model: Any
    measure: Callable[[], AnswerQuality]
    every: int
    """Optimizer steps between checks."""
    patience: int = 2
    """Checks without improvement before training stops. Default: 2."""
    history: list[tuple[int, AnswerQuality]] = field(default_factory=list)
    """(step, quality) of each check."""
    _best: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def state_dict(self) -> dict[str, Any]:
        return {"history": [(step, list(quality)) for step, quality in self.history], "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history = [(step, AnswerQuality(*quality)) for step, quality in state["history"]]
        self._best = {name: weight.to(self.model.device) for name, weight in state["best"].items()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        del args
        if state.global_step % self.every == 0 or control.should_training_stop:
            self.check(state.global_step)
            qualities = [quality for _, quality in self.history]
            earlier, latest = qualities[: -self.patience], qualities[-self.patience :]
            if earlier and max(latest) <= max(earlier):
                control.should_training_stop = True
        return control

    def check(self, step: int) -> None:
        """Measure, and store the weights if they are the best so far."""
        self.model.eval()
        quality = self.measure()
        self.model.train()
        if not self.history or quality > max(quality for _, quality in self.history):
            self._best = {
                name: weight.detach().clone() for name, weight in self.model.named_parameters() if weight.requires_grad
            }
        self.history.append((step, quality))

    def restore(self) -> None:
        """Load the best weights into the model."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self._best:
                    weight.copy_(self._best[name])


class _AnswerTrainer(Resumable, GuardedSteps, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for short actions, with budgets.

    The learning rate, after a short warm-up, falls linearly to 0 at the end of the budget, of steps or of time: without
    decay, training ends worse, and comparisons are unfair. On a CPU, logits are computed for learned tokens only; TRL
    also computes them for prompts, which takes half of a step.
    """

    warmup = 3

    def __init__(self, *args: Any, clock: StopAndLog, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.clock = clock

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        del num_training_steps

        def share(step: int) -> float:
            return min(1.0, (step + 1) / self.warmup) * max(0.0, 1.0 - self.clock.spent(step))

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # The loss of a mixture's router needs the model's own pass, and DistributedDataParallel its own.
        is_whole = inputs["input_ids"].device.type != "cpu" or self.aux_loss_enabled or self.args.world_size > 1
        if return_outputs or is_whole:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        given = {name: value for name, value in inputs.items() if name != "labels"}
        targets = inputs["labels"][:, 1:]
        learned = targets != -100
        with mixed_precision(model):
            states = model.base_model(**given, use_cache=False).last_hidden_state[:, :-1]
            logits = model.get_output_embeddings()(states[learned]).float()
        loss = cross_entropy(logits, targets[learned], reduction="sum")
        return loss / (learned.sum() if num_items_in_batch is None else num_items_in_batch)


@quiet_libraries()
@restored_threads()
def train_sft(
    language_model: LanguageModel,
    examples: Sequence[Transcript],
    settings: SFTSettings,
    *,
    out: Path,
    budget: Budget,
    seed: int,
    plateau: Plateau | None = None,
    log: StepLog | None = None,
    guard: StabilityGuard | None = None,
    resume: ResumePoints | None = None,
    track: Sequence[Tracker] = (),
) -> None:
    """Train the model in place with TRL's SFTTrainer; the loss is on the actions only.

    The learning rate falls linearly to 0 at the end of the budget. Transcripts without an action to learn are left out.

    Args:
        guard: of the stability; see `stability`. Default: None: nothing is watched.
        resume: when it writes states into `out`, from the last of which it goes on. Default: None: it keeps none.
        track: trackers that get the metrics of the log too. Default: none.

    Raises:
        UserError: there is no example, or several processes cannot share a batch.
        UnstableTrainingError: the guard gave up; the model has the best weights of before.
    """
    rows = [_row(episode) for episode in _learnable(language_model, examples)]
    if not rows:
        raise UserError("no examples to learn from: give SFT at least one task with a reference patch")
    prepare_to_train(language_model)
    freeze_bottom(language_model.model, settings.frozen)
    random.Random(seed).shuffle(rows)
    arguments = SFTConfig(
        **common_arguments(out, seed=seed, budget=budget, learning_rate=settings.learning_rate, track=track),
        per_device_train_batch_size=share_of(settings.batch_size, "batch_size"),
        max_length=None,
        train_sampling_strategy="group_by_length",
    )
    language_model.model.train()
    clock = StopAndLog(budget, log)
    # The guard comes first: what it adds to a step's numbers is logged with them.
    callbacks = [each for each in (guard, clock, plateau) if each is not None]
    trainer = _AnswerTrainer(
        language_model.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=language_model.tokenizer,
        callbacks=callbacks,
        clock=clock,
    )
    trainer.remove_callback(PrinterCallback)
    if guard is not None:
        guard.watch(trainer, is_online=False)
    with cached_frozen_activations(language_model.model):
        train_from_last_state(trainer, resume)
    if plateau is not None:
        plateau.restore()
    let_generate(language_model.model)
    language_model.model.eval()
    if guard is not None:
        guard.check()


def _learnable(language_model: LanguageModel, transcripts: Sequence[Transcript]) -> list[TokenizedEpisode]:
    """The transcripts as tokens, without those that have no action to learn."""
    harmony, end = Harmony.of(language_model.tokenizer), language_model.stop_ids[0]
    episodes = [
        tokenized(transcript, language_model.encode, end) if harmony is None else tokenized_calls(transcript, harmony)
        for transcript in transcripts
    ]
    return [episode for episode in episodes if any(episode.is_action)]


def _row(episode: TokenizedEpisode) -> dict[str, list[int]]:
    """An episode as TRL's SFTTrainer takes it; -100: the token is not learned."""
    learned = [token if learns else -100 for token, learns in zip(episode.tokens, episode.is_action, strict=True)]
    return {"input_ids": [*episode.prompt, *episode.tokens], "labels": [*[-100] * len(episode.prompt), *learned]}


@torch.no_grad()
def answer_quality(
    language_model: LanguageModel, examples: Sequence[Transcript], tokens_per_batch: int = 2048
) -> AnswerQuality:
    """The quality of the model's actions, from one forward pass per prompt: greedy decoding takes the likeliest token.

    Raises:
        UserError: there is no example.
    """
    episodes = _learnable(language_model, examples)
    if not episodes:
        raise UserError("no examples to measure answers on")
    rows, positions = pack([episode.prompt for episode in episodes], [episode.tokens for episode in episodes])
    order = sorted(range(len(rows)), key=lambda index: rows[index].length)
    likelihoods: dict[int, list[list[tuple[float, bool]]]] = {}
    for start, end in passes([rows[index].length for index in order], tokens_per_batch):
        some = [rows[index] for index in order[start:end]]
        likelihoods.update(zip(order[start:end], _likelihoods(language_model.model, some), strict=True))
    learned = [
        list(compress(likelihoods[row][column], episode.is_action))
        for (row, column), episode in zip(positions, episodes, strict=True)
    ]
    totals = [sum(likelihood for likelihood, _ in tokens) for tokens in learned]
    return AnswerQuality(
        probability=sum(map(math.exp, totals)) / len(totals),
        exact=sum(all(is_likeliest for _, is_likeliest in tokens) for tokens in learned) / len(learned),
        log_likelihood=sum(totals) / sum(map(len, learned)),
    )


def _likelihoods(model: Any, rows: Sequence[PackedRow]) -> list[list[list[tuple[float, bool]]]]:
    """(log-likelihood in nats, is it the likeliest?) of each token after the prompt, as [row][completion][token]."""
    normal = logits_of(model, prediction_states(model, rows)).log_softmax(-1)
    targets = torch.tensor([token for row in rows for answer in row.completions for token in answer])
    targets = targets.to(normal.device)
    chosen = unflatten(normal.gather(1, targets[:, None])[:, 0], rows)
    likeliest = unflatten(normal.argmax(-1) == targets, rows)
    return [
        [list(zip(values.tolist(), hits.tolist(), strict=True)) for values, hits in zip(row, row_hits, strict=True)]
        for row, row_hits in zip(chosen, likeliest, strict=True)
    ]
