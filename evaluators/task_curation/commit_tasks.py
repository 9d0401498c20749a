"""Tasks from commits that change code and tests: the tests of the fix, on the code before it.

The split is that of SWE-bench, with facts in place of names: the tests are the files that pytest collected, and what
only they read. The base of a task is the tree before the commit with the tests of the commit; the reference is the rest
of the commit. The tree is exported without its history, so no later commit can be reached from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.mining.git_history import Commit, FileChange, GitHistory
from regrade.datasets.mining.repositories import REPOSITORIES, Repository
from regrade.datasets.mutation.rebuilding import failure_text
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.static.languages import is_test, language_of
from regrade.evaluators.task_curation.built_repository import BuiltRepository
from regrade.evaluators.task_curation.chosen_tests import configured
from regrade.evaluators.task_curation.failure_excerpts import failures
from regrade.evaluators.task_curation.instructions import failing_behaviour
from regrade.evaluators.task_curation.local_repository import MeasuredTests, measure_tests
from regrade.evaluators.task_curation.mutation_tasks import run_of
from regrade.rewards.evidence import End, TestRun

logger = logging.getLogger(__name__)
COMMITS = "commits"
"""`Task.source` of these tasks."""
MOST_COMMITS = 400
"""The newest commits that are read."""
MOST_FILES = 12
"""A commit that changes more files of code is no single fix."""


@dataclass(frozen=True)
class FixCommit:
    """A commit that may be a fix with its test."""

    commit: Commit
    changes: list[FileChange]


def from_commits(repository: BuiltRepository) -> Iterator[Task]:
    """The validated tasks of a repository's commits, the newest first.

    A task is valid if a test that passes with the commit fails without its code, every other test that passes with the
    commit passes at the base too, and a second run of the base and the reference gives the same.

    Raises:
        UserError: the history can't be read.
    """
    history = repository.history
    if history is None:
        return
    found = 0
    for candidate in fix_commits(history):
        if repository.limit is not None and found >= repository.limit:
            return
        repository.report(f"{repository.name}: commit {candidate.commit.sha[:12]}", found, 0)
        task, seconds, reason = _tried(repository, history, candidate)
        repository.yields.tried("fix", seconds, reason if task is None else "")
        if task is None:
            continue
        reason, seconds = _confirmed(repository, task)
        repository.yields.confirmed("fix", seconds, reason)
        if not reason:
            found += 1
            yield task


def fix_commits(history: GitHistory) -> Iterator[FixCommit]:
    """The commits that change files of code and files named as tests. (Names only spare runs: facts decide later.)"""
    for commit in history.commits(MOST_COMMITS):
        changes = history.changes(commit)
        code = [each for each in changes if language_of(each.path) and not is_test(each.path)]
        tests = [each for each in changes if each.after and is_test(each.path)]
        edited = [each for each in code if each.before]
        if edited and tests and len(code) <= MOST_FILES and all(each.is_plain for each in changes):
            yield FixCommit(commit, changes)


def _tried(repository: BuiltRepository, history: GitHistory, candidate: FixCommit) -> tuple[Task | None, float, str]:
    """(the task, seconds of executions, why there is none)."""
    commit = candidate.commit
    try:
        root = _exported(repository, history, commit.parent)
        texts = {each.path: history.read(each.after) for each in candidate.changes if each.after}
    except UserError as error:
        logger.info("commit %s of %s: %s", commit.sha[:12], repository.name, error)
        return None, 0.0, "the history is damaged: git can't read its files"
    binary = [path for path, text in texts.items() if text is None]
    if binary:
        return None, 0.0, "it changes a binary file"
    gone = [each.path for each in candidate.changes if not each.after]
    before = Tree(root)
    fixed = before.with_files({path: text for path, text in texts.items() if text is not None}).without(gone)
    try:
        measured = measure_tests(
            fixed,
            repository.requirements,
            configured(fixed, repository.choice),
            sandbox=repository.scorer.sandbox,
            runs=repository.runs,
            cache=repository.cache,
            reach=False,
        )
    except UserError as error:
        logger.info("commit %s of %s: %s", commit.sha[:12], repository.name, error)
        return None, 0.0, "its tests don't run in the environment of the newest commit"
    seconds = measured.baseline.seconds * repository.runs
    base = _tests_first(before, candidate, texts, measured.suite)
    reference = Patch.between(
        {path: base.read(path) for path in {*texts, *gone} if base.read_or_none(path) is not None},
        {path: fixed.read(path) for path in texts},
    )
    if reference.is_empty:
        return None, seconds, "it changes tests alone"
    task, run = _measured_task(repository, commit, base, reference, measured)
    return task, seconds + run.seconds, "" if task else _why_none(run)


def _exported(repository: BuiltRepository, history: GitHistory, sha: str) -> Path:
    root = repository.cache / REPOSITORIES / f"{repository.name}-{sha[:16]}"
    if not root.is_dir():
        history.export(sha, root)
    exported = Repository(name=repository.name, origin=repository.origin, root=root, version=sha[:12])
    return exported.with_files(repository.generated, repository.cache).root


def _tests_first(before: Tree, candidate: FixCommit, texts: dict[str, str | None], suite: TestSuite) -> Tree:
    """The tree before the commit, with the files of the commit that decide its tests."""
    tests = {path: text for path, text in texts.items() if text is not None and suite.protects(path)}
    gone = [each.path for each in candidate.changes if not each.after and suite.protects(each.path)]
    return before.with_files(tests).without(gone)


def _measured_task(
    repository: BuiltRepository, commit: Commit, base: Tree, reference: Patch, measured: MeasuredTests
) -> tuple[Task | None, TestRun]:
    """The task, and the run of the base that shows which tests fail there."""
    # The reach was measured with the fix; at the base a function may run in other tests.
    suite = replace(measured.suite, reach=None, imported=frozenset(), companions={})
    task = Task(
        id=f"{repository.name}/{commit.sha[:12]}",
        repository=repository.name,
        base=base,
        instruction="",
        fail_to_pass=(),
        pass_to_pass=tuple(sorted(measured.baseline.stable)),
        suite=suite,
        requirements=repository.requirements,
        limits=Limits(wall_seconds=max(measured.wall_seconds, repository.limits.wall_seconds)),
        source=COMMITS,
        kind="fix",
        reference=reference,
    )
    (gathered,) = repository.scorer.gather([(task, Patch(""))], [TestRun])
    run = run_of(gathered)
    broken = set(run.broken)
    if run.end is not End.COMPLETED or not broken or len(broken) == len(task.pass_to_pass):
        return None, run
    guarded = tuple(test for test in task.pass_to_pass if test not in broken)
    number = {test: index for index, test in enumerate(task.pass_to_pass)}
    told = failures(run, number)
    found = replace(
        task,
        fail_to_pass=tuple(sorted(broken)),
        pass_to_pass=guarded,
        failure=failure_text(told[0], base) if told else "",
    )
    return replace(found, instruction=failing_behaviour(found)), run


def _why_none(run: TestRun) -> str:
    if run.end is not End.COMPLETED:
        return f"the run of the base ended early ({run.end.value})"
    return "all tests fail at the base" if run.broken else "no test fails without it"


def _confirmed(repository: BuiltRepository, task: Task) -> tuple[str, float]:
    """(why the task does not hold in a second run, seconds)."""
    reference = task.reference or Patch("")
    gathered = repository.scorer.gather([(task, Patch("")), (task, reference)], [TestRun])
    base, fixed = map(run_of, gathered)
    seconds = base.seconds + fixed.seconds
    if base.end is not End.COMPLETED or base.fixed or base.broken:
        return "other tests fail in a second run", seconds
    return ("" if fixed.resolved else "the reference does not fix it"), seconds
