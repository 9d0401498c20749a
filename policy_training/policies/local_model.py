"""Local language models as policies that answer once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.precision import sampler_of
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS, SingleTurnPrompt, prompt_of
from regrade.policy_training.policies.threads import on_free_cores

if TYPE_CHECKING:
    from regrade.policy_training.policies.row_batch import Completion


@dataclass
class ModelPolicy:
    """A language model that answers `LINE new text`."""

    language_model: LanguageModel
    name: str
    progress: Callable[[int, int], None] | None = None

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """Sample every task at every temperature with one pass over its prompt, in the order in which tasks end."""
        prompts = [prompt_of(task.without_reference()) for task in tasks]
        numbered = [(s.temperature, sample) for s in samplings for sample in range(s.samples)]
        began = time.perf_counter()
        encoded = [self.language_model.encode(prompt.text) for prompt in prompts]
        answered = _completions(self.language_model, encoded, [temperature for temperature, _ in numbered], seed)
        for done, (index, completions) in enumerate(answered, 1):
            seconds = (time.perf_counter() - began) / len(numbered)
            for (temperature, sample), completion in zip(numbered, completions, strict=True):
                yield self._rollout(prompts[index], completion, temperature, sample, seed, seconds)
            if self.progress is not None:
                self.progress(done, len(tasks))
            began = time.perf_counter()  # the time that the caller spends is not generation

    def _rollout(
        self,
        prompt: SingleTurnPrompt,
        completion: Completion,
        temperature: float,
        sample: int,
        seed: int,
        seconds: float,
    ) -> Rollout:
        text = self.language_model.decode(completion.tokens)
        patch = prompt.patch(text)
        return Rollout(
            task_id=prompt.task.id,
            policy=self.name,
            temperature=temperature,
            sample=sample,
            seed=seed,
            patch=patch or Patch(""),
            prompt=prompt.text,
            completion=text,
            well_formed=patch is not None,
            tokens=len(completion.tokens),
            seconds=seconds,
            log_probability=fmean(completion.log_probs) if completion.log_probs else None,
        )


def complete(
    language_model: LanguageModel, prompts: list[list[int]], temperatures: list[float], seed: int
) -> Iterator[tuple[int, list[list[int]]]]:
    """(index of the prompt, its completions as token ids, one per temperature), in the order in which they end."""
    for index, completions in _completions(language_model, prompts, temperatures, seed):
        yield index, [completion.tokens for completion in completions]


def _completions(
    language_model: LanguageModel, prompts: list[list[int]], temperatures: list[float], seed: int
) -> Iterator[tuple[int, list[Completion]]]:
    from regrade.policy_training.policies.sampling import stream

    with sampler_of(language_model.model) as model, on_free_cores():
        yield from stream(
            model,
            prompts,
            temperatures,
            stop_ids=language_model.stop_ids,
            max_tokens=MAX_ANSWER_TOKENS,
            seed=seed,
        )
