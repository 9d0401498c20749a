"""Evidence: frozen records of facts that probes found out by running or reading code. No judgement is made here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from regrade.datasets.node_ids import file_of, function_of
from regrade.rewards.assurance_level import AssuranceLevel


class TestStatus(StrEnum):
    """What became of one test. Only PASSED is a pass: missing, skipped and expected failures are not."""

    __test__ = False

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    MISSING = "missing"
    """Asked for, and never reported: not collected, or the process died before it."""
    UNREACHED = "unreached"
    """Not run, because the change cannot reach it: it executes none of the changed functions."""


GOOD = (TestStatus.PASSED, TestStatus.UNREACHED)
"""A guarded test with one of these is not broken."""


@dataclass(frozen=True)
class TestOutcome:
    """One test, after the patch."""

    __test__ = False

    status: TestStatus
    message: str = ""
    """First lines of the failure: the failing line and the error."""
    seconds: float = 0.0


LETTERS: Mapping[TestStatus, str] = MappingProxyType(
    {
        TestStatus.PASSED: "p",
        TestStatus.FAILED: "f",
        TestStatus.ERROR: "e",
        TestStatus.SKIPPED: "s",
        TestStatus.XFAILED: "x",
        TestStatus.MISSING: "m",
        TestStatus.UNREACHED: "u",
    }
)
"""How a stored run abbreviates what became of a test."""

_PLAIN = {letter: TestOutcome(status) for status, letter in LETTERS.items()}
_PASSED = LETTERS[TestStatus.PASSED]
_GOOD = "".join(LETTERS[status] for status in GOOD).encode()


@dataclass(frozen=True)
class TestList:
    """The tests of a task, shared by all its runs."""

    __test__ = False

    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return self.fail_to_pass + self.pass_to_pass

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Test id -> its place in `ids`."""
        return {test: place for place, test in enumerate(self.ids)}

    @cached_property
    def per_file(self) -> Mapping[str, int]:
        """Test file -> the number of its tests."""
        return Counter(map(file_of, self.ids))

    @cached_property
    def files(self) -> frozenset[str]:
        return frozenset(self.per_file)


class StoredOutcomes(Mapping[str, TestOutcome]):
    """Outcomes as they are stored, a letter a test, so that reading a run costs what failed and not what passed."""

    def __init__(self, tests: TestList, letters: str, words: Mapping[int, tuple[str, float]]) -> None:
        """
        Args:
            letters: one of `LETTERS` for each of `tests.ids`.
            words: place in `tests.ids` -> message and seconds, where there are any.

        Raises:
            ValueError: another number of letters than of tests, or an unknown one.
        """
        others = set(letters.encode("ascii", "replace").translate(None, _GOOD).decode())
        if len(letters) != len(tests.ids) or not others <= _PLAIN.keys():
            raise ValueError(f"{letters[:40]!r} are no outcomes of {len(tests.ids)} tests")
        places = sorted(place for letter in others for place in _occurrences(letters, letter))
        self._not_good = {tests.ids[place]: place for place in places}
        wanted = letters[: len(tests.fail_to_pass)]
        self.fixed = tuple([test for test, letter in zip(tests.fail_to_pass, wanted, strict=True) if letter == _PASSED])
        """FAIL_TO_PASS tests that pass."""
        self.broken = tuple([tests.ids[place] for place in places if place >= len(wanted)])
        """PASS_TO_PASS tests that neither pass nor are beyond the reach of the change."""
        self.tests = tests
        self.letters = letters
        self.words = words

    def __getitem__(self, test: str) -> TestOutcome:
        place = self._not_good.get(test)  # those that are asked about: the places of all take long to note down
        if place is None:
            place = self.tests.places[test]
        plain = _PLAIN[self.letters[place]]
        return TestOutcome(plain.status, *self.words[place]) if place in self.words else plain

    def __iter__(self) -> Iterator[str]:
        return iter(self.tests.ids)

    def __len__(self) -> int:
        return len(self.tests.ids)

    def __repr__(self) -> str:
        return repr(dict(self))

    @cached_property
    def verified_files(self) -> frozenset[str]:
        lost = Counter(map(file_of, self._not_good))
        wholly = {file for file, count in lost.items() if count == self.tests.per_file[file]}
        return self.tests.files - wholly if wholly else self.tests.files


def _occurrences(text: str, letter: str) -> Iterator[int]:
    place = text.find(letter)
    while place >= 0:
        yield place
        place = text.find(letter, place + 1)


class End(StrEnum):
    """How an execution ended. All but COMPLETED are the candidate's own doing."""

    COMPLETED = "completed"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASHED = "crashed"
    """The process died, or left, before it had reported (a signal, `os._exit`)."""
    NOT_APPLIED = "not applied"
    """The patch does not apply to the base tree: nothing was run."""


