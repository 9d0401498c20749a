"""Expert iteration (rejection-sampling fine-tuning): try, execute, keep what passed and broke nothing, learn from it.

Each round takes the next share of the tests-only tasks, so that over the rounds every task is tried. What a round
verified is kept for the later rounds, beside the demonstrations. References of tests-only tasks are never read.

Sources: Anthony et al. 1705.08439 (expert iteration); Singh et al. 2312.06585 (ReST-EM).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import Attempt, Spent, gather
from regrade.policy_training.environments.reward_shaping import Shaping
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.sft import Example, train_sft


@dataclass(frozen=True)
class Round:
    """What one round found and did."""

    attempts: list[Attempt]
    verified: list[Example]
    """New in this round."""
    spent: Spent


@dataclass
class ExpertIteration:
    """The settings, and the verified answers so far."""

    demonstrations: Sequence[Example]
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, samples=8))
    answers_per_task: int = 2
    """Distinct verified answers kept per task, so that easy tasks don't crowd out the rest."""
    learning_rate: float = 5e-5
    batch_size: int = 8
    frozen: float = 0.0
    replay: float = 1.0
    """Demonstrations, drawn anew each round, for each verified answer: enough of the old not to forget it, and not so
    much that a short round learns nothing new."""
    verified: list[Example] = field(default_factory=list)

    def round(
        self, language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, *, out: Path, budget: Budget,
        seed: int, shaping: Shaping | None = None, log: StepLog | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Round:  # fmt: skip
        """Try `tasks`, then train the model in place on all verified answers and a draw of the demonstrations."""
        policy = ModelPolicy(language_model, "expert-iteration")
        attempts, spent = gather(policy, tasks, self.sampling, seed, scorer, shaping or Shaping(), progress)
        new = verified_examples(attempts, self.answers_per_task)
        self.verified.extend(new)
        train_sft(
            language_model, self._lesson(seed), out=out, budget=budget, seed=seed, learning_rate=self.learning_rate,
            batch_size=self.batch_size, frozen=self.frozen, log=log,
        )  # fmt: skip
        return Round(attempts, new, spent)

    def _lesson(self, seed: int) -> list[Example]:
        count = max(self.batch_size, round(self.replay * len(self.verified)))
        replayed = random.Random(seed).sample(self.demonstrations, min(count, len(self.demonstrations)))
        return [*self.verified, *replayed]


def verified_examples(attempts: Iterable[Attempt], per_task: int) -> list[Example]:
    """The distinct verified answers of each task, most frequent first, at most `per_task` of each."""
    counts: dict[str, dict[Example, int]] = {}
    for attempt in attempts:
        if attempt.verified:
            example = Example(attempt.rollout.prompt, attempt.rollout.completion.strip())
            found = counts.setdefault(attempt.rollout.task_id, {})
            found[example] = found.get(example, 0) + 1
    return [
        example
        for found in counts.values()
        for example in sorted(found, key=lambda item: (-found[item], item.completion))[:per_task]
    ]


def shares(tasks: Sequence[Task], rounds: int, seed: int) -> list[list[Task]]:
    """The tasks, shuffled, dealt out to the rounds."""
    shuffled = sorted(tasks, key=lambda task: task.id)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[start::rounds] for start in range(rounds)]
