"""Evidence: frozen records of facts that probes measure by running or reading code, without judgement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from regrade.datasets.node_ids import file_of, function_of
from regrade.rewards.assurance_level import AssuranceLevel


class TestStatus(StrEnum):
    """The outcome of one test. Only PASSED is a pass; MISSING, SKIPPED and XFAILED are not."""

    __test__ = False

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    MISSING = "missing"
    """Requested but not reported: not collected, or the process died before it."""
    UNREACHED = "unreached"
    """Not run, because the change cannot reach it: it executes no changed function."""


GOOD = (TestStatus.PASSED, TestStatus.UNREACHED)
"""Statuses of an unbroken PASS_TO_PASS test."""


@dataclass(frozen=True)
class TestOutcome:
    """The outcome of one test after the patch."""

    __test__ = False

    status: TestStatus
    """Only `PASSED` is a pass."""
    message: str = ""
    """First lines of the failure: the failing line and the error."""
    seconds: float = 0.0
    """Wall time of the test, in seconds; 0 if it was not measured."""


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
"""The abbreviation of each status in a stored run."""

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
    def indexes(self) -> Mapping[str, int]:
        """Test id -> its index in `ids`."""
        return {test: index for index, test in enumerate(self.ids)}

    @cached_property
    def per_file(self) -> Mapping[str, int]:
        """Test file -> the number of its tests."""
        return Counter(map(file_of, self.ids))

    @cached_property
    def files(self) -> frozenset[str]:
        return frozenset(self.per_file)


class StoredOutcomes(Mapping[str, TestOutcome]):
    """Outcomes in their stored form, one letter a test: the cost of reading a run depends on its failures only."""

    def __init__(self, tests: TestList, letters: str, words: Mapping[int, tuple[str, float]]) -> None:
        """
        Args:
            letters: one of `LETTERS` for each of `tests.ids`.
            words: index in `tests.ids` -> (message, seconds), if any.

        Raises:
            ValueError: the numbers of letters and of tests differ, or a letter is unknown.
        """
        failing = set(letters.encode("ascii", "replace").translate(None, _GOOD).decode())
        if len(letters) != len(tests.ids) or not failing <= _PLAIN.keys():
            raise ValueError(f"{letters[:40]!r} are not outcomes of {len(tests.ids)} tests")
        indexes = sorted(index for letter in failing for index in _occurrences(letters, letter))
        self._failing = {tests.ids[index]: index for index in indexes}
        first = letters[: len(tests.fail_to_pass)]
        self.fixed = tuple([test for test, letter in zip(tests.fail_to_pass, first, strict=True) if letter == _PASSED])
        """FAIL_TO_PASS tests that pass."""
        self.broken = tuple([tests.ids[index] for index in indexes if index >= len(first)])
        """PASS_TO_PASS tests whose status is not in GOOD."""
        self.tests = tests
        self.letters = letters
        self.words = words

    def __getitem__(self, test: str) -> TestOutcome:
        index = self._failing.get(test)  # most requests concern failing tests; indexing all tests is slow
        if index is None:
            index = self.tests.indexes[test]
        plain = _PLAIN[self.letters[index]]
        return TestOutcome(plain.status, *self.words[index]) if index in self.words else plain

    def __iter__(self) -> Iterator[str]:
        return iter(self.tests.ids)

    def __len__(self) -> int:
        return len(self.tests.ids)

    def __repr__(self) -> str:
        return repr(dict(self))

    @cached_property
    def verified_files(self) -> frozenset[str]:
        failing = Counter(map(file_of, self._failing))
        unverified = {file for file, count in failing.items() if count == self.tests.per_file[file]}
        return self.tests.files - unverified if unverified else self.tests.files


def _occurrences(text: str, letter: str) -> Iterator[int]:
    index = text.find(letter)
    while index >= 0:
        yield index
        index = text.find(letter, index + 1)


class End(StrEnum):
    """The end of an execution. The candidate causes all but COMPLETED."""

    COMPLETED = "completed"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASHED = "crashed"
    """The process ended before its report (a signal, `os._exit`)."""
    NOT_APPLIED = "not applied"
    """The patch does not apply to the base tree: no test was run."""


@dataclass(frozen=True, kw_only=True)
class TestRun:
    """The tests of the task, run on the patched tree."""

    __test__ = False

    outcomes: Mapping[str, TestOutcome]
    """Every FAIL_TO_PASS and PASS_TO_PASS id -> its outcome."""
    fail_to_pass: tuple[str, ...]
    """Ids of the tests that fail at the base and must pass."""
    pass_to_pass: tuple[str, ...]
    """Ids of the tests that pass at the base and must still pass."""
    end: End = End.COMPLETED
    """How the run ended."""
    detail: str = ""
    """The reason for an early end: the last lines of the output, the exceeded limit. Of a completed run: why a
    PASS_TO_PASS test is not judged."""
    scope: str = "full"
    """`full`, or `reachable`: only the tests that execute a changed function (the others are UNREACHED)."""
    seconds: float = 0.0
    """Wall time of the run, in seconds."""
    unnamed: tuple[str, ...] = ()
    """Tests that fail at the base and that no FAIL_TO_PASS names."""
    also_fixed: tuple[str, ...] = ()
    """Those of `unnamed` that pass."""

    @cached_property
    def fixed(self) -> tuple[str, ...]:
        """FAIL_TO_PASS tests that pass."""
        if isinstance(self.outcomes, StoredOutcomes):
            return self.outcomes.fixed
        return tuple(test for test in self.fail_to_pass if self.outcomes[test].status is TestStatus.PASSED)

    @cached_property
    def broken(self) -> tuple[str, ...]:
        """PASS_TO_PASS tests that failed, ended in an error, were skipped, xfailed or are missing."""
        if isinstance(self.outcomes, StoredOutcomes):
            return self.outcomes.broken
        return tuple(test for test in self.pass_to_pass if self.outcomes[test].status not in GOOD)

    @cached_property
    def verified_files(self) -> frozenset[str]:
        """Test files with at least one test that passed or was not reached."""
        if isinstance(self.outcomes, StoredOutcomes):
            return self.outcomes.verified_files
        return frozenset(file_of(test) for test, outcome in self.outcomes.items() if outcome.status in GOOD)

    @property
    def resolved(self) -> bool:
        """Do all FAIL_TO_PASS tests pass, with no PASS_TO_PASS test broken? False without any test."""
        return bool(self.outcomes) and len(self.fixed) == len(self.fail_to_pass) and not self.broken


@dataclass(frozen=True, kw_only=True)
class PartialRun:
    """Some of the task's tests, run on the patched tree: what a cascade knows before the whole run. Never a verdict."""

    outcomes: Mapping[str, TestOutcome]
    """The FAIL_TO_PASS and PASS_TO_PASS tests that ran -> their outcomes."""
    unrun: tuple[str, ...] = ()
    """The PASS_TO_PASS tests that the change may reach and that did not run. All others that `outcomes` lacks cannot be
    reached."""
    end: End = End.COMPLETED
    """How the run ended."""
    detail: str = ""
    """The reason for an early end."""
    seconds: float = 0.0
    """Wall time of the run, in seconds."""

    def failing(self, tests: Iterable[str]) -> tuple[str, ...]:
        """Those of `tests` that ran and have not passed."""
        return tuple(test for test in tests if test in self.outcomes and self.outcomes[test].status not in GOOD)


