"""Typed output of a sandbox: the events of its worker, and the records of a candidate.

A candidate's programs (`regrade.evaluators.inside`) write one JSON array a line, `["test", id, status, ...]`. Any line
may be malformed: the last one of a killed candidate may be truncated, and any may be forged. A field is `Any` if the
record counts whatever its value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


class ReadyEvent(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """The worker has started, and waits for requests."""

    python: str
    """Version of its interpreter."""


class ForkedEvent(msgspec.Struct, frozen=True, tag_field="event", tag="forked"):
    """The candidate of the last request is running."""


class DoneEvent(msgspec.Struct, frozen=True, tag_field="event", tag="done"):
    """The candidate of the last request has ended."""

    status: int
    """Exit status, or minus the number of the signal that killed it."""
    stopped: str
    """Why the worker stopped it (see `inside/watching.py`); empty: it ended by itself."""
    seconds: float
    cpu: float
    """CPU seconds of the candidate and its processes."""
    lines: list[str]
    """Its records, as it wrote them."""
    output: str
    """The end of what it printed."""
    clean: bool
    """Were all its leftovers removed?"""


class RunningEvent(msgspec.Struct, frozen=True, tag_field="event", tag="running"):
    """The candidate of the last request is still running. For a display: it decides nothing."""

    test: str
    """The end of the running test's id; empty: none. The candidate's own code may have named it."""
    done: int
    """Number of finished tests."""
    total: int
    """Number of collected tests; 0: unknown."""


Event = ReadyEvent | ForkedEvent | RunningEvent | DoneEvent


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One record of a candidate."""


class ConfigurationRecord(Record, frozen=True, tag="configuration"):
    """pytest is configured."""

    path: str
    """Path of its configuration file; empty: none."""
    own: str | None
    """The path relative to the root; None: it lies outside the tree."""


class CollectRecord(Record, frozen=True, tag="collect"):
    """A node was not collected."""

    node: str
    message: Any


class CollectedRecord(Record, frozen=True, tag="collected"):
    """The tests were collected."""

    count: Any
    """Number of tests to run."""


class StartedRecord(Record, frozen=True, tag="started"):
    """A test has started."""

    id: str


class FixturesRecord(Record, frozen=True, tag="fixtures"):
    """The set-up or tear-down of a test took long."""

    test: str
    seconds: float


class TestRecord(Record, frozen=True, tag="test"):
    """A test was run."""

    __test__: ClassVar[bool] = False

    id: str
    status: str
    """A value of `TestStatus`, unless forged."""
    seconds: Any
    message: Any
    """Why it failed."""


class ImportRecord(Record, frozen=True, tag="import"):
    """A module failed to import."""

    module: str
    error: Any


class ThreadsRecord(Record, frozen=True, tag="threads"):
    """All modules were imported."""

    count: int
    """Threads of the process at that time."""


class ImportedRecord(Record, frozen=True, tag="imported"):
    """The collection is over."""

    names: list[str]
    """With `--collect-only`, or with the sources of the tests: modules from outside the tree that the collection or the
    end of the session imported, in order. With a measurement of reach: the functions (`file::qualified.name`) that it
    executed, and the files that it read."""


class ReachRecord(Record, frozen=True, tag="reach"):
    """The reach of a test was measured."""

    test: str
    keys: list[str]
    """The functions (`file::qualified.name`) that it executes, and the files that it reads."""
    is_opaque: bool
    """May it execute more than that?"""
    passes_alone: bool
    """Does it pass without the tests before it, if it passes in the suite?"""


class TestSources(msgspec.Struct, frozen=True):
    """The files of the tree that tests come from and use, relative to the root (see `inside/recording/sources.py`)."""

    collected: tuple[str, ...] = ()
    """Files of the collected tests, and every conftest.py."""
    used: tuple[str, ...] = ()
    """Files that define functions or fixtures of tests, and plugins."""
    doctests: tuple[tuple[str, str, str], ...] = ()
    """Tests in docstrings of modules: the file, the id and the examples (see `inside/recording/doctests.py`)."""
    modules: tuple[tuple[str, str], ...] = ()
    """Imported modules: name and file."""
    foreign: tuple[str, ...] = ()
    """Names of imported modules from outside of the tree: top-level ones, and members of packages of the tree."""
    importers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Files that ran as modules, each with the file that imported it first; `*`: other code did; empty: pytest did."""
    opened: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    """Other opened files, each with the files of the code that opened it, and all files of code that called that."""
    executed: tuple[str, ...] = ()
    """Files of code that was executed outside of functions: imported, or by `exec`."""
    has_processes: bool = False
    """Was a process started?"""

    @property
    def loaded(self) -> tuple[str, ...]:
        """Files of the imported modules."""
        return tuple(dict.fromkeys(path for _, path in self.modules))


class SourcesRecord(Record, frozen=True, tag="sources"):
    """The session is over."""

    sources: TestSources


class UnmeasuredRecord(Record, frozen=True, tag="unmeasured"):
    """The reach of no test was measured."""

    reason: str


class CheckedRecord(Record, frozen=True, tag="checked"):
    """The command of its language compiled a file."""

    file: str
    error: Any
    """Empty: it has none."""


class WheelRecord(Record, frozen=True, tag="wheel"):
    """The build of the wheel has ended."""

    outcome: Any
    """`built`, `none` (no backend), or `failed`."""
    detail: Any
    """The wheel's name, or the error."""


