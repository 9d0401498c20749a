"""Compare two policies with intervals: one always applies the reference patch, the other only on every second task.

python examples/compare_policies.py TASKS    # such as the folder that build_tasks.py wrote
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators import Scorer, compare, evaluate
from regrade.rewards import tests


@dataclass(frozen=True)
class Scripted:
    """A policy: a name, and one rollout for each task and sample. It never sees the reference of a task itself."""

    name: str
    patches: dict[str, Patch]

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for trial in trials(tasks, samplings):
            yield trial.rollout(self.name, seed, self.patches.get(trial.task.id))


tasks = load_tasks(sys.argv[1])
fixes = {task.id: task.reference for task in tasks if task.reference is not None}
policies = [Scripted("half", dict(list(fixes.items())[::2])), Scripted("all", fixes)]
with Scorer() as scorer:
    half, everything = (
        evaluate(policy.propose(tasks, [Sampling(temperature=0.0, samples=1)], 0), tasks, scorer, tests)
        for policy in policies
    )
comparison = compare(half, everything)
print(comparison.words, "for", comparison.scope)
for name, difference in comparison.metrics.items():
    print(f"{name}: {difference.difference} [{difference.low}, {difference.high}]")
