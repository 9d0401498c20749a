"""Do the cross-module tasks measure what their shown tests miss? Answers of known kinds, without any model.

For each task: no change, the reference, the wrong fix of its recipe, and random edits. A *random line* is an edit of
the buggy line by one of the mutation kinds: the guess of a small policy. A *repair with a slip* takes the bug back and
plants a random bug elsewhere in the function: the answer of an agent that forgets to undo its first attempt. Of both:
how often do all shown tests pass although the task is not solved, and how often does such an answer break guarded
tests? An agent that runs the shown tests and submits as soon as they pass cannot tell these from a fix.

    python benchmarks/cross_module.py                          # held-out tasks, four draws each
    python benchmarks/cross_module.py --split tests_only --tasks 50 --draws 2
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from _latest import record

from regrade.datasets.mutation.mutants import Mutant, Mutations
from regrade.datasets.mutation.rebuilding import planting_patch
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import SPLITS, load_tasks, load_wrong_fixes
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.analysis.side_metrics import PLACES
from regrade.evaluators.evaluation.broken_places import places_of
from regrade.evaluators.evaluation.footprint import footprint
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import End, TestRun

NO_CHANGE, REFERENCE, WRONG_FIX = "no change", "the reference", "the wrong fix of the recipe"
RANDOM_LINE, SLIP = "random line", "repair with a slip"
KINDS = (NO_CHANGE, REFERENCE, WRONG_FIX, RANDOM_LINE, SLIP)


@dataclass(frozen=True)
class Answer:
    task: Task
    kind: str
    patch: Patch


@dataclass(frozen=True)
class Outcome:
    """What the tests say of one answer."""

    kind: str
    task: str
    solved: bool
    """All tests pass."""
    passes_shown: bool
    breaks: bool
    breaks_hidden: bool
    places: tuple[str, ...]


def answers(task: Task, wrong: Patch | None, draws: int) -> Iterator[Answer]:
    yield Answer(task, NO_CHANGE, Patch(""))
    if task.reference is not None:
        yield Answer(task, REFERENCE, task.reference)
    if wrong is not None:
        yield Answer(task, WRONG_FIX, wrong)
    assert task.target is not None
    file, function = task.target.file, task.target.function
    fixed, buggy = (Mutations(tree.read(file), file) for tree in (Tree(task.base.root), task.base))
    bug = next(n for n, pair in enumerate(zip(lines(fixed), lines(buggy), strict=True), 1) if pair[0] != pair[1])
    generator = random.Random(task.id)
    edits = [mutant for mutant in mutants(buggy, function) if mutant.line == bug and mutant.source != fixed.source]
    for mutant in generator.sample(edits, min(draws, len(edits))):
        yield Answer(task, RANDOM_LINE, planting_patch(mutant))
    slips = [mutant for mutant in mutants(fixed, function) if mutant.line != bug]
    for mutant in generator.sample(slips, min(draws, len(slips))):
        yield Answer(task, SLIP, Patch.between({file: task.base.read(file)}, {file: mutant.source}))


def lines(mutations: Mutations) -> list[str]:
    return mutations.source.split("\n")


def mutants(mutations: Mutations, function: str) -> list[Mutant]:
    found = [mutant for one in mutations.functions if one.name == function for mutant in mutations.of(one)]
    return [mutant for mutant in found if mutations.differs(mutant)]


def outcome(answer: Answer, run: TestRun) -> Outcome:
    task = answer.task
    shown = {test for test in task.tests if {test, file_of(test)} & set(task.shown.tests or ())}
    own = footprint(task, answer.patch)
    fixed_shown = shown & set(task.fail_to_pass) <= set(run.fixed)
    return Outcome(
        kind=answer.kind,
        task=task.id,
        solved=run.resolved,
        passes_shown=run.end is End.COMPLETED and fixed_shown and not shown & set(run.broken),
        breaks=bool(run.broken) or run.end is not End.COMPLETED,
        breaks_hidden=bool(set(run.broken) - shown),
        places=tuple(places_of(task, own.lines if own else (), run.broken)),
    )


def summary(outcomes: Sequence[Outcome]) -> Mapping[str, float | None]:
    passing = [one for one in outcomes if one.passes_shown]
    wrong = [one for one in passing if not one.solved]
    return {
        "answers": len(outcomes),
        "solved": share([one.solved for one in outcomes]),
        "broke": share([one.breaks for one in outcomes]),
        "broke hidden tests": share([one.breaks_hidden for one in outcomes]),
        "pass the shown tests": share([one.passes_shown for one in outcomes]),
        "wrong although they pass": len(wrong),
        "of these broke hidden tests": share([one.breaks_hidden for one in wrong]),
    }


def share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def written(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--split", choices=SPLITS, default="held_out")
    parser.add_argument("--tasks", type=int, help="a random sample of so many")
    parser.add_argument("--draws", type=int, default=4, help="random edits of each kind for a task")
    options = parser.parse_args()

    tasks = load_tasks("cross-module", split=options.split)
    if options.tasks is not None and options.tasks < len(tasks):
        tasks = random.Random(0).sample(tasks, options.tasks)
    wrong = load_wrong_fixes("cross-module", split=options.split)
    every = [answer for task in tasks for answer in answers(task, wrong.get(task.id), options.draws)]
    with Scorer() as scorer:
        gathered = scorer.gather([(one.task, one.patch) for one in every], [TestRun], reachable=True)
    runs = [(one, evidence.records.get(TestRun)) for one, evidence in zip(every, gathered, strict=True)]
    outcomes = [outcome(one, run) for one, run in runs if isinstance(run, TestRun)]

    packages = Counter(task.repository for task in tasks)
    print(f"{len(tasks)} tasks of {options.split}: {', '.join(f'{name} {n}' for name, n in packages.items())}")
    figures = {}
    for kind in KINDS:
        own = [one for one in outcomes if one.kind == kind]
        figures[kind] = summary(own)
        print(f"\n{kind}")
        for name, value in figures[kind].items():
            print(f"  {name:30} {written(value)}")
        places = Counter(place for one in own for place in one.places)
        print("  broken tests                   " + ", ".join(f"{name} {places[name]}" for name in PLACES))
        print(
            "  broke there, of all answers    "
            + ", ".join(f"{name} {written(share([name in one.places for one in own]))}" for name in PLACES)
        )
    record("cross_module", {"split": options.split, "tasks": len(tasks), **figures})


if __name__ == "__main__":
    main()
