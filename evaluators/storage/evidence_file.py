"""The evidence of a run, stored beside its rows: another reward scores it without executing anything.

JSON lines of three kinds. Tasks of one repository with the same tests share one list of test ids:

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
from regrade.datasets.input_files import read_input
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
    """The stored evidence of one patch on one task; `of` decodes only the types that a reward needs."""

    tests: TestList
    line: _Line

    def of(self, needs: frozenset[type]) -> EvidenceSet:
        """The stored evidence of these types; missing types are left out.

        Raises:
            UserError: a record does not match its type.
        """
        causes = self.line.infrastructure
        failures = {kind: causes[kind.__qualname__] for kind in needs if kind.__qualname__ in causes}
        try:
            records = decode_all(needs.difference(failures), self.line.records, self.tests)
        except ValueError as error:
            raise UserError(
                f"the stored evidence of patch {self.line.patch} does not match its type ({error}): evaluate again"
            ) from error
        return EvidenceSet(records, failures, self.line.assurance)


def evidence_path(rows: Path) -> Path:
    """Path of the evidence of a file of rows."""
    return rows.with_suffix(".evidence")  # not .jsonl: `load_rows` reads every .jsonl file of a folder


class EvidenceFile:
    """A file of evidence: an evaluation appends to it, `rescore` reads it whole."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: a line of the file is not evidence, or has another schema version.
        """
        self.path = path
        self._suites: dict[str, tuple[str, ...]] = {}
        self._tests: dict[str, TestList] = {}
        self._lines: dict[Key, _Line] = {}
        journal.repair(path)
        for number, line in enumerate(read_input(path).splitlines() if path.exists() else (), 1):
            self._read_line(line, number)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, key: object) -> bool:
        return key in self._lines

    def get(self, key: Key) -> StoredEvidence | None:
        line = self._lines.get(key)
        return None if line is None else StoredEvidence(self._tests[key[0]], line)

    def add(self, gathered: Iterable[tuple[Task, str, EvidenceSet]]) -> None:
        """Append (task, digest of a patch, its evidence); evidence that the file already has in full is skipped."""
        lines: list[Mapping[str, Any]] = []
        for task, patch, evidence in gathered:
            stored = self._lines.get((task.digest, patch))
            if stored is not None and not stored.infrastructure and _names(evidence) <= _plain(stored).keys():
                continue
            lines.extend(map(_without_surrogates, self._task_lines(task)))
            line = _without_surrogates(_line(task, patch, evidence))
            if stored is not None:  # records that an earlier reward needed stay
                line["records"] = {**_plain(stored), **line["records"]}
            self._lines[task.digest, patch] = _DECODER.decode(json.dumps(line))
            lines.append(line)
        if lines:
            journal.append(self.path, lines)

    def _task_lines(self, task: Task) -> Iterator[Mapping[str, Any]]:
        if task.digest in self._tests:
            return
        suite = key_of(sorted({*task.fail_to_pass, *task.pass_to_pass})).hex()[:16]
        if suite not in self._suites:
            self._suites[suite] = tuple(dict.fromkeys((*task.fail_to_pass, *task.pass_to_pass)))
            yield {"suite": suite, "tests": self._suites[suite]}
        indices = {test: index for index, test in enumerate(self._suites[suite])}
        lists = {"fail_to_pass": task.fail_to_pass, "pass_to_pass": task.pass_to_pass}
        ranges = {name: _ranges([indices[test] for test in tests]) for name, tests in lists.items()}
        yield {"task": task.digest, "suite": suite, **ranges}
        self._tests[task.digest] = TestList(task.fail_to_pass, task.pass_to_pass)

    def _read_line(self, text: bytes, number: int) -> None:
        try:
            line = _DECODER.decode(text)
            if line.patch is not None:
                if line.schema != SCHEMA:
                    raise ValueError(f"it has schema {line.schema}, this version of regrade reads {SCHEMA}")
                self._tests[line.task]
                self._lines[line.task, line.patch] = line
            elif line.task:
                self._tests[line.task] = _test_list(line, self._suites[line.suite])
            else:
                self._suites[line.suite] = line.tests
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(f"{self.path}, line {number}: not evidence of a run ({error}); evaluate again") from error


def _test_list(line: _Line, suite: tuple[str, ...]) -> TestList:
    def tests_of(ranges: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
        return tuple(test for first, end in ranges for test in suite[first:end])

    return TestList(tests_of(line.fail_to_pass), tests_of(line.pass_to_pass))


def _ranges(indices: Sequence[int]) -> list[tuple[int, int]]:
    """The indices, in order, as [first, end) of each run of consecutive ones."""
    ranges: list[tuple[int, int]] = []
    for index in indices:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges


def _line(task: Task, patch: str, evidence: EvidenceSet) -> dict[str, Any]:
    return {
        "task": task.digest,
        "patch": patch,
        "schema": SCHEMA,
        "assurance": evidence.assurance,
        "infrastructure": {kind.__qualname__: cause for kind, cause in evidence.infrastructure.items()},
        "records": {kind.__qualname__: json.loads(encode(record)) for kind, record in evidence.records.items()},
    }


def _without_surrogates(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with `?` for each lone surrogate: the output of a test may contain one, and msgspec rejects it."""
    values: dict[str, Any] = json.loads(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace"))
    return values


def _plain(line: _Line) -> dict[str, Any]:
    records: dict[str, Any] = json.loads(bytes(line.records))
    return records


def _names(evidence: EvidenceSet) -> set[str]:
    return {kind.__qualname__ for kind in evidence.records}