@dataclass(frozen=True, kw_only=True)
class TestRun:
    """The tests of the task, run on the patched tree."""

    __test__ = False

    outcomes: Mapping[str, TestOutcome]
    """Every FAIL_TO_PASS and PASS_TO_PASS id -> its outcome."""
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    end: End = End.COMPLETED
    detail: str = ""
    """What stopped the run, in words: the last lines of its output, the limit that it hit."""
    scope: str = "full"
    """`full`, or `reachable`: only the tests that execute a changed function (the others are UNREACHED)."""
    seconds: float = 0.0

    @cached_property
    def fixed(self) -> tuple[str, ...]:
        """FAIL_TO_PASS tests that pass."""
        if isinstance(self.outcomes, StoredOutcomes):
            return self.outcomes.fixed
        return tuple(test for test in self.fail_to_pass if self.outcomes[test].status is TestStatus.PASSED)

    @cached_property
    def broken(self) -> tuple[str, ...]:
        """PASS_TO_PASS tests that no longer pass: failed, error, skipped or missing."""
        if isinstance(self.outcomes, StoredOutcomes):
            return self.outcomes.broken
        return tuple(test for test in self.pass_to_pass if self.outcomes[test].status not in GOOD)

    @cached_property
    def verified_files(self) -> frozenset[str]:
        """Test files of which at least one test passes, or is beyond the reach of the change."""
        if isinstance(self.outcomes, StoredOutcomes):
            return self.outcomes.verified_files
        return frozenset(file_of(test) for test, found in self.outcomes.items() if found.status in GOOD)

    @property
    def resolved(self) -> bool:
        """All FAIL_TO_PASS pass and no PASS_TO_PASS is broken (there must be at least one test)."""
        return bool(self.outcomes) and len(self.fixed) == len(self.fail_to_pass) and not self.broken


@dataclass(frozen=True)
class BuildRun:
    """Does the patched tree still byte-compile, import, and make a wheel?"""

    ok: bool
    checked_files: int
    error: str = ""
    """First error with file and line."""
    wheel: bool = False
    """Was the wheel built? Only where the change can matter to it, and the base's can be built."""


@dataclass(frozen=True)
class Finding:
    """One lint finding."""

    rule: str
    file: str
    line: int
    message: str


@dataclass(frozen=True)
class LintDelta:
    """Lint findings in the patched files, before against after, by the pristine tree's own ruff settings."""

    added: tuple[Finding, ...]
    removed: tuple[Finding, ...]
    changed_lines: int
    """Lines added and removed in the patched Python files; 0: there was nothing to lint."""
    unparsable: tuple[str, ...] = ()
    """Files that ruff cannot parse after the patch, though it could before (or there was no file before)."""
    rules: str = ""
    """Whose rules were applied, in words: the project's own, by their file, or the default set."""


@dataclass(frozen=True)
class FunctionComplexity:
    file: str
    function: str
    before: int | None
    """Cyclomatic complexity; None where the function did not exist."""
    after: int | None


@dataclass(frozen=True, kw_only=True)
class ComplexityDelta:
    """Cyclomatic complexity of the functions of the patched files (radon; lizard where it is no Python)."""

    functions: tuple[FunctionComplexity, ...]
    """Only those whose complexity changed, that appeared or vanished; sums and maxima are taken over these."""
    sum_before: int
    sum_after: int
    max_before: int
    max_after: int
    unparsable: tuple[str, ...] = ()
    """Files that cannot be parsed after the patch, though they could be before (or there was no file before)."""
    files: tuple[str, ...] = ()
    """The patched files of a language that is measured; empty: there was nothing to measure."""


@dataclass(frozen=True)
class Readability:
    """How hard a function is to read."""

    cognitive: int
    """Cognitive complexity (complexipy): branches, each heavier the deeper it is nested."""
    volume: float
    """Halstead volume in bits (radon): operators and operands."""
    maintainability: float
    """Maintainability index on radon's scale from 0 to 100, the higher the better; comments do not count."""


@dataclass(frozen=True)
class FunctionReadability:
    file: str
    function: str
    before: Readability | None
    """None where the function did not exist."""
    after: Readability | None


@dataclass(frozen=True)
class ReadabilityDelta:
    """The readability of the functions of the patched files."""

    functions: tuple[FunctionReadability, ...]
    """Only those whose measures changed, that appeared or vanished."""
    unparsable: tuple[str, ...] = ()
    """Files that cannot be read after the patch, though they could be before (or there was no file before)."""
    files: tuple[str, ...] = ()
    """The patched Python files; empty: there was nothing to measure."""


