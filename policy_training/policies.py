"""Policies: language models that answer in the short format, and scripted controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Policy, Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.policy_training.models import LanguageModel, load_model
from regrade.policy_training.prompts import Question, ask

MAX_ANSWER_TOKENS = 40


@dataclass(frozen=True)
class NoOp:
    """Control: changes nothing. It breaks nothing and fixes nothing, so no metric may crown it."""

    name: str = "no-op"

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for task in tasks:
            for sampling in samplings:
                for sample in range(sampling.samples):
                    yield Rollout(task.id, self.name, sampling.temperature, sample, seed, Patch(""))


@dataclass(frozen=True)
class Reference:
    """Control: applies the reference patch. Built from tasks that still have theirs, so no real policy can be it."""

    patches: dict[str, Patch]
    name: str = "reference"

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Reference:
        return cls({task.id: task.reference for task in tasks if task.reference is not None})

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for task in tasks:
            if task.id not in self.patches:
                raise UserError(f"task {task.id!r} has no reference patch: leave it out, or evaluate another policy")
            for sampling in samplings:
                for sample in range(sampling.samples):
                    yield Rollout(task.id, self.name, sampling.temperature, sample, seed, self.patches[task.id])


@dataclass
class ModelPolicy:
    """A language model that answers `LINE new text`."""

    language_model: LanguageModel
    name: str
    batch_rows: int = 96
    """Completions sampled at a time; prompts of similar length share a batch."""
    progress: Callable[[int, int], None] | None = None

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """Sample every task at every temperature with one pass over its prompt."""
        questions = [ask(task.without_reference()) for task in tasks]
        numbered = [(s.temperature, sample) for s in samplings for sample in range(s.samples)]
        prompts = [self.language_model.encode(question.prompt) for question in questions]
        order = sorted(range(len(questions)), key=lambda index: len(prompts[index]))
        size = max(1, self.batch_rows // len(numbered))
        done = 0
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            yield from self._batch([questions[i] for i in batch], [prompts[i] for i in batch], numbered, seed)
            done += len(batch)
            if self.progress is not None:
                self.progress(done, len(order))

    def _batch(
        self, questions: list[Question], prompts: list[list[int]], numbered: list[tuple[float, int]], seed: int
    ) -> Iterator[Rollout]:
        began = time.perf_counter()
        answers = complete(self.language_model, prompts, [temperature for temperature, _ in numbered], seed)
        seconds = (time.perf_counter() - began) / (len(prompts) * len(numbered))
        for question, completions in zip(questions, answers, strict=True):
            for (temperature, sample), tokens in zip(numbered, completions, strict=True):
                text = self.language_model.decode(tokens)
                patch = question.patch(text)
                yield Rollout(
                    question.task.id, self.name, temperature, sample, seed, patch or Patch(""), question.prompt, text,
                    well_formed=patch is not None, tokens=len(tokens), seconds=seconds,
                )  # fmt: skip


def complete(
    language_model: LanguageModel, prompts: list[list[int]], temperatures: list[float], seed: int
) -> list[list[list[int]]]:
    """Completions as token ids, [prompt][temperature]; the same seed, batch and weights give the same tokens."""
    import torch

    from regrade.policy_training.shared_prompts import sample

    model = language_model.model
    was_training = model.training
    model.eval()
    generator = torch.Generator(device=model.device).manual_seed(_batch_seed(prompts, seed))
    try:
        return sample(
            model,
            prompts,
            temperatures,
            stop_ids=language_model.stop_ids,
            max_tokens=MAX_ANSWER_TOKENS,
            generator=generator,
        )
    finally:
        model.train(was_training)


def _batch_seed(prompts: list[list[int]], seed: int) -> int:
    """A seed that differs by batch but not by what came before it, so that a resumed run repeats it."""
    value = seed
    for token in prompts[0] + prompts[-1]:
        value = (value * 1_000_003 + token + 1) % (2**61 - 1)
    return value


def load_policy(name: str, tasks: Sequence[Task] = (), *, device: str | None = None) -> Policy:
    """`no-op`, `reference` (of the given tasks), `smollm2-135m`, a checkpoint's folder, or a model on the hub.

    Raises:
        UserError: no such model.
    """
    if name in ("no-op", "noop"):
        return NoOp()
    if name == "reference":
        return Reference.of(tasks)
    return ModelPolicy(load_model(name, device=device), name=Path(name).name or name)
