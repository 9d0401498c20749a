"""What a graded result says of one attempt: the record that the readers of all formats make.

A field is None where the source does not say: `regrade.evaluators.storage.graded_rows` makes rows of what is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from regrade.datasets.visible_text import visible

LISTED = 3
"""Examples in a finding's line."""
KEPT = 1000
"""Subjects of a finding that are kept."""


class Depth(IntEnum):
    """How much a source says of an attempt; of several sources the deepest decides."""

    SUBMISSION = 0
    """The patch alone."""
    RESOLVED = 1
    """The outcome as a whole."""
    LOG = 2
    """A log of the tests, to be graded by the lists of tests."""
    TESTS = 3
    """The outcome of each test, or counts of them."""


@dataclass(frozen=True, kw_only=True)
class GradedTests:
    """Tests of one list, FAIL_TO_PASS or PASS_TO_PASS: how many were counted, how many failed, and which."""

    total: int
    failed: int
    passed_ids: frozenset[str] = frozenset()
    failed_ids: tuple[str, ...] = ()
    """Both empty if the source has counts only."""
    uncounted: int = 0
    """Tests of the list in neither: skipped ones."""

    @classmethod
    def of(cls, passed: Iterable[str], failed: Iterable[str], uncounted: int = 0) -> GradedTests:
        good, bad = frozenset(passed), tuple(dict.fromkeys(failed))
        good -= frozenset(bad)
        return cls(total=len(good) + len(bad), failed=len(bad), passed_ids=good, failed_ids=bad, uncounted=uncounted)

    def without(self, ids: frozenset[str]) -> GradedTests:
        """The tests without these, which all are of this list: one that is not known to have failed passed."""
        failed = tuple(each for each in self.failed_ids if each not in ids)
        if self.passed_ids:
            return GradedTests.of(self.passed_ids - ids, failed, self.uncounted)
        total = max(len(failed), self.total - len(ids))
        return GradedTests(total=total, failed=len(failed), failed_ids=failed, uncounted=self.uncounted)

    @property
    def has_ids(self) -> bool:
        return bool(self.passed_ids or self.failed_ids)


@dataclass(frozen=True, kw_only=True)
class GradedResult:
    """One attempt at one instance."""

    instance: str
    place: Path
    """The folder, or the file, that holds the results of this policy."""
    depth: Depth
    source: str = ""
    """Name of the format."""
    policy: str = ""
    """The name that the source gives to the policy, not to its model."""
    model: str = ""
    agent: str = ""
    attempt: str = ""
    """A name of the attempt, where it has no number."""
    sample: int | None = None
    run: int | None = None
    """Number of the whole pass over the instances."""
    repository: str = ""
    fail_to_pass: GradedTests | None = None
    pass_to_pass: GradedTests | None = None
    statuses: Mapping[str, str] | None = None
    """Test id -> status of a log, before the lists of tests are known."""
    resolved: bool | None = None
    """All FAIL_TO_PASS and all PASS_TO_PASS tests pass, by the source's own word."""
    fix: bool | None = None
    broke: bool | None = None
    """Outcomes by the source's own word, where it has no tests."""
    empty: bool | None = None
    applied: bool | None = None
    patch: str | None = None
    timed_out: bool = False
    lost: bool = False
    """The source says that the infrastructure failed."""
    why: str = ""
    """The reason why there is no outcome."""
    reward: float | None = None
    tokens: float | None = None
    seconds: float | None = None


@dataclass
class Findings:
    """What is odd in the sources: kind of oddity -> its subjects, in the order of their discovery."""

    kinds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, kind: str, subject: str) -> None:
        self.counts[kind] += 1
        if len(self.kinds[kind]) < KEPT:
            self.kinds[kind].append(visible(subject))

    def lines(self) -> list[str]:
        """One line for each kind: what, how many, such as."""
        return [f"{kind}: {_listed(self.kinds[kind], count)}" for kind, count in self.counts.items()]

    def to_json(self) -> list[dict[str, object]]:
        return [
            {"finding": kind, "count": self.counts[kind], "subjects": subjects} for kind, subjects in self.kinds.items()
        ]


def _listed(subjects: Sequence[str], count: int) -> str:
    shown = ", ".join(subjects[:LISTED])
    return shown if count <= LISTED else f"{count}, such as {shown}"
