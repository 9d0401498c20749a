"""Excerpts of test failures: short enough for a prompt, and the same in every run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from regrade.datasets.mutation.recipe_format import Failure
from regrade.rewards.evidence import TestRun, TestStatus

LONGEST_ERROR = 118
_PLACE = re.compile(r"(?P<file>[^:\n]+\.py):(?P<line>\d+): (?P<source>.*)")
_CHANGES = re.compile(r"0x[0-9a-fA-F]{4,}|(?:^|[\s'\"(])/\w+/")
"""Addresses and absolute paths: they differ from run to run and from machine to machine."""


def failures(run: TestRun, tests: Mapping[str, int]) -> list[Failure]:
    """The failures of a run, the most informative first; `tests` maps each test to its number.

    Failures whose text would differ in the next run are left out.
    """
    ranked = []
    for test, outcome in run.outcomes.items():
        if outcome.status in (TestStatus.FAILED, TestStatus.ERROR):
            failure, source = parse(outcome.message)
            if not _CHANGES.search(failure.error):
                ranked.append((_rank(failure, source), tests[test], failure))
    return [failure for _, _, failure in sorted(ranked, key=lambda entry: entry[:2])]


def parse(message: str) -> tuple[Failure, str]:
    """The failure that a message of `TestOutcome` describes, and the source line of the test."""
    lines = message.strip().split("\n")
    location = _PLACE.fullmatch(lines[0])
    error = lines[1:] if location else lines
    text = (error[0] if error else "").strip()[:LONGEST_ERROR]
    if location is None:
        return Failure("", 0, text), ""
    return Failure(location["file"], int(location["line"]), text), location["source"].strip()


def _rank(failure: Failure, source: str) -> tuple[bool, bool, bool, int]:
    """Smaller is better: a known line, an informative error, a complete line, few characters."""
    # A bare `AssertionError` or `assert False` is uninformative; `assertEqual(` continues on other lines.
    is_uninformative = not re.search(r"[ (]\S", failure.error.removeprefix("assert ").removeprefix("AssertionError: "))
    return failure.line == 0, source.endswith(("(", ",", "[", "{")), is_uninformative, len(source) + len(failure.error)
