"""The recipe of training data: executes patches by rule on many tasks, as an evaluation of scripted policies.

Rows and evidence are those of any evaluation, so a stopped run goes on where it stopped, and another reward or model
reads the same run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Stage, Sweep, check_entrant, enter
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.policy_files import ScriptedRow, scripted_entrant
from regrade.rewards.algebra import Reward
from regrade.rewards.builtin import default
from regrade.rewards.evidence import EvidenceSet

PATCHES: Mapping[str, int] = MappingProxyType(
    {"no-op": 1, "reference": 1, "mutants": 4, "near-misses": 4, "rewrites": 2, "cheats": 1}
)
"""Scripted policy -> its patches a task, at most: 13, and fewer where a rule finds fewer. The ready-made tasks make
more than 20,000."""
BLOCK = 200
"""Tasks that are finished, by all policies, before the next ones begin: a stopped run is whole for those before."""


@dataclass(frozen=True)
class ReachableTests:
    """A scorer that runs, of each patch, only the tests that it can reach: the others keep their outcome."""

    scorer: Scorer

    def gather(self, jobs: Sequence[tuple[Task, Patch]], needs: Collection[type]) -> list[EvidenceSet]:
        return self.scorer.gather(jobs, needs, reachable=True)


def execute_attempts(
    run: Run,
    tasks: Sequence[Task],
    scorer: Scorer,
    *,
    patches: Mapping[str, int] = PATCHES,
    reward: Reward = default,
    seed: int = 0,
    stage: Stage = lambda _title: nullcontext(lambda _done, _total: None),
    note: Callable[[str], None] = lambda _text: None,
) -> int:
    """Execute the patches of scripted policies on tasks with a reference, and store rows and evidence in the run.

    Args:
        patches: scripted policy -> its patches a task, at most; rules that find fewer make fewer.
        seed: chooses among the patches of a rule.

    Returns:
        the number of attempts, those of earlier calls included.

    Raises:
        UserError: the run has another policy of a scripted policy's name, or there is no such policy.
    """
    names = [name for name, count in patches.items() if count]
    for name in names:
        check_entrant(run, _entrant(name, patches[name], tasks))
    count = 0
    blocks = _blocks(tasks, seed)
    for number, block in enumerate(blocks, 1):

        def block_stage(title: str, number: int = number) -> AbstractContextManager[Callable[[int, int], None]]:
            return stage(f"{title}, part {number} of {len(blocks)}")

        judge = Judge(scorer=ReachableTests(scorer), reward=reward, seed=seed, stage=block_stage, note=note)
        for name in names:
            count += len(enter(run, _entrant(name, patches[name], block), Sweep(), (), block, judge))
    return count


def _blocks(tasks: Sequence[Task], seed: int) -> list[list[Task]]:
    """Each with tasks of all repositories, drawn by the seed, and within it in the order of their names: patches of one
    repository follow each other, as its environment is warm then."""
    ordered = sorted(tasks, key=lambda task: task.id)
    drawn = random.Random(seed).sample(ordered, len(ordered))
    starts = range(0, len(drawn), BLOCK)
    return [sorted(drawn[start : start + BLOCK], key=lambda task: task.id) for start in starts]


def _entrant(name: str, count: int, tasks: Sequence[Task]) -> Entrant:
    with_reference = [task for task in tasks if task.reference is not None]
    return scripted_entrant(ScriptedRow(scripted=name, patches=count), with_reference)