@dataclass(frozen=True, kw_only=True)
class ImpactedModule:
    """A module, outside the patched files, that depends on something that the patch changed."""

    module: str
    hops: int
    weight: float
    """weight of the change x confidence x 0.5^(hops - 1), the largest over all paths."""
    path: tuple[str, ...]
    """How it is reached: symbol, module, ..., this module."""
    tests: tuple[str, ...] = ()
    """Test files that reach this module through the import graph."""
    dangling: tuple[str, ...] = ()
    """Names that it imports from the patched modules and that no longer exist."""


@dataclass(frozen=True, kw_only=True)
class Impact:
    """The patch's reach over the import graph."""

    changed_symbols: tuple[str, ...]
    modules: tuple[ImpactedModule, ...]
    new_cycles: tuple[tuple[str, ...], ...] = ()
    unparsable: tuple[str, ...] = ()
    dangling_tests: tuple[tuple[str, str], ...] = ()
    """(test file, `file::name` that it uses and that the patch takes away)"""
    nearest: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(changed symbol, test functions that it is nearest to), by what was measured of the tests and by the graph; empty
    where one symbol changed, or too many."""

    def cause_of(self, test: str) -> str:
        """The changed symbol that is nearest to a test, by its id; empty where that is not known."""
        return self._causes.get(function_of(test), "")

    @cached_property
    def _causes(self) -> dict[str, str]:
        return {test: symbol for symbol, tests in self.nearest for test in tests}


@dataclass(frozen=True)
class Diff:
    """The shape of the patch, as far as it counts.

    Files that the run takes from the pristine tree (tests, configuration) are left out: adding tests costs nothing.
    """

    added_lines: int
    removed_lines: int
    files: tuple[str, ...]

    @property
    def changed_lines(self) -> int:
        return self.added_lines + self.removed_lines

    @property
    def is_empty(self) -> bool:
        return not self.files


@dataclass(frozen=True)
class Tampering:
    """One sign that the patch reaches for the verdict."""

    kind: str
    file: str
    line: int
    detail: str
    conclusive: bool = True
    """False: honest code does this as well. It is recorded, and no gate closes on it."""


@dataclass(frozen=True)
class Integrity:
    """Edits to tests, configuration or the machinery of the verdict. The run leaves such edits out."""

    signs: tuple[Tampering, ...]
    ignored_files: tuple[str, ...] = ()
    """Files of the patch that the run took from the pristine tree instead."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the conclusive signs, each once, sorted."""
        return tuple(sorted({sign.kind for sign in self.signs if sign.conclusive}))


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How sure the verdict of the tests is: what of it was seen where the candidate's code can't reach."""

    level: AssuranceLevel
    """The strongest that holds for this patch. Where no FAIL_TO_PASS test passes, nothing has to be
    verified, and it is the strongest of all."""
    reachable: str
    """The strongest that the task's reference patch reaches; empty: it has none."""
    confirmed: tuple[str, ...] = ()
    """Tests that pass in a process that holds none of the candidate's code."""
    refuted: tuple[tuple[str, str], ...] = ()
    """Tests that pass in the candidate's process only, and what is seen elsewhere."""
    sprung: tuple[tuple[str, str], ...] = ()
    """Tests of which a tripwire gave the candidate away, and how."""
    why: str = ""
    seconds: float = 0.0
    inputs: int = 0
    """Held-out inputs that were compared with the reference."""

    def reaches(self, level: str) -> bool:
        """Is the verdict as sure as this `AssuranceLevel`, or surer?"""
        return AssuranceLevel(self.level) >= level


@dataclass(frozen=True)
class Prediction:
    """What a reward model expects of a patch, without running it."""

    resolved: float | None
    """Probability that the patch is verified: all FAIL_TO_PASS pass and nothing breaks. None: it can't be put to the
    model."""
    doubt: float
    """Half the width of the 95 % interval around it."""
    model: str
    why: str = ""
    """Why there is no probability."""


Evidence = (
    TestRun
    | BuildRun
    | LintDelta
    | ComplexityDelta
    | ReadabilityDelta
    | Impact
    | Diff
    | Integrity
    | Verification
    | Prediction
)


@dataclass(frozen=True)
class EvidenceSet:
    """All that is known of one patch on one task: evidence by its type, and what could not be found out."""

    records: Mapping[type, Any] = field(default_factory=dict)
    infrastructure: Mapping[type, str] = field(default_factory=dict)
    """Evidence type -> why it could not be gathered for a reason that is not the candidate's."""
    assurance: AssuranceLevel = AssuranceLevel.IN_PROCESS
    """How far the verdict can be trusted: `in-process` means that the candidate's code ran in the tests' process."""