@dataclass(frozen=True, kw_only=True)
class FailToPassRun(PartialRun):
    """The FAIL_TO_PASS tests alone."""


@dataclass(frozen=True, kw_only=True)
class TestFileRun(PartialRun):
    """The FAIL_TO_PASS tests, and of their files all tests that the change can reach."""

    __test__ = False


@dataclass(frozen=True)
class BuildRun:
    """Does the patched tree byte-compile and import, and can its wheel be built?"""

    ok: bool
    """Did every check succeed?"""
    checked_files: int
    """Number of changed source files that were compiled."""
    error: str = ""
    """First error with file and line."""
    wheel: bool = False
    """Was the wheel built? Only if the change can affect it, and the wheel of the base can be built."""


@dataclass(frozen=True)
class Finding:
    """One lint finding."""

    rule: str
    """The rule's code, such as `F401`."""
    file: str
    """Path in the repository."""
    line: int
    """Line, from 1: after the patch for an added finding, before it for a removed one."""
    message: str
    """The linter's words."""


@dataclass(frozen=True)
class LintDelta:
    """The difference in lint findings in the patched files, under the ruff settings of the pristine tree."""

    added: tuple[Finding, ...]
    """Findings after the patch that were not there before."""
    removed: tuple[Finding, ...]
    """Findings before the patch that are gone."""
    changed_lines: int
    """Lines added and removed in the patched Python files; 0: no Python file to lint."""
    unparsable: tuple[str, ...] = ()
    """Files that ruff cannot parse after the patch, and could parse before it; or new files that it cannot parse."""
    rules: str = ""
    """The applied rules, in words: the project's own, with their file, or the default set."""


