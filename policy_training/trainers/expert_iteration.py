"""Expert iteration (rejection-sampling fine-tuning): sample, execute, and train on the clean fixes.

Each round takes the next share of the tests-only tasks, so that the rounds cover every task. Later rounds also train on
the verified answers of earlier ones, and on demonstrations. References of tests-only tasks are never read.

Sources: Anthony et al. 1705.08439 (expert iteration); Singh et al. 2312.06585 (ReST-EM).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import Attempt, WallSeconds, gather
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.settings import ExpertIterationSettings
from regrade.policy_training.trainers.sft import train_sft


@dataclass(frozen=True)
class Round:
    """The result of one round."""

    attempts: list[Attempt]
    verified: list[Transcript]
    """The new verified answers."""
    spent: WallSeconds


@dataclass
class ExpertIteration:
    """The state between rounds: the demonstrations, and the verified answers so far."""

    demonstrations: Sequence[Transcript]
    settings: ExpertIterationSettings = field(default_factory=ExpertIterationSettings)
    verified: list[Transcript] = field(default_factory=list)

    def round(
        self,
        language_model: LanguageModel,
        tasks: Sequence[Task],
        scorer: Scorer,
        *,
        out: Path,
        budget: Budget,
        seed: int,
        reward: TrainingReward = DEFAULT_TRAINING_REWARD,
        log: StepLog | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Round:
        """Sample attempts at `tasks`, then train the model in place on all verified answers and some demonstrations.

        Args:
            reward: of the attempts that it returns. An answer is learned if it is verified; among the verified answers
                of a task, the reward chooses.

        Raises:
            UserError: there is neither a verified answer nor a demonstration.
        """
        settings, policy = self.settings, ModelPolicy(language_model, "expert-iteration")
        attempts, spent = gather(policy, tasks, settings.sampling, seed, scorer, reward, progress)
        new = verified_examples(attempts, settings.answers_per_task)
        self.verified.extend(new)
        train_sft(language_model, self._lesson(seed), settings.sft, out=out, budget=budget, seed=seed, log=log)
        return Round(attempts, new, spent)

    def _lesson(self, seed: int) -> list[Transcript]:
        count = max(self.settings.sft.batch_size, round(self.settings.replay * len(self.verified)))
        replayed = random.Random(seed).sample(self.demonstrations, min(count, len(self.demonstrations)))
        return [*self.verified, *replayed]


def verified_examples(attempts: Iterable[Attempt], per_task: int) -> list[Transcript]:
    """The distinct verified answers of each task, at most `per_task` per task: those of the highest training value
    first, and of equal ones the most frequent."""
    counts: dict[str, dict[Transcript, int]] = {}
    values: dict[Transcript, float] = {}
    for attempt in attempts:
        if attempt.verified:
            example = Transcript.of_answer(attempt.rollout.prompt, attempt.rollout.completion.strip())
            examples = counts.setdefault(attempt.rollout.task_id, {})
            examples[example] = examples.get(example, 0) + 1
            values[example] = -math.inf if attempt.reward is None else attempt.reward
    return [
        example
        for examples in counts.values()
        for example in sorted(examples, key=lambda item: (-values[item], -examples[item], item.completion))[:per_task]
    ]


def shares(tasks: Sequence[Task], rounds: int, seed: int) -> list[list[Task]]:
    """The shuffled tasks in `rounds` disjoint shares."""
    shuffled = sorted(tasks, key=lambda task: task.id)
    random.Random(seed).shuffle(shuffled)
    return [shuffled[start::rounds] for start in range(rounds)]