class ExtensionsRecord(Record, frozen=True, tag="extensions"):
    """The build of the extensions has ended."""

    error: str
    """Empty: they were built."""
    sources: list[str]
    """Files of the tree that were compiled."""


class CrossedRecord(Record, frozen=True, tag="crossed"):
    """A test was run with the candidate's code in the other process."""

    test: str
    calls: int
    """Number of calls that crossed."""
    problem: str
    """Why a call did not cross; empty: all did."""


class CalledRecord(Record, frozen=True, tag="called"):
    """A function at the boundary was called, and answered, with values as they cross (see
    `inside/remote_calls/plain_values.py`)."""

    arguments: list[Any]
    """Module, key, positional and keyword arguments."""
    nodes: list[Any]
    answer: dict[str, Any]


class UnrecordedRecord(Record, frozen=True, tag="unrecorded"):
    """Not all calls of a function at the boundary are recorded."""

    key: str


class AnswerRecord(Record, frozen=True, tag="answer"):
    """The candidate's code answered a held-out input."""

    index: int
    """Index of the input, from 0."""
    answer: dict[str, Any]
    """The message of the other process as received, with the first `values` of an iterator; or the reason why there is
    none: `gone`."""


class LikenessRecord(Record, frozen=True, tag="likeness"):
    """An answer was examined: what does it equal that it should not?"""

    index: int
    """Of the answer, from 0."""
    problem: str
    """Empty: nothing."""


class ElsewhereRecord(Record, frozen=True, tag="elsewhere"):
    """Modules that the tree provides were imported from outside of it."""

    modules: list[tuple[str, str]]
    """Name, and the file that it came from."""


class ReplacedRecord(Record, frozen=True, tag="replaced"):
    """Other modules stood in for those which the tests import at the base."""

    modules: list[tuple[str, str]]
    """Name, and the file that it came from."""


class TamperedRecord(Record, frozen=True, tag="tampered"):
    """Something that decides outcomes was replaced while the tests ran (see `inside/recording/tampering_watch.py`)."""

    what: str
    by: str
    """Where the replacement comes from."""


class ReadRecord(Record, frozen=True, tag="read"):
    """A file of tests was opened while the tests ran (see `inside/recording/reads_of_tests.py`)."""

    path: str
    by: str
    """The code under test that opened it; empty: code of the tests."""


class AlteredRecord(Record, frozen=True, tag="altered"):
    """The code under test replaced functions of libraries that tests use."""

    names: list[str]


class DoneRecord(Record, frozen=True, tag="done"):
    """The request was completed."""

    status: Any
    """Exit status of the process."""


class LeftRecord(Record, frozen=True, tag="left"):
    """An exception ended the request."""

    error: Any


class UnknownRecord(Record, frozen=True):
    """A line of unknown kind, wrong length or wrong types.

    It is not dropped: how an execution ended depends on the last record.
    """


_KnownRecord = (
    ConfigurationRecord | CollectRecord | CollectedRecord | StartedRecord | FixturesRecord | TestRecord | ImportRecord
    | ThreadsRecord | ImportedRecord | ReachRecord | SourcesRecord | UnmeasuredRecord | CheckedRecord | WheelRecord
    | CrossedRecord | CalledRecord | UnrecordedRecord | AnswerRecord | LikenessRecord | ElsewhereRecord | ReplacedRecord
    | TamperedRecord | ReadRecord | AlteredRecord | ExtensionsRecord | DoneRecord | LeftRecord
)  # fmt: skip
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_RECORDS: msgspec.json.Decoder[_KnownRecord] = msgspec.json.Decoder(_KnownRecord)


def decode_event(line: bytes) -> Event:
    """An event of the worker. Raises ValueError: the line is not one."""
    return _EVENTS.decode(line)


def decode(lines: Iterable[str]) -> tuple[Record, ...]:
    """The records of a candidate in order, without lines that are no JSON array beginning with a name."""
    return tuple(record for line in lines if (record := _decoded(line)) is not None)


def _decoded(line: str) -> Record | None:
    try:
        return _RECORDS.decode(line)
    except (ValueError, RecursionError):
        return _decoded_slowly(line)


def _decoded_slowly(line: str) -> Record | None:
    """Python's own parser also accepts the extensions of its writer: NaN, infinity, half of a surrogate pair."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, list) or not content or not isinstance(content[0], str):
        return None
    try:
        record: Record = msgspec.convert(content, _KnownRecord)
    except (ValueError, RecursionError):
        return UnknownRecord()
    return record