@dataclass(frozen=True)
class FunctionComplexity:
    """Cyclomatic complexity of one function before and after the patch; None if the function does not exist."""

    file: str
    """Path in the repository."""
    function: str
    """Qualified name, such as `Cache.get`."""
    before: int | None
    """Cyclomatic complexity before the patch: 1 plus the number of branches."""
    after: int | None
    """The same after the patch."""


@dataclass(frozen=True, kw_only=True)
class ComplexityDelta:
    """Cyclomatic complexity of the functions of the patched files (radon; lizard for other languages than Python)."""

    functions: tuple[FunctionComplexity, ...]
    """Only added, removed and changed ones; sums and maxima are over these."""
    sum_before: int
    """Sum over the functions before the patch."""
    sum_after: int
    """The same after the patch."""
    max_before: int
    """Maximum over the functions before the patch."""
    max_after: int
    """The same after the patch."""
    unparsable: tuple[str, ...] = ()
    """Files that cannot be parsed after the patch, and could be before it; or new files that cannot be parsed."""
    files: tuple[str, ...] = ()
    """The patched files of a supported language; empty: no file to measure."""
    reference_growth: int | None = None
    """`growth` of the task's reference patch; None if the task has none, or it cannot be measured."""
    target: FunctionComplexity | None = None
    """The function that the task names, whether or not the patch changes it; None: the task names none, or it cannot be
    measured at the base."""

    @property
    def growth(self) -> int:
        """Growth of the sum plus growth of the maximum, each at least 0: a branch more in one function counts 2."""
        return max(0, self.sum_after - self.sum_before) + max(0, self.max_after - self.max_before)


@dataclass(frozen=True)
class Readability:
    """The readability of one function."""

    cognitive: int
    """Cognitive complexity (complexipy): branches, weighted by their nesting depth."""
    volume: float
    """Halstead volume in bits (radon): operators and operands."""
    maintainability: float
    """Maintainability index on radon's scale from 0 to 100 (best), without comments."""


@dataclass(frozen=True)
class FunctionReadability:
    """The readability of one function before and after the patch; None if the function does not exist."""

    file: str
    """Path in the repository."""
    function: str
    """Qualified name."""
    before: Readability | None
    """Before the patch."""
    after: Readability | None
    """After the patch."""


@dataclass(frozen=True)
class ReadabilityDelta:
    """The readability of the functions of the patched files."""

    functions: tuple[FunctionReadability, ...]
    """Only added, removed and changed ones."""
    unparsable: tuple[str, ...] = ()
    """Files that cannot be parsed after the patch, and could be before it; or new files that cannot be parsed."""
    files: tuple[str, ...] = ()
    """The patched Python files; empty: no file to measure."""


@dataclass(frozen=True, kw_only=True)
class ImpactedModule:
    """A module outside the patched files that depends on a changed symbol."""

    module: str
    """Path of its file."""
    hops: int
    """Steps of dependency from the changed symbol to the module, at least 1."""
    weight: float
    """weight of the change x confidence x 0.5^(hops - 1), the maximum over all paths."""
    path: tuple[str, ...]
    """The path of dependencies: symbol, module, ..., this module; empty if unknown."""
    tests: tuple[str, ...] = ()
    """Test files that reach this module through the import graph."""
    dangling: tuple[str, ...] = ()
    """Names that it imports from the patched modules, and that the patch removes."""


