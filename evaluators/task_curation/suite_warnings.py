"""Suite warnings: tests of a repository that fail, are flaky, or could not be collected or measured."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from regrade.datasets.node_ids import file_of
from regrade.datasets.plurals import listed, plural
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Tree
from regrade.evaluators.execution.hanging_tests import STOPPED
from regrade.evaluators.task_curation.baseline_results import Baseline
from regrade.evaluators.task_curation.fail_to_pass import unnamed_failing
from regrade.rewards.evidence import TestStatus

SHOWN = 5
"""Number of tests that a warning names."""


def collection_warnings(baseline: Baseline) -> Iterator[str]:
    """One warning per file that could not be collected."""
    for path, why in baseline.collection_errors.items():
        yield f"{path} could not be collected, so its tests are not used: {why}"


def baseline_warnings(baseline: Baseline, fail_to_pass: Sequence[str]) -> Iterator[str]:
    """One warning each on failing, hanging and flaky tests, and on unmeasured reach.

    Args:
        fail_to_pass: ids of the FAIL_TO_PASS tests.
    """
    stopped = [test for test, seconds in baseline.slow_tests.items() if test and seconds == STOPPED]
    failing = unnamed_failing(fail_to_pass, baseline)
    if failing:
        some = _some(failing, "fails", "fail")
        if fail_to_pass:
            yield f"{some} as well, and a patch need not fix {plural(len(failing), 'it', 'them')}: {_named(failing)}"
        else:
            yield (
                f"{some} at the base, and the value counts the share that a patch fixes: name the tests that it must "
                f"fix with `fail_to_pass=`, or `all`: {_named(failing)}"
            )
    unnamed = [test for test in stopped if test not in fail_to_pass]
    if unnamed:
        yield (
            f"{len(unnamed)} of its tests never ended at the base ({baseline.outcomes[unnamed[0]].message}) and "
            f"{plural(len(unnamed), 'is', 'are')} not used: name a test that a patch must fix with `fail_to_pass=`, "
            f"and give slow tests more time with `test_limit=SECONDS`: {_named(unnamed)}"
        )
    if baseline.unmeasured:
        yield f"every patch runs all tests, because their reach is unknown: {baseline.unmeasured}"
    if baseline.flaky:
        yield (
            f"{_some(baseline.flaky, 'passes', 'pass')} in some runs only, or under another id in each run, so "
            f"{plural(len(baseline.flaky), 'it is', 'they are')} not used: {_named(baseline.flaky)}"
        )


def inseparable_tests(tree: Tree, baseline: Baseline, fail_to_pass: Sequence[str]) -> Iterator[str]:
    """One warning per file of FAIL_TO_PASS tests that seems to contain the code under test as well: its tests execute
    no function that a patch may edit, but the file defines functions that are no tests."""
    reached = {test for key, tests in baseline.reach.items() if key not in baseline.imported for test in tests}
    is_unknown = bool(baseline.unmeasured) and not baseline.reach
    failing = [test for test in fail_to_pass if baseline.outcomes[test].status is TestStatus.FAILED]
    for path in dict.fromkeys(file_of(test) for test in failing if test not in reached and not is_unknown):
        names = _functions(tree.read_or_none(path) or "") if path in baseline.files.test_files else []
        if names:
            yield (
                f"the FAIL_TO_PASS tests in {path} execute no code that a patch may edit, and the file also defines "
                f"{_named(names)}: a fix there is ignored, as every edit of a test file; move its tests to another file"
            )


def _functions(text: str) -> list[str]:
    """Names of the functions at the top level that are neither tests nor decorated, as fixtures are."""
    tree = parse_or_none(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
    return [node.name for node in functions if not node.decorator_list and not node.name.startswith("test")]


def _named(tests: Sequence[str]) -> str:
    return listed([repr(test) for test in tests], SHOWN)


def _some(tests: Sequence[str], one: str, many: str) -> str:
    return f"{len(tests)} of its tests {plural(len(tests), one, many)}"
