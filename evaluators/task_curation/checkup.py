"""Checks whether tasks are fit for training and evaluation, by executing their tests in several ways.

A task is bad if its reference does not count as a fix or an empty patch does, if a test is flaky, if the task rewards
an exploit, or if its tests don't depend on the code that the reference changes. The scorer executes and stores
everything, so an interrupted check-up resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Job, Scorer
from regrade.evaluators.task_curation.findings import CheckUp, ExploitOutcome, Problem, ProblemKind, tally
from regrade.evaluators.task_curation.sandbox_access import REPORT_EXECUTION, accesses_of, observed_task
from regrade.evaluators.task_curation.validation import editable_expectations, validate
from regrade.evaluators.verification.counterfactuals import RAISES, RETURNS_NONE, PatchedTree, exploits
from regrade.rewards.builtin import default
from regrade.rewards.evidence import EvidenceSet, Integrity, TestRun, Verification

__all__ = ["MUTANTS", "CheckUp", "ExploitOutcome", "Problem", "ProblemKind", "check_up", "git_repositories", "tally"]

MUTANTS = 6
STUBS = {"returns None": RETURNS_NONE, "raises": RAISES}
CHUNK_SIZE = 8
"""Tasks examined together: enough to keep workers busy, few enough for early results."""
A_MILLIONTH = 1e-6

Progress = Callable[[str, int, int], None]
"""Called with (current activity, steps done, total steps)."""


def check_up(
    tasks: Sequence[Task],
    scorer: Scorer,
    *,
    runs: int = 3,
    mutants: int = MUTANTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[CheckUp]:
    """Examine tasks, and yield one check-up per task, in order.

    Args:
        runs: number of runs of all tests, with and without the reference; a test with different outcomes is flaky.
        mutants: number of mutants of the functions that a reference changes.
        seed: of the choice of mutants.
    """
    report = progress or _ignore_progress
    done = 0
    while batch := tasks[done : done + CHUNK_SIZE]:
        cases = [_TaskCase(CheckUp(task=task, runs=runs), _variants(task)) for task in batch]
        chunk = _TaskChunk(cases, scorer, _named(done, len(batch)), report)
        chunk.run_tests(runs)
        chunk.observe()
        chunk.try_exploits()
        chunk.weaken_code(mutants, seed)
        chunk.verify()
        done += len(batch)
        yield from (case.checkup for case in cases)


@dataclass(frozen=True)
class _TaskCase:
    """A task under examination."""

    checkup: CheckUp
    variants: PatchedTree

    @property
    def task(self) -> Task:
        return self.checkup.task


@dataclass(frozen=True)
class _TaskChunk:
    """Some tasks that are examined together."""

    cases: Sequence[_TaskCase]
    scorer: Scorer
    name: str
    report: Progress

    def run_tests(self, runs: int) -> None:
        """Does the reference always count as a fix, and an empty patch never?"""
        for case in self.cases:
            _note_contents(case)
        plain = [_again(case.task, 0) for case in self.cases]
        states = [(case, patch) for case in self.cases for patch in _patches(case.task)]
        jobs = [(_again(case.task, 0), patch) for case, patch in states]
        first = self._gather("at the base, and with the reference", jobs, default.needs | {TestRun})
        numbers = range(1, runs)
        jobs = [(_again(case.task, number), patch) for case, patch in states for number in numbers]
        repeated = iter(self._gather("repeated", jobs, frozenset({TestRun})))
        for case, validity in zip(self.cases, validate(plain, self.scorer), strict=True):
            case.checkup.note_unknown(validity.unknown)
            for problem in validity.problems:
                case.checkup.add_problem(ProblemKind.TASK, problem)
        for (case, patch), evidence in zip(states, first, strict=True):
            case.checkup.judge(patch, evidence)
            case.checkup.compare(patch, [evidence, *(next(repeated) for _ in numbers)])

    def observe(self) -> None:
        """What do the tests access, and which of them execute the code that the reference changes?"""
        cases = [case for case in self.cases if _is_observable(case.task) and not case.checkup.unknown]
        tasks = []
        for case in cases:
            tree = case.variants.tree.with_files(case.variants.beginning_with(REPORT_EXECUTION))
            tasks.append(observed_task(case.task, tree))
        jobs = [(task, Patch("")) for task in tasks]
        evidence = self._gather("observed", jobs, frozenset({TestRun}))
        for case, gathered in zip(cases, evidence, strict=True):
            run = case.checkup.run_of(gathered)
            case.checkup.accesses = None if run is None else accesses_of(case.task, run)
            case.checkup.judge_accesses(isolated=self.scorer.sandbox.isolated)
            case.checkup.count_guards()

    def try_exploits(self) -> None:
        """Does the task reward an exploit?"""
        tries = [
            (case, name, patch)
            for case in self.cases
            if _is_python(case.task) and case.checkup.can_judge_exploits
            for name, patch in exploits(case.task, case.variants).items()
        ]
        jobs = [(case.task, patch) for case, _, patch in tries]
        evidence = self._gather("with exploits", jobs, frozenset({TestRun, Integrity}))
        for (case, name, _), gathered in zip(tries, evidence, strict=True):
            case.checkup.judge_exploit(name, gathered)

    def weaken_code(self, mutants: int, seed: int) -> None:
        """Do the tests detect stubs and mutants of the code that the reference changes?"""
        cases = [case for case in self.cases if case.checkup.resolved and not case.checkup.unknown]
        stubs = [
            (case, effect, patch)
            for case in cases
            for effect, lines in STUBS.items()
            if (patch := case.variants.with_bodies(lines)) is not None
        ]
        mutated = [(case, mutant, patch) for case in cases for mutant, patch in case.variants.mutants(mutants, seed)]
        jobs = [(case.task, patch) for case, _, patch in (*stubs, *mutated)]
        evidence = self._gather("with stubs and mutants", jobs, frozenset({TestRun}), reachable=True)
        for (case, effect, _), gathered in zip(stubs, evidence, strict=False):
            case.checkup.judge_stub(effect, gathered)
        for (case, mutant, _), gathered in zip(mutated, evidence[len(stubs) :], strict=True):
            case.checkup.judge_mutant(mutant, gathered)
        for case in cases:
            case.checkup.judge_strength()

    def verify(self) -> None:
        """Find the highest assurance level for patches of the task: that of its reference."""
        cases = [case for case in self.cases if case.checkup.resolved and case.task.reference is not None]
        jobs = [(case.task, case.task.reference) for case in cases if case.task.reference is not None]
        evidence = self._gather("verifying the reference", jobs, frozenset({Verification}), reachable=True)
        for case, gathered in zip(cases, evidence, strict=True):
            case.checkup.assurance = gathered.records.get(Verification)

    def _gather(
        self, what: str, jobs: Sequence[Job], needs: frozenset[type], *, reachable: bool = False
    ) -> list[EvidenceSet]:
        description = f"{self.name}: {what}"
        return self.scorer.gather(
            jobs, needs, reachable=reachable, progress=lambda done, total: self.report(description, done, total)
        )


def _named(done: int, count: int) -> str:
    return f"tasks {done + 1} to {done + count}" if count > 1 else f"task {done + 1}"


def _ignore_progress(what: str, done: int, total: int) -> None:
    """No progress callback."""


def _variants(task: Task) -> PatchedTree:
    try:
        return PatchedTree.of(task)
    except PatchError:  # `validate` reports it
        return PatchedTree({}, {}, (), task.base)


def _is_python(task: Task) -> bool:
    return task.suite.runner == "pytest"


def _is_observable(task: Task) -> bool:
    return _is_python(task) and bool(task.fail_to_pass + task.pass_to_pass)


def _patches(task: Task) -> list[Patch]:
    return [Patch(""), *([task.reference] if task.reference is not None else [])]


def _again(task: Task, number: int) -> Task:
    """The task with all tests in one run. A negligibly longer time limit for each number changes its key, so that no
    stored evidence answers a repetition."""
    limits = replace(task.limits, wall_seconds=task.limits.wall_seconds + number * A_MILLIONTH)
    return replace(task, suite=replace(task.suite, reach=None), limits=limits)


def _note_contents(case: _TaskCase) -> None:
    case.checkup.functions = case.variants.functions
    if not _is_python(case.task):
        case.checkup.notes.append("observation, exploits and mutants exist only for Python")
    case.checkup.notes.extend(editable_expectations(case.task))
    for path in git_repositories(case.task.base)[:1]:
        case.checkup.notes.append(f"the tree contains a git repository: {path}")


def git_repositories(tree: Tree) -> list[str]:
    """Paths of git repositories in a tree: bare ones, and files named `.git`. (Trees exclude folders `.git`.)"""
    paths = tree.paths()
    heads = [path.removesuffix("HEAD") for path in paths if path == "HEAD" or path.endswith("/HEAD")]
    bare = [
        folder.rstrip("/") or "."
        for folder in heads
        if f"{folder}config" in paths and any(path.startswith(f"{folder}objects/") for path in paths)
    ]
    return [path for path in paths if path == ".git" or path.endswith("/.git")] + bare
