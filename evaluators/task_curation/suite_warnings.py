"""What a user should know of a repository's own tests before patches are judged by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regrade.datasets.plurals import listed, plural
from regrade.evaluators.task_curation.baseline import Baseline
from regrade.evaluators.task_curation.fail_to_pass import fails

SHOWN = 5
"""Tests that a sentence names."""


def uncollected(found: Baseline) -> Iterator[str]:
    """A sentence on each file that could not be collected."""
    for place, why in found.collection_errors.items():
        yield f"{place} could not be collected, its tests count for nothing: {why}"


def remarks(found: Baseline, wanted: Sequence[str]) -> Iterator[str]:
    """A sentence each on what fails, what is flaky and what could not be measured.

    Args:
        wanted: the FAIL_TO_PASS tests.
    """
    others = [test for test in found.failing if fails(test, found) and test not in wanted]
    if others:
        advice = "" if wanted else "name those that the patch is to mend with --fail-to-pass: "
        yield (
            f"{_some(others, 'fails', 'fail')} {'as well' if wanted else 'as the repository stands'} and "
            f"{plural(len(others), 'counts', 'count')} for nothing: {advice}{_named(others)}"
        )
    if found.unmeasured:
        yield f"every patch runs all tests, since nobody can tell which of them it reaches: {found.unmeasured}"
    if found.flaky:
        yield (
            f"{_some(found.flaky, 'passes', 'pass')} in some runs only, or {plural(len(found.flaky), 'is', 'are')} "
            f"named otherwise in each, and {plural(len(found.flaky), 'counts', 'count')} for nothing: "
            f"{_named(found.flaky)}"
        )


def _named(tests: Sequence[str]) -> str:
    return listed([repr(test) for test in tests], SHOWN)


def _some(tests: Sequence[str], one: str, many: str) -> str:
    return f"{len(tests)} of its tests {plural(len(tests), one, many)}"