@dataclass(frozen=True, kw_only=True)
class Impact:
    """The patch's reach over the import graph."""

    changed_symbols: tuple[str, ...]
    """`file::name` of each changed function, class or constant."""
    modules: tuple[ImpactedModule, ...]
    """The modules that depend on them."""
    new_cycles: tuple[tuple[str, ...], ...] = ()
    """Import cycles that the patch closes, each as the modules on it."""
    unparsable: tuple[str, ...] = ()
    """Files that cannot be parsed after the patch, and could be before it; or new files that cannot be parsed."""
    dangling_tests: tuple[tuple[str, str], ...] = ()
    """(test file, `file::name` that it uses and that the patch removes)"""
    nearest: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(changed symbol, test functions nearest to it), by the measured reach of the tests and by the import graph; empty
    if one symbol changed, or too many."""

    def cause_of(self, test: str) -> str:
        """The changed symbol nearest to a test id; empty if unknown."""
        return self._causes.get(function_of(test), "")

    @cached_property
    def _causes(self) -> dict[str, str]:
        return {test: symbol for symbol, tests in self.nearest for test in tests}


@dataclass(frozen=True)
class Diff:
    """The size of the patch, without protected files (tests, configuration), so that adding tests costs nothing."""

    added_lines: int
    """Number of lines."""
    removed_lines: int
    """Number of lines."""
    files: tuple[str, ...]
    """Changed files: the path after the patch; of a deleted file, the path before it."""
    reference_lines: int | None = None
    """`changed_lines` of the task's reference patch; None if the task has none, or it cannot be read."""

    @property
    def changed_lines(self) -> int:
        """Added plus removed lines."""
        return self.added_lines + self.removed_lines

    @property
    def is_empty(self) -> bool:
        """Does it change no unprotected file?"""
        return not self.files


@dataclass(frozen=True)
class ChangedLines:
    """The lines of one file that the patch changes. A moved line is a removed one and an added one."""

    file: str
    """Path after the patch; of a deleted file, the path before it."""
    added: tuple[tuple[int, str], ...]
    """(line number after the patch, text without newline) of each added line."""
    removed: tuple[tuple[int, str], ...]
    """(line number before the patch, text without newline) of each removed line."""


@dataclass(frozen=True)
class PatchText:
    """The text of the patch, and the lines that it changes, without protected files (tests, configuration)."""

    text: str
    """The patch as the policy wrote it, protected files included; empty if it is no diff."""
    files: tuple[ChangedLines, ...]
    """The changed files, sorted by path: the difference of the files before and after the patch, whatever its hunks
    repeat. Empty for a patch that does not apply."""

    @property
    def added(self) -> tuple[tuple[str, int, str], ...]:
        """(file, line number after the patch, text) of each added line."""
        return tuple((each.file, number, line) for each in self.files for number, line in each.added)


@dataclass(frozen=True)
class Tampering:
    """One sign of tampering with the evaluation."""

    kind: str
    """What it does, in words, such as `exits early`."""
    file: str
    """Path in the repository."""
    line: int
    """Line after the patch, from 1."""
    detail: str
    """The code, or what it does."""
    conclusive: bool = True
    """False: honest code does this as well. The sign is recorded, and closes no gate."""


@dataclass(frozen=True)
class Integrity:
    """Signs of tampering, and edits to tests and configuration, which the run ignores."""

    signs: tuple[Tampering, ...]
    """All signs, the inconclusive ones too."""
    ignored_files: tuple[str, ...] = ()
    """Files of the patch whose pristine version the run used."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the conclusive signs, each once, sorted."""
        return tuple(sorted({sign.kind for sign in self.signs if sign.conclusive}))


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The assurance level of the verdict, and the results of the runs outside the candidate's process."""

    level: AssuranceLevel
    """The strongest level that this patch reaches. If no FAIL_TO_PASS test passes, there is nothing to verify, and it
    is the strongest of all."""
    reachable: str
    """The strongest level that the task's reference patch reaches; empty: the task has none."""
    confirmed: tuple[str, ...] = ()
    """Tests that pass in a process without the candidate's code."""
    refuted: tuple[tuple[str, str], ...] = ()
    """(test that passes only in the candidate's process, its result elsewhere)"""
    sprung: tuple[tuple[str, str], ...] = ()
    """(test with a triggered tripwire, the reason)"""
    unconfirmed: tuple[str, ...] = ()
    """Tests that pass in the candidate's process, and nothing else confirms it."""
    why: str = ""
    """The reason for the level, in words."""
    seconds: float = 0.0
    """Wall time of the verification, in seconds."""
    inputs: int = 0
    """Held-out inputs whose results were compared with those of the reference patch."""
    wrong_at_base: int = 0
    """Those of them that the base answers otherwise than the reference patch does."""
    corrected: int = 0
    """Those of `wrong_at_base` that this patch answers as the reference patch does."""

    def reaches(self, level: str) -> bool:
        """Is the verdict's level this `AssuranceLevel` or a stronger one?"""
        return AssuranceLevel(self.level) >= level


