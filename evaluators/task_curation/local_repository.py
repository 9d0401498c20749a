"""Creates a task from the current working tree of a local repository, by running its tests."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.own_environment import own_interpreters
from regrade.datasets.plurals import listed, plural
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.hanging_tests import time_limits
from regrade.evaluators.execution.run_tests import SHORTEST_LIMIT, SLACK
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.scoring.arguments import (
    checked_amount,
    checked_count,
    checked_names,
    checked_path,
    chosen_sandbox,
)
from regrade.evaluators.task_curation.baseline_cache import BaselineCache
from regrade.evaluators.task_curation.baseline_results import Baseline
from regrade.evaluators.task_curation.chosen_tests import TestChoice, configured
from regrade.evaluators.task_curation.compiled_elsewhere import advice_on_compiled
from regrade.evaluators.task_curation.fail_to_pass import resolve_fail_to_pass, unnamed_failing
from regrade.evaluators.task_curation.suite_detection import local_suite
from regrade.evaluators.task_curation.suite_warnings import baseline_warnings, collection_warnings, inseparable_tests

logger = logging.getLogger(__name__)
DEFAULT_TIME_LIMIT = 600.0
LARGEST_FILE_MB = 50
"""A larger file is left out of the trees: it is data, and every worker would copy it."""


@environments.shared_lookups()
def local_task(
    repo: str | Path,
    fail_to_pass: Sequence[str] = (),
    *,
    python: str | Path | None = None,
    sandbox: str | Sandbox = "auto",
    runs: int = 3,
    cache: str | Path | None = None,
    time_limit: float | None = None,
    test_limit: float | None = None,
    tests: Sequence[str] = (),
    deselect: Sequence[str] = (),
    python_path: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Task:
    """The task of a repository: PASS_TO_PASS are the tests that pass in every one of `runs` runs.

    The result is cached, so nothing runs for an unchanged repository. What the arguments leave open is taken from
    `[tool.regrade]` in the repository's pyproject.toml.

    Args:
        fail_to_pass: ids of tests, classes or test files, whose failing tests must pass; a text is one id.
        python: the interpreter with the repository's dependencies and pytest; None: that of its `.venv` or `venv`, else
            the current one.
        time_limit: limit of one run of the tests at the base, in seconds; None: 600.
        test_limit: limit of a single test, in seconds: a test that takes longer fails, and the others run on. A slow
            test has five times its time at the base. None: 10 for patches, 60 at the base, where no time is known.
        tests: files and folders that hold the tests, whatever their names; empty: as pytest is configured. The files
            of FAIL_TO_PASS tests are collected in any case.
        deselect: ids (or beginnings of ids), files and folders of tests that are left out.
        python_path: folders of the repository at the start of sys.path; empty: `src` if it holds code, and the root.
        progress: called with (runs done, total runs).
        tell: called with each warning; None: prints it to standard error.

    Raises:
        UserError: no such folder, no runnable test, no passing and no FAIL_TO_PASS test, a FAIL_TO_PASS test that
            passes already, or an invalid argument.
    """
    repo = _folder(checked_path("repo", repo))
    choice = TestChoice(
        tests=checked_names("tests", tests),
        deselect=checked_names("deselect", deselect),
        python_path=checked_names("python_path", python_path),
        fail_to_pass=checked_names("fail_to_pass", fail_to_pass),
        time_limit=None if time_limit is None else checked_amount("time_limit", time_limit),
        test_limit=None if test_limit is None else checked_amount("test_limit", test_limit),
    )
    runs = checked_count("runs", runs) or 3
    tell = tell or _to_stderr
    cache = usable(checked_path("cache", cache) if cache else default_cache())
    requirements = _requirements(repo, None if python is None else checked_path("python", python), tell)
    tree = local_tree(repo, tell)
    choice = configured(tree, choice)
    measured = measure_tests(
        tree,
        requirements,
        choice,
        sandbox=sandbox,
        runs=runs,
        cache=cache,
        progress=progress,
        own_python=python is None,
    )
    return _task_with_warnings(tree, measured, choice, tell)


@dataclass(frozen=True)
class MeasuredTests:
    """The tests of a tree, measured without any patch."""

    suite: TestSuite
    """With all measurements."""
    baseline: Baseline
    requirements: tuple[str, ...]
    """See `Task.requirements`."""
    advice: str = ""
    """What to do for a compiled module that only an installed copy has; empty: nothing."""

    @property
    def wall_seconds(self) -> float:
        """The limit of one run."""
        return max(SHORTEST_LIMIT, round(self.baseline.seconds * SLACK, 1))


def measure_tests(
    tree: Tree,
    requirements: tuple[str, ...],
    choice: TestChoice,
    *,
    sandbox: str | Sandbox,
    runs: int,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
    own_python: bool = False,
    reach: bool = True,
) -> MeasuredTests:
    """Detect the runner of a tree, and run its tests `runs` times; the result is cached.

    Args:
        own_python: were the requirements detected, not named by the user?
        reach: is the reach of the tests measured?

    Raises:
        UserError: no test can be run, or none is found; with the reason.
    """
    interpreter = environments.python_for(requirements, cache)
    suite = local_suite(tree.root, tree, interpreter, cache, (*choice.tests, *choice.fail_to_pass))
    suite = choice.applied_to(suite, tree)
    if suite.runner != "pytest" and own_python:
        # Its virtual environment has another purpose, and may lack the pytest that the worker imports.
        requirements, interpreter = (), environments.python_for((), cache)
    sandbox = chosen_sandbox(sandbox)
    baselines = BaselineCache(
        requirements=requirements,
        python=interpreter,
        sandbox=sandbox,
        runs=runs,
        time_limit=DEFAULT_TIME_LIMIT if choice.time_limit is None else choice.time_limit,
        test_limit=choice.test_limit,
        cache=cache,
        reach=reach,
    )
    try:
        suite, baseline = baselines.get(tree, suite, progress)
    except UserError as error:
        advice = advice_on_compiled(tree, suite, interpreter, [str(error)])
        if not advice:
            raise
        raise UserError(f"{error}; {advice}") from error
    advice = advice_on_compiled(tree, suite, interpreter, baseline.collection_errors.values())
    return MeasuredTests(baseline.applied_to(suite), baseline, requirements, advice)


def _task_with_warnings(tree: Tree, measured: MeasuredTests, choice: TestChoice, tell: Callable[[str], None]) -> Task:
    """The task of the measured tests. Reports all warnings on the suite."""
    if measured.advice:
        tell(measured.advice)
    for warning in collection_warnings(measured.baseline):
        tell(warning)
    fail_to_pass = resolve_fail_to_pass(choice.fail_to_pass, measured.baseline)
    for warning in baseline_warnings(measured.baseline, fail_to_pass):
        tell(warning)
    for warning in inseparable_tests(tree, measured.baseline, fail_to_pass):
        tell(warning)
    task = _task(tree, measured, fail_to_pass, choice.test_limit)
    logger.info("%s", time_limits(task))
    return task


def _folder(repo: Path) -> Path:
    if not repo.is_dir():
        raise UserError(f"the repository {str(repo)!r} is no folder: pass the path of a repository")
    return repo.resolve()


def _task(tree: Tree, measured: MeasuredTests, fail_to_pass: tuple[str, ...], test_limit: float | None) -> Task:
    """The task with the measured tests. Raises UserError if no test can judge a patch."""
    baseline = measured.baseline
    guarded = tuple(test for test in baseline.stable if test not in fail_to_pass)
    if not fail_to_pass and not guarded:
        raise UserError(
            f"none of the {len(baseline.outcomes)} tests of the repository passes at the base, so no test can judge a "
            "patch: fix the tests, or name the tests that the patch must fix with `fail_to_pass=TEST`"
        )
    first = next((baseline.outcomes[test].message for test in fail_to_pass if test in baseline.outcomes), "")
    return Task(
        id=f"local:{tree.root.name}",
        repository=tree.root.name,
        base=tree,
        instruction="",
        fail_to_pass=fail_to_pass,
        pass_to_pass=guarded,
        unnamed=unnamed_failing(fail_to_pass, baseline),
        suite=measured.suite,
        requirements=measured.requirements,
        limits=Limits(wall_seconds=measured.wall_seconds, test_seconds=test_limit),
        source="local",
        failure=first,
    )


def local_tree(repo: Path, tell: Callable[[str], None]) -> Tree:
    """The repository's files, without links, virtual environments, caches (by their CACHEDIR.TAG) and large data."""
    skipped: set[str] = set()
    tree = Tree(repo)
    paths = tree.paths()
    left_out = {path.rpartition("/")[0] + "/" for path in paths if path.endswith("/CACHEDIR.TAG")}
    for path in paths:
        if any(path.startswith(folder) for folder in left_out):
            skipped.add(path)
        elif os.lstat(repo / path).st_size > LARGEST_FILE_MB << 20:
            skipped.add(path)
            tell(f"{path} is larger than {LARGEST_FILE_MB} MB and is left out of the trees that tests run in")
    links = tree.links()
    if links:
        tell(
            f"{listed(links, 3)} {plural(len(links), 'is a link', 'are links')}, not a part of the trees of the tests: "
            "replace a link that the code needs by a file"
        )
    return replace(tree, removed=frozenset(skipped))


def _requirements(repo: Path, python: Path | None, tell: Callable[[str], None]) -> tuple[str, ...]:
    """The interpreter as the requirements of a task: empty for the current one."""
    if python is not None:
        return (str(python.absolute()),)
    for candidate in own_interpreters(repo):
        if candidate.exists():
            return (str(candidate),)
        if candidate.is_symlink():
            command = f"{sys.executable} -m venv --clear {candidate.parents[1]}"
            tell(
                f"{candidate.relative_to(repo)} is a link to the missing {str(candidate.resolve())!r}, so the tests "
                f"run without that environment: create it again ({command}) and install the dependencies of the tests "
                "there"
            )
    return ()


def _to_stderr(message: str) -> None:
    print(f"regrade: {message}", file=sys.stderr)
