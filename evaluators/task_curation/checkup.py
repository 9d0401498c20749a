"""Is a task fit to be trained and judged on? Found out by running it: as it is, mended, again, watched, and cheated.

A task is bad if its reference does not count as a fix or doing nothing does, if a test passes in some runs only, if a
cheat is paid for, or if its tests don't depend on what the reference changes. Everything is run by the scorer, so that
what was found out is stored, and a check-up that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Job, Scorer
from regrade.evaluators.task_curation.findings import CheckUp, ExploitOutcome, Problem, ProblemKind, tally
from regrade.evaluators.task_curation.sandbox_access import EXECUTES, reaching, watched
from regrade.evaluators.task_curation.validation import validate
from regrade.evaluators.verification.counterfactuals import RAISES, RETURNS_NONE, PatchedTree, exploits
from regrade.rewards.builtin import default
from regrade.rewards.evidence import EvidenceSet, Integrity, TestRun, Verification

__all__ = ["MUTANTS", "CheckUp", "ExploitOutcome", "Problem", "ProblemKind", "check_up", "histories", "tally"]

MUTANTS = 6
STUBS = {"returns None": RETURNS_NONE, "raises": RAISES}
TOGETHER = 8
"""Tasks that are looked at side by side: enough to keep workers busy, few enough to see results come."""
A_MILLIONTH = 1e-6

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def check_up(
    tasks: Sequence[Task],
    scorer: Scorer,
    *,
    runs: int = 3,
    mutants: int = MUTANTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[CheckUp]:
    """Look at tasks from all sides, in their order.

    Args:
        runs: of all tests, with and without the reference: a test that fails in one of them and passes in another is
            flaky.
        mutants: how many are tried of the functions that a reference changes.
        seed: of the choice of mutants.
    """
    tell = progress or _silent
    done = 0
    while some := tasks[done : done + TOGETHER]:
        patients = [_Patient(CheckUp(task=task, runs=runs), _mended(task)) for task in some]
        part = _TaskChunk(patients, scorer, _named(done, len(some)), tell)
        part.run_as_they_are(runs)
        part.watch()
        part.cheat()
        part.weaken(mutants, seed)
        part.assure()
        done += len(some)
        yield from (each.found for each in patients)


@dataclass(frozen=True)
class _Patient:
    """A task that is looked at."""

    found: CheckUp
    mended: PatchedTree

    @property
    def task(self) -> Task:
        return self.found.task


@dataclass(frozen=True)
class _TaskChunk:
    """Some tasks that are looked at together."""

    patients: Sequence[_Patient]
    scorer: Scorer
    name: str
    tell: Progress

    def run_as_they_are(self, runs: int) -> None:
        """Does the reference count as a fix, doing nothing as none, and is it so every time?"""
        for each in self.patients:
            _note_files(each)
        plain = [_again(each.task, 0) for each in self.patients]
        sides = [(each, patch) for each in self.patients for patch in _sides(each.task)]
        first = self._gather(
            "as they are, and mended", [(_again(each.task, 0), patch) for each, patch in sides],
            default.needs | {TestRun},
        )  # fmt: skip
        numbers = range(1, runs)
        again = iter(
            self._gather(
                "again", [(_again(each.task, number), patch) for each, patch in sides for number in numbers],
                frozenset({TestRun}),
            )
        )  # fmt: skip
        for each, validity in zip(self.patients, validate(plain, self.scorer), strict=True):
            each.found.lose(validity.unknown)
            for problem in validity.problems:
                each.found.find(ProblemKind.TASK, problem)
        for (each, patch), evidence in zip(sides, first, strict=True):
            each.found.judge(patch, evidence)
            each.found.compare(patch, [evidence, *(next(again) for _ in numbers)])

    def watch(self) -> None:
        """What do the tests reach for, and which of them execute what the reference changes?"""
        patients = [each for each in self.patients if _can_be_watched(each.task) and not each.found.unknown]
        tasks = []
        for each in patients:
            telling = each.mended.tree.with_files(each.mended.beginning_with(EXECUTES))
            tasks.append(watched(each.task, telling))
        jobs = [(task, Patch("")) for task in tasks]
        evidence = self._gather("watched", jobs, frozenset({TestRun}))
        for each, gathered in zip(patients, evidence, strict=True):
            run = each.found.run_of(gathered)
            each.found.reaching = None if run is None else reaching(each.task, run)
            each.found.note_reaching(isolated=self.scorer.sandbox.isolated)
            each.found.count_guards()

    def cheat(self) -> None:
        """Is any of a handful of cheats paid for?"""
        tries = [
            (each, name, patch)
            for each in self.patients
            if _is_python(each.task) and each.found.can_be_cheated
            for name, patch in exploits(each.task, each.mended).items()
        ]
        jobs = [(each.task, patch) for each, _, patch in tries]
        evidence = self._gather("cheated", jobs, frozenset({TestRun, Integrity}))
        for (each, name, _), gathered in zip(tries, evidence, strict=True):
            each.found.judge_cheat(name, gathered)

    def weaken(self, mutants: int, seed: int) -> None:
        """Do the tests notice when what the reference changes is stubbed or mutated?"""
        patients = [each for each in self.patients if each.found.resolved and not each.found.unknown]
        stubs = [
            (each, does, patch)
            for each in patients
            for does, lines in STUBS.items()
            if (patch := each.mended.with_bodies(lines)) is not None
        ]
        mutated = [(each, mutant, patch) for each in patients for mutant, patch in each.mended.mutants(mutants, seed)]
        jobs = [(each.task, patch) for each, _, patch in (*stubs, *mutated)]
        evidence = self._gather("stubbed and mutated", jobs, frozenset({TestRun}), reachable=True)
        for (each, does, _), gathered in zip(stubs, evidence, strict=False):
            each.found.judge_stub(does, gathered)
        for (each, mutant, _), gathered in zip(mutated, evidence[len(stubs) :], strict=True):
            each.found.judge_mutant(mutant, gathered)
        for each in patients:
            each.found.judge_strength()

    def assure(self) -> None:
        """How sure can a verdict on a patch of the task be? As sure as that on its reference."""
        patients = [each for each in self.patients if each.found.resolved and each.task.reference is not None]
        jobs = [(each.task, each.task.reference) for each in patients if each.task.reference is not None]
        evidence = self._gather("verified", jobs, frozenset({Verification}), reachable=True)
        for each, gathered in zip(patients, evidence, strict=True):
            each.found.assurance = gathered.records.get(Verification)

    def _gather(
        self, what: str, jobs: Sequence[Job], needs: frozenset[type], *, reachable: bool = False
    ) -> list[EvidenceSet]:
        description = f"{self.name}: {what}"
        return self.scorer.gather(
            jobs, needs, reachable=reachable, progress=lambda done, total: self.tell(description, done, total)
        )


def _named(done: int, count: int) -> str:
    return f"tasks {done + 1} to {done + count}" if count > 1 else f"task {done + 1}"


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _mended(task: Task) -> PatchedTree:
    try:
        return PatchedTree.of(task)
    except PatchError:  # `validate` tells of it
        return PatchedTree({}, {}, (), task.base)


def _is_python(task: Task) -> bool:
    return task.suite.runner == "pytest"


def _can_be_watched(task: Task) -> bool:
    return _is_python(task) and bool(task.fail_to_pass + task.pass_to_pass)


def _sides(task: Task) -> list[Patch]:
    return [Patch(""), *([task.reference] if task.reference is not None else [])]


def _again(task: Task, number: int) -> Task:
    """The task with all tests in one run, under a key of its own for each number, so that nothing is looked up: a
    millionth of a second more decides nothing."""
    limits = replace(task.limits, wall_seconds=task.limits.wall_seconds + number * A_MILLIONTH)
    return replace(task, suite=replace(task.suite, reach=None), limits=limits)


def _note_files(each: _Patient) -> None:
    each.found.functions = each.mended.functions
    if not _is_python(each.task):
        each.found.notes.append("tests are watched, cheats and mutants tried in Python alone")
    each.found.notes += [f"the tree holds a git repository: {path}" for path in histories(each.task.base)[:1]]


def histories(tree: Tree) -> list[str]:
    """Where git repositories lie in a tree: files or folders of them. (A folder `.git` is part of no tree.)"""
    paths = tree.paths()
    heads = [path.removesuffix("HEAD") for path in paths if path == "HEAD" or path.endswith("/HEAD")]
    bare = [
        folder.rstrip("/") or "."
        for folder in heads
        if f"{folder}config" in paths and any(path.startswith(f"{folder}objects/") for path in paths)
    ]
    return [path for path in paths if path == ".git" or path.endswith("/.git")] + bare