@dataclass(frozen=True, kw_only=True)
class DefaultVerification(Verification):
    """The verification that rewards get by default: only where it costs less than the tests, and without held-out
    inputs."""

    required: str = ""
    """The `AssuranceLevel` that the reference patch reaches so; empty: nothing above in-process is required."""
    is_recorded: bool = False
    """Is it the level recorded for the task, so that a verdict that does not reach it never pays?"""

    @property
    def shortfall(self) -> str:
        """What contradicts the verdict, although the tests pass; empty: nothing does.

        A test that passes only in the candidate's process, or a triggered tripwire. A test that nothing confirms is no
        contradiction: an honest patch may change what a verification can't see through. Where the task records a level,
        whatever does not reach it falls short.
        """
        if self.is_recorded and not self.reaches(self.required):
            return f"{self.level} only, and the task requires {self.required}: {self.why}"
        if self.required and not self.reaches(self.required) and self.refuted:
            return f"{self.level} only, and the reference reaches {self.required}: {self.why}"
        return f"{self.level} only: {self.why}" if self.sprung else ""


@dataclass(frozen=True)
class PredictedPart:
    """What a reward model predicts for one component of the verdict."""

    name: str
    """The component: `fixes`, `breaks`, `builds`, `style`, ..."""
    value: float
    """The expected value of the component: of an event, its probability."""
    doubt: float
    """Half the width of the 95 % interval."""


@dataclass(frozen=True)
class Prediction:
    """A reward model's prediction for a patch, without execution. Each model has a subclass: see `prediction_of`."""

    resolved: float | None
    """Probability that the patch is a clean fix; None: the model cannot evaluate the patch."""
    doubt: float
    """Half the width of its 95 % interval: the disagreement of the ensemble, and what the calibration leaves open."""
    model: str
    """Name of the model."""
    why: str = ""
    """The reason for a missing probability, or for a probability of 0 without asking the model."""
    parts: tuple[PredictedPart, ...] = ()
    """The prediction for each component, which explains the probability."""
    cut: str = ""
    """What of the input the model did not read, because its context is limited; empty: it read all."""

    @property
    def lower(self) -> float | None:
        """The lower end of the interval, at least 0; None: the model cannot evaluate the patch."""
        return None if self.resolved is None else min(1.0, max(0.0, self.resolved - self.doubt))


Evidence = (
    TestRun
    | FailToPassRun
    | TestFileRun
    | BuildRun
    | LintDelta
    | ComplexityDelta
    | ReadabilityDelta
    | Impact
    | Diff
    | PatchText
    | Integrity
    | Verification
    | DefaultVerification
    | Prediction
)


@dataclass(frozen=True)
class EvidenceSet:
    """The evidence on one patch for one task, by type, and the types that could not be gathered."""

    records: Mapping[type, Any] = field(default_factory=dict)
    infrastructure: Mapping[type, str] = field(default_factory=dict)
    """Evidence type -> the reason, not caused by the candidate, for which it could not be gathered."""
    assurance: AssuranceLevel = AssuranceLevel.IN_PROCESS
    """The assurance level; `in-process`: the candidate's code ran in the tests' process."""

    def of(self, needs: Collection[type]) -> EvidenceSet:
        """The records of these types alone."""
        records = {kind: record for kind, record in self.records.items() if kind in needs}
        failures = {kind: cause for kind, cause in self.infrastructure.items() if kind in needs}
        return EvidenceSet(records, failures, self.assurance)
