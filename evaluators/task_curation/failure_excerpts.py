"""What a failing test shows, short enough for a prompt and the same in every run."""

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
    """What the failing tests show, the most telling first; `tests` gives each test its number.

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
    place = _PLACE.fullmatch(lines[0])
    error = lines[1:] if place else lines
    text = (error[0] if error else "").strip()[:LONGEST_ERROR]
    if place is None:
        return Failure("", 0, text), ""
    return Failure(place["file"], int(place["line"]), text), place["source"].strip()


def _rank(failure: Failure, source: str) -> tuple[bool, bool, bool, int]:
    """Smaller is better: a known line, an error that says something, a line that is whole, few characters."""
    # A bare `AssertionError` or `assert False` says only that it failed; `assertEqual(` goes on in other lines.
    says_little = not re.search(r"[ (]\S", failure.error.removeprefix("assert ").removeprefix("AssertionError: "))
    return failure.line == 0, source.endswith(("(", ",", "[", "{")), says_little, len(source) + len(failure.error)
