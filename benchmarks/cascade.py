"""What a cascade spares and what it gets wrong: executed attempts, judged again by the cascade at several settings.

Each attempt runs four times: its FAIL_TO_PASS tests alone, the tests of their files, all tests that its change can
reach, and the whole suite. What has run is stored, so a second call runs nothing. Then each setting judges the same
attempts from these runs, and its pay is compared with that of the whole suite. The rows `whole suite` and `test
selection` run everything, or all that a change can reach.

    python benchmarks/cascade.py --tasks 8                           # patches by rule: references, mutants, near misses
    python benchmarks/cascade.py --run runs/demo --model FOLDER      # attempts of a run, with a reward model

A setting is wrong about an attempt if it pays otherwise by more than 0.1. Seconds are the wall times of the runs, on a
machine with nothing else at work.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from _latest import record
from statsmodels.stats.proportion import proportion_confint

from regrade.datasets.applying import changed_files
from regrade.datasets.mutation.mutants import Mutations
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.scoring.probes import EXECUTED
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.labelled_attempts import labelled_attempts
from regrade.evaluators.storage.run import Run
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.cascade.spared import reached
from regrade.policy_training.environments.attempts import candidates, judge, needs_of
from regrade.policy_training.environments.training_reward import (
    DEFAULT_TRAINING_REWARD,
    TrainingReward,
    load_training_reward,
)
from regrade.rewards.evidence import EvidenceSet, FailToPassRun, PartialRun, Prediction, TestFileRun, TestRun
from regrade.rewards.reward_model_folders import prediction_of

TOLERANCE = 0.1
NEVER = 1e-9
"""Share of audits: the whole suite has run for every attempt anyway."""
SEVERITIES = (0.0, 0.02, 0.1)
UNSURE = (0.05, 0.1, 0.2)

Job = tuple[Task, Patch]
Key = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of an evaluation or a training, whose attempts are judged")
    parser.add_argument("--split", default="validation", help="of the ready-made tasks")
    parser.add_argument("--tasks", type=int, default=8, help="tasks, drawn by the seed 0")
    parser.add_argument("--mutants", type=int, default=4, help="patches of each rule a task, without --run")
    parser.add_argument("--model", type=Path, help="folder of a reward model")
    parser.add_argument("--reward", help="FILE:NAME, or a built-in reward; default: the default training reward")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="default: the user's cache")
    chosen = parser.parse_args()
    pays = DEFAULT_TRAINING_REWARD if chosen.reward is None else load_training_reward(chosen.reward)
    tasks = drawn_tasks(chosen.split, None if chosen.run else chosen.tasks)
    jobs = jobs_of_run(chosen.run, tasks) if chosen.run else jobs_by_rule(tasks, chosen.mutants)
    prediction = None if chosen.model is None else prediction_of(chosen.model)
    with Scorer(workers=chosen.workers, cache=chosen.cache) as scorer:
        known = Executions.of(jobs, pays, scorer, prediction)
    print(f"{len(known.jobs)} distinct patches of {len({task.id for task, _ in known.jobs})} tasks: {known.summary()}")
    rows = curve(known, pays, prediction, chosen.model)
    show(rows)
    record("cascade", {"patches": len(known.jobs), **{row.name: row.figures(rows) for row in rows}})


# ------------------------------------------------------------ the attempts


def drawn_tasks(split: str, count: int | None) -> list[Task]:
    tasks = sorted(load_tasks(split=split), key=lambda task: task.id)
    return tasks if count is None else random.Random(0).sample(tasks, min(count, len(tasks)))


def jobs_of_run(folder: Path, tasks: Sequence[Task]) -> list[Job]:
    """The attempts of a run, each distinct patch of a task once."""
    by_id = {task.id: task for task in tasks}
    attempts = labelled_attempts(Run.open(folder), tasks)
    return [(by_id[each.task_id], Patch(each.patch)) for each in attempts if each.task_id in by_id and each.patch]


def jobs_by_rule(tasks: Sequence[Task], count: int) -> list[Job]:
    """Of each task the reference, mutants of the function with its bug, and mutants of the fixed function."""
    jobs = []
    for task in tasks:
        if task.reference is None or task.target is None:
            continue
        file, function = task.target.file, task.target.function
        before, after = task.base.read(file), changed_files(task.base, task.reference)[file]
        assert after is not None
        texts = [after, *mutants(before, file, function, count), *mutants(after, file, function, count)]
        jobs += [(task, Patch.between({file: before}, {file: text})) for text in dict.fromkeys(texts) if text != before]
    return jobs


def mutants(text: str, file: str, function: str, count: int) -> list[str]:
    """As many mutants of a function, drawn by the seed 0."""
    mutations = Mutations(text, file)
    found = [
        mutant.source
        for target in mutations.functions
        if target.name == function
        for mutant in mutations.of(target)
        if mutations.differs(mutant)
    ]
    return random.Random(0).sample(found, min(count, len(found)))


# ------------------------------------------------------------ what runs, once


@dataclass
class Executions:
    """The evidence of all stages of each job. In the place of a scorer it answers from that, and counts the cost."""

    jobs: list[Job]
    stages: dict[Key, EvidenceSet]
    """With what can be reached alone, and with all that is read."""
    whole: dict[Key, EvidenceSet]
    cost: Cost = field(default_factory=lambda: Cost())

    @classmethod
    def of(
        cls, jobs: Sequence[Job], pays: TrainingReward, scorer: Scorer, prediction: type[Prediction] | None
    ) -> Executions:
        tasks = {task.id: task for task, _ in jobs}
        found = candidates([rollout_of(job) for job in jobs], tasks, pays)
        distinct = {each.key: (tasks[each.rollout.task_id], each.rollout.patch) for each in found if each.runs}
        to_run = list(distinct.values())
        needs = needs_of(pays)
        partly = {FailToPassRun, TestFileRun, *([] if prediction is None else [prediction])}
        gathered = [
            scorer.gather(to_run, needs | partly, reachable=True, progress=progress("the stages")),
            scorer.gather(to_run, needs, progress=progress("the whole suite")),
        ]
        stages, whole = (
            {key: as_failure(job[0], evidence) for (key, job), evidence in zip(distinct.items(), each, strict=True)}
            for each in gathered
        )
        return cls(to_run, stages, whole)

    def gather(
        self, jobs: Sequence[Job], needs: Collection[type], *, reachable: bool = False, progress: Any = None
    ) -> list[EvidenceSet]:
        """As `Scorer.gather`."""
        del progress
        found = []
        for task, patch in jobs:
            evidence = (self.stages if reachable or TestRun not in needs else self.whole)[task.id, patch.digest]
            records = {kind: evidence.records[kind] for kind in needs if kind in evidence.records}
            for kind in EXECUTED.intersection(records):
                self.cost.add(records[kind])
            found.append(replace(evidence, records=records))
        return found

    def summary(self) -> str:
        """What their whole suites showed."""
        runs: list[TestRun] = [evidence.records[TestRun] for evidence in self.whole.values()]
        broke = [key for key, evidence in self.whole.items() if evidence.records[TestRun].broken]
        failed = [key for key in broke if _targets_fail(self.whole[key].records[TestRun])]
        in_file = [key for key in failed if len(self.stages[key].records[TestFileRun].failing(_kept(self, key)))]
        return (
            f"{sum(run.resolved for run in runs)} clean fixes, {len(broke)} break something; of these "
            f"{len(failed)} fail FAIL_TO_PASS, and {len(in_file)} of those break a test of its file"
        )


def _targets_fail(run: TestRun) -> bool:
    return len(run.fixed) < len(run.fail_to_pass)


def _kept(known: Executions, key: Key) -> tuple[str, ...]:
    return cast(TestRun, known.whole[key].records[TestRun]).pass_to_pass


@dataclass
class Cost:
    """What ran."""

    tests: int = 0
    sessions: int = 0
    """Processes that ran tests."""
    suites: int = 0
    """Those of them that ran all that a change can reach, or all."""
    seconds: float = 0.0

    def add(self, evidence: object) -> None:
        if isinstance(evidence, PartialRun):
            self.tests += len(evidence.outcomes)
        elif isinstance(evidence, TestRun):
            self.tests += len(reached(evidence))
            self.suites += 1
        else:
            return
        self.sessions += 1
        self.seconds += evidence.seconds


def rollout_of(job: Job) -> Rollout:
    task, patch = job
    return Rollout(task_id=task.id, policy="recorded", temperature=1.0, sample=0, seed=0, patch=patch)


def progress(what: str) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if done == total or done % 20 == 0:
            print(f"{what}: {done} of {total}", flush=True)

    return told


# ------------------------------------------------------------ the curve


@dataclass(frozen=True)
class Row:
    """One setting."""

    name: str
    cost: Cost
    errors: list[float]
    """What each attempt is paid too much."""

    @property
    def wrong(self) -> int:
        return sum(abs(error) > TOLERANCE for error in self.errors)

    def spared(self, rows: Sequence[Row]) -> tuple[float, float]:
        """Shares of the tests and of the seconds that test selection alone runs."""
        selection = next(row for row in rows if row.name == SELECTION)
        return 1 - self.cost.tests / selection.cost.tests, 1 - self.cost.seconds / selection.cost.seconds

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        tests, seconds = self.spared(rows)
        return {
            "tests_spared": round(tests, 3),
            "seconds_spared": round(seconds, 3),
            "suites": self.cost.suites,
            "wrong": round(self.wrong / len(self.errors), 4),
        }


WHOLE, SELECTION = "whole suite", "test selection"


def curve(
    known: Executions, pays: TrainingReward, prediction: type[Prediction] | None, model: Path | None
) -> list[Row]:
    """One row a setting, the two without a cascade first."""
    rollouts, tasks = [rollout_of(job) for job in known.jobs], {task.id: task for task, _ in known.jobs}
    truth, whole = _paid_in_full(known, pays, rollouts, tasks)
    rows = [Row(WHOLE, whole, [0.0] * len(truth))]
    known.cost = Cost()
    selected = judge(rollouts, tasks, cast(Scorer, known), pays)
    rows.append(Row(SELECTION, known.cost, _errors([each.reward for each in selected], truth)))
    for name, settings in settings_of_curve(model):
        known.cost = Cost()
        cascade = Cascade(settings, prediction=prediction if settings.model is not None else None)
        attempts = [
            attempt for rollout in rollouts for attempt in cascade.judge([rollout], tasks, cast(Scorer, known), pays)
        ]
        rows.append(Row(name, known.cost, _errors([each.reward for each in attempts], truth)))
    return rows


def settings_of_curve(model: Path | None) -> Iterator[tuple[str, CascadeSettings]]:
    yield "charge 0", CascadeSettings(audit=0)
    for charge in (0.6, 1.2):
        for severity in SEVERITIES:
            name = f"charge {charge:g}, severity {severity:g}"
            yield name, CascadeSettings(charge=charge, severity=severity, audit=NEVER)
    if model is not None:
        for unsure in UNSURE:
            for answers in ("rest", "failures"):
                yield (
                    f"charge 0.6, severity 0.02, model {answers}, unsure {unsure:g}",
                    CascadeSettings(
                        charge=0.6, severity=0.02, audit=NEVER, model=model, model_answers=answers, unsure=unsure
                    ),
                )
        yield (
            "model alone",
            CascadeSettings(severity=0.02, audit=NEVER, model=model, model_answers="all"),
        )


def _paid_in_full(
    known: Executions, pays: TrainingReward, rollouts: Sequence[Rollout], tasks: dict[str, Task]
) -> tuple[list[float | None], Cost]:
    """What the whole suite pays."""

    class Whole:
        def gather(self, jobs: Sequence[Job], needs: Collection[type], **_: object) -> list[EvidenceSet]:
            return known.gather(jobs, needs)

    known.cost = Cost()
    attempts = judge(rollouts, tasks, cast(Scorer, Whole()), pays)
    return [attempt.reward for attempt in attempts], known.cost


def _errors(paid: Sequence[float | None], truth: Sequence[float | None]) -> list[float]:
    """Attempts that the infrastructure left unscored are left out."""
    return [one - other for one, other in zip(paid, truth, strict=True) if one is not None and other is not None]


def show(rows: Sequence[Row]) -> None:
    header = ("tests", "processes", "suites", "seconds", "tests spared", "time spared", "wrong [95 %]", "mean error")
    print(f"\n{'setting':44} {header[0]:>7} {header[1]:>9} {header[2]:>7} {header[3]:>8}", end="")
    print(f" {header[4]:>12} {header[5]:>11} {header[6]:>22} {header[7]:>10}")
    for row in rows:
        tests, seconds = row.spared(rows)
        low, high = proportion_confint(row.wrong, len(row.errors), method="wilson")
        wrong = f"{row.wrong / len(row.errors):6.1%} [{low:.1%}, {high:.1%}]"
        mean = sum(map(abs, row.errors)) / len(row.errors)
        cost = row.cost
        print(f"{row.name:44} {cost.tests:7} {cost.sessions:9} {cost.suites:7} {cost.seconds:8.1f}", end="")
        print(f" {tests:12.1%} {seconds:11.1%} {wrong:>22} {mean:10.4f}")


if __name__ == "__main__":
    main()
