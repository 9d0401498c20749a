"""The evidence of a run, kept beside its rows, so that another reward can judge it without running anything.

JSON lines of three kinds. Test ids are written once for all the tasks of a repository that share them:

    {"suite": DIGEST, "tests": [ID, ...]}
    {"task": DIGEST, "suite": DIGEST, "fail_to_pass": [[FIRST, END], ...], "pass_to_pass": [[FIRST, END], ...]}
    {"task": DIGEST, "patch": DIGEST, "schema": 1, "assurance": ..., "infrastructure": {KIND: WHY}, "records": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.storage.serialisation import SCHEMA, decode_all, encode
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import EvidenceSet, TestList

Key = tuple[str, str]
"""Digests of a task and of a patch."""


class _Line(msgspec.Struct):
    suite: str = ""
    tests: tuple[str, ...] = ()
    task: str = ""
    fail_to_pass: tuple[tuple[int, int], ...] = ()
    pass_to_pass: tuple[tuple[int, int], ...] = ()
    patch: str | None = None
    schema: int = SCHEMA
    assurance: AssuranceLevel = AssuranceLevel.UNCONFINED
    infrastructure: dict[str, str] = {}
    records: msgspec.Raw = msgspec.Raw(b"{}")


_DECODER = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class StoredEvidence:
    """What is kept of one patch on one task, decoded as far as a reward asks for it."""

    tests: TestList
    line: _Line

    def of(self, needs: frozenset[type]) -> EvidenceSet:
        """Evidence of these types, as far as it is there.

        Raises:
            UserError: a record has another shape than its type.
        """
        causes = self.line.infrastructure
        failures = {kind: causes[kind.__qualname__] for kind in needs if kind.__qualname__ in causes}
        try:
            records = decode_all(needs.difference(failures), self.line.records, self.tests)
        except ValueError as error:
            raise UserError(
                f"the kept evidence of patch {self.line.patch} has another shape ({error}): evaluate again"
            ) from error
        return EvidenceSet(records, failures, self.line.assurance)


class KeptEvidence:
    """A file of evidence: appended to as an evaluation goes on, read whole to judge anew."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: the file holds something else, or evidence of another version of this program.
        """
        self.path = path
        self._suites: dict[str, tuple[str, ...]] = {}
        self._tests: dict[str, TestList] = {}
        self._found: dict[Key, _Line] = {}
        journal.repair(path)
        for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), 1):
            self._take(line, number)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def get(self, key: Key) -> StoredEvidence | None:
        line = self._found.get(key)
        return None if line is None else StoredEvidence(self._tests[key[0]], line)

    def add(self, found: Iterable[tuple[Task, str, EvidenceSet]]) -> None:
        """Append the evidence of patches (by their digests) on tasks; what is there already without a gap is left."""
        lines: list[Mapping[str, Any]] = []
        for task, patch, evidence in found:
            known = self._found.get((task.digest, patch))
            if known is not None and not known.infrastructure and _names(evidence) <= _plain(known).keys():
                continue
            lines.extend(map(_readable, self._of_task(task)))
            line = _readable(_line(task, patch, evidence))
            if known is not None:  # what an earlier reward needed stays
                line["records"] = {**_plain(known), **line["records"]}
            self._found[task.digest, patch] = _DECODER.decode(json.dumps(line))
            lines.append(line)
        if lines:
            journal.append(self.path, lines)

    def _of_task(self, task: Task) -> Iterator[Mapping[str, Any]]:
        if task.digest in self._tests:
            return
        suite = key_of(sorted({*task.fail_to_pass, *task.pass_to_pass})).hex()[:16]
        if suite not in self._suites:
            self._suites[suite] = tuple(dict.fromkeys((*task.fail_to_pass, *task.pass_to_pass)))
            yield {"suite": suite, "tests": self._suites[suite]}
        places = {test: place for place, test in enumerate(self._suites[suite])}
        lists = {"fail_to_pass": task.fail_to_pass, "pass_to_pass": task.pass_to_pass}
        ranges = {name: _ranges([places[test] for test in tests]) for name, tests in lists.items()}
        yield {"task": task.digest, "suite": suite, **ranges}
        self._tests[task.digest] = TestList(task.fail_to_pass, task.pass_to_pass)

    def _take(self, text: bytes, number: int) -> None:
        try:
            line = _DECODER.decode(text)
            if line.patch is not None:
                if line.schema != SCHEMA:
                    raise ValueError(f"it is of schema {line.schema}, this version reads {SCHEMA}")
                self._tests[line.task]
                self._found[line.task, line.patch] = line
            elif line.task:
                self._tests[line.task] = _test_list(line, self._suites[line.suite])
            else:
                self._suites[line.suite] = line.tests
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(f"{self.path}, line {number}: no evidence of a run ({error}); evaluate again") from error


def _test_list(line: _Line, suite: tuple[str, ...]) -> TestList:
    def named(ranges: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
        return tuple(test for first, end in ranges for test in suite[first:end])

    return TestList(named(line.fail_to_pass), named(line.pass_to_pass))


def _ranges(places: Sequence[int]) -> list[tuple[int, int]]:
    """The places, in order, as [first, end) of each run of neighbours."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def _line(task: Task, patch: str, evidence: EvidenceSet) -> dict[str, Any]:
    return {
        "task": task.digest,
        "patch": patch,
        "schema": SCHEMA,
        "assurance": evidence.assurance,
        "infrastructure": {kind.__qualname__: why for kind, why in evidence.infrastructure.items()},
        "records": {kind.__qualname__: json.loads(encode(record)) for kind, record in evidence.records.items()},
    }


def _readable(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with `?` for each half of a surrogate pair, as odd output of tests holds: fast readers refuse those."""
    found: dict[str, Any] = json.loads(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace"))
    return found


def _plain(line: _Line) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(line.records))
    return found


def _names(evidence: EvidenceSet) -> set[str]:
    return {kind.__qualname__ for kind in evidence.records}
