"""Suite warnings: tests of a repository that fail, are flaky, or could not be collected or measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regrade.datasets.plurals import listed, plural
from regrade.evaluators.execution.hanging_tests import STOPPED
from regrade.evaluators.task_curation.baseline import Baseline
from regrade.evaluators.task_curation.fail_to_pass import unnamed_failing

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


def _named(tests: Sequence[str]) -> str:
    return listed([repr(test) for test in tests], SHOWN)


def _some(tests: Sequence[str], one: str, many: str) -> str:
    return f"{len(tests)} of its tests {plural(len(tests), one, many)}"
