"""What a user should know of a repository's own tests before patches are judged by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regrade.evaluators.task_curation.baseline import Baseline
from regrade.evaluators.task_curation.fail_to_pass import fails


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
            f"{_one(others, 'counts', 'count')} for nothing: {advice}{_named(others)}"
        )
    if found.unmeasured:
        yield f"every patch runs all tests, since nobody can tell which of them it reaches: {found.unmeasured}"
    if found.flaky:
        yield (
            f"{_some(found.flaky, 'passes', 'pass')} in some runs only, or {_one(found.flaky, 'is', 'are')} named "
            f"otherwise in each, and {_one(found.flaky, 'counts', 'count')} for nothing: {_named(found.flaky)}"
        )


def _named(tests: Sequence[str]) -> str:
    return ", ".join(map(repr, tests[:5])) + (f" and {len(tests) - 5} more" if len(tests) > 5 else "")


def _some(tests: Sequence[str], one: str, many: str) -> str:
    return f"{len(tests)} of its tests {_one(tests, one, many)}"


def _one(tests: Sequence[str], one: str, many: str) -> str:
    """The form of a verb that goes with so many tests."""
    return one if len(tests) == 1 else many
