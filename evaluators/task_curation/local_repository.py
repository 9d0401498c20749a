"""A task made of a local repository as it lies there: its tests are run, and those that pass every time must keep
passing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.run_tests import SHORTEST_LIMIT, SLACK
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.scoring.arguments import (
    checked_amount,
    checked_count,
    checked_names,
    checked_path,
    chosen_sandbox,
)
from regrade.evaluators.task_curation.baseline import Baseline
from regrade.evaluators.task_curation.baseline_cache import Measure
from regrade.evaluators.task_curation.fail_to_pass import meant_tests
from regrade.evaluators.task_curation.suite_detection import local_suite
from regrade.evaluators.task_curation.suite_warnings import remarks, uncollected

LARGEST_FILE_MB = 50
"""A larger file is left out of the trees: it is data, and would be copied for every worker."""


def local_task(
    repo: str | Path,
    fail_to_pass: Sequence[str] = (),
    *,
    python: str | Path | None = None,
    sandbox: str | Sandbox = "auto",
    runs: int = 3,
    cache: str | Path | None = None,
    time_limit: float = 600.0,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Task:
    """The task of a repository: PASS_TO_PASS are the tests that pass in every one of `runs` runs.

    What was found out is kept in the cache, so nothing runs when nothing changed.

    Args:
        fail_to_pass: ids of tests, classes or files of tests, of which those that fail now must pass; a text is one id.
        python: the interpreter with the repository's dependencies and pytest; None: that of its `.venv` or `venv`, else
        this one.
        time_limit: seconds for one run of the tests as they are.
        progress: called with (runs done, runs in all).
        tell: called with each remark; None: to standard error.

    Raises:
        UserError: no such folder, no test that can be run, none that passes and no FAIL_TO_PASS, or a FAIL_TO_PASS test
            that passes already; or an argument is not what it should be.
    """
    repo = checked_path("repo", repo)
    fail_to_pass = checked_names("fail_to_pass", fail_to_pass)
    runs = checked_count("runs", runs) or 3
    time_limit = checked_amount("time_limit", time_limit)
    repo = _folder(repo)
    tell = tell or _to_stderr
    cache = usable(checked_path("cache", cache) if cache else default_cache())
    requirements = _requirements(repo, None if python is None else checked_path("python", python), tell)
    interpreter = environments.python_for(requirements, cache)
    tree = local_tree(repo, tell)
    suite = local_suite(repo, tree, interpreter)
    if suite.runner != "pytest" and python is None:
        # Its virtual environment is there for something else, and may lack the pytest that the worker imports.
        requirements, interpreter = (), environments.python_for((), cache)
    measure = Measure(
        requirements=requirements,
        python=interpreter,
        sandbox=chosen_sandbox(sandbox),
        runs=runs,
        time_limit=time_limit,
        cache=cache,
    )
    suite, found = measure.of(tree, suite, progress)
    for remark in uncollected(found):
        tell(remark)
    wanted = meant_tests(fail_to_pass, found)
    for remark in remarks(found, wanted):
        tell(remark)
    return _task(tree, found.applied_to(suite), requirements, found, wanted)


def _folder(repo: Path) -> Path:
    if not repo.is_dir():
        raise UserError(f"the repository {str(repo)!r} is no folder: give the path of a repository with --repo")
    return repo.resolve()


def _task(
    tree: Tree, suite: TestSuite, requirements: tuple[str, ...], found: Baseline, wanted: tuple[str, ...]
) -> Task:
    """The task with what was found out. Raises UserError where there is nothing to judge by."""
    guarded = tuple(test for test in found.stable if test not in wanted)
    if not wanted and not guarded:
        raise UserError(
            f"none of the {len(found.outcomes)} tests of the repository passes as it is, so there is nothing to judge "
            "by: mend them, or name with --fail-to-pass what the patch is to mend"
        )
    seconds = max(SHORTEST_LIMIT, round(found.seconds * SLACK, 1))
    first = next((found.outcomes[test].message for test in wanted if test in found.outcomes), "")
    return Task(
        id=f"local:{tree.root.name}",
        repository=tree.root.name,
        base=tree,
        instruction="",
        fail_to_pass=wanted,
        pass_to_pass=guarded,
        suite=suite,
        requirements=requirements,
        limits=Limits(wall_seconds=seconds),
        source="local",
        failure=first,
    )


def local_tree(repo: Path, tell: Callable[[str], None]) -> Tree:
    """The repository's files, without virtual environments, caches (by their CACHEDIR.TAG) and large data."""
    skipped: set[str] = set()
    tree = Tree(repo)
    paths = tree.paths()
    marks = ("pyvenv.cfg", "CACHEDIR.TAG")
    left_out = {path.rpartition("/")[0] + "/" for path in paths if path.endswith(tuple(f"/{mark}" for mark in marks))}
    for path in paths:
        if any(path.startswith(folder) for folder in left_out):
            skipped.add(path)
        elif os.lstat(repo / path).st_size > LARGEST_FILE_MB << 20:
            skipped.add(path)
            tell(f"{path} is larger than {LARGEST_FILE_MB} MB and left out of the trees that tests run in")
    return replace(tree, removed=frozenset(skipped))


def _requirements(repo: Path, python: Path | None, tell: Callable[[str], None]) -> tuple[str, ...]:
    """The interpreter, as a task names it: none for the one that runs this."""
    if python is not None:
        return (str(python.absolute()),)
    for folder in (".venv", "venv"):
        candidate = repo / folder / "bin" / "python"
        if candidate.exists():
            return (str(candidate),)
        if candidate.is_symlink():
            tell(
                f"{candidate.relative_to(repo)} leads to {str(candidate.resolve())!r}, which is not there, so the "
                f"tests run without that environment: make it anew ({sys.executable} -m venv --clear "
                f"{repo / folder}) and install there what the tests need"
            )
    return ()


def _to_stderr(message: str) -> None:
    print(f"regrade: {message}", file=sys.stderr)
