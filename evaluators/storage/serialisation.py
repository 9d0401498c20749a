"""Evidence to JSON and back. A test run takes one letter a test, and a message only for a test that has one."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from regrade.rewards.evidence import LETTERS, End, StoredOutcomes, TestList, TestRun

SCHEMA = 1
"""Version of the evidence types, stored with each record. It grows when a field changes its meaning."""

DETERMINISTIC: Literal["deterministic"] | None = "deterministic"


class HasTests(Protocol):
    """A task, or its lists of test ids."""

    @property
    def fail_to_pass(self) -> tuple[str, ...]: ...

    @property
    def pass_to_pass(self) -> tuple[str, ...]: ...


class _StoredRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A TestRun without the ids of its FAIL_TO_PASS and PASS_TO_PASS tests, which the task holds."""

    letters: str
    words: dict[int, tuple[str, float]]
    end: End
    detail: str
    scope: str
    seconds: float
    unnamed: tuple[str, ...] = ()
    also_fixed: tuple[str, ...] = ()


def encode(evidence: Any) -> str:
    """One record of evidence (a frozen dataclass) as JSON.

    Raises:
        TypeError: a field has a type that JSON cannot represent.
    """
    record, order = evidence, DETERMINISTIC
    if isinstance(evidence, TestRun):
        record, order = _stored(evidence), None  # the keys of `words` are sorted already
    try:
        return msgspec.json.encode(record, order=order).decode()
    except UnicodeEncodeError:  # a lone surrogate from a test's output: json escapes it, msgspec does not
        return json.dumps(msgspec.to_builtins(record, order=order, str_keys=True), separators=(",", ":"))


def decode(kind: type, text: str | bytes, tests: HasTests) -> Any:
    """The record that `encode` wrote. Raises ValueError if the text does not match the type."""
    if kind is not TestRun:
        return decode_plain(kind, text)
    return _restored(decode_plain(_StoredRun, text), tests)


def decode_all(kinds: frozenset[type], text: str | bytes, tests: HasTests) -> dict[type, Any]:
    """The records of these types from a JSON object: name of a type -> its record. Absent types are left out.

    Raises:
        ValueError: a record does not match its type.
    """
    ordered, decoder = _records_decoder(kinds)
    values = astuple(decoder.decode(text))
    records = {kind: record for kind, record in zip(ordered, values, strict=True) if record is not UNSET}
    if TestRun in records:
        records[TestRun] = _restored(records[TestRun], tests)
    return records


def _restored(run: _StoredRun, tests: HasTests) -> TestRun:
    ids = tests if isinstance(tests, TestList) else _test_list(tests.fail_to_pass, tests.pass_to_pass)
    outcomes = StoredOutcomes(ids, run.letters, run.words)
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=ids.fail_to_pass,
        pass_to_pass=ids.pass_to_pass,
        end=run.end,
        detail=run.detail,
        scope=run.scope,
        seconds=run.seconds,
        unnamed=run.unnamed,
        also_fixed=run.also_fixed,
    )


def decode_plain(kind: type, text: str | bytes) -> Any:
    """JSON as an instance of a dataclass. Raises ValueError if the text does not match the type."""
    try:
        return _decoder(kind).decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # perhaps a lone surrogate, which json accepts
        return msgspec.convert(json.loads(text), kind, str_keys=True)


@cache
def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@cache
def _records_decoder(kinds: frozenset[type]) -> tuple[tuple[type, ...], msgspec.json.Decoder[Any]]:
    """One decoder for all records takes half the time of one decoder a record."""
    ordered = tuple(kinds)
    fields = [(f"record{index}", _stored_as(kind) | UnsetType, UNSET) for index, kind in enumerate(ordered)]
    names = {name: kind.__qualname__ for (name, _, _), kind in zip(fields, ordered, strict=True)}
    return ordered, msgspec.json.Decoder(msgspec.defstruct("Records", fields, rename=names))


def _stored_as(kind: type) -> Any:
    return _StoredRun if kind is TestRun else kind


@lru_cache(maxsize=4096)
def _test_list(fail_to_pass: tuple[str, ...], pass_to_pass: tuple[str, ...]) -> TestList:
    return TestList(fail_to_pass, pass_to_pass)


def _stored(run: TestRun) -> _StoredRun:
    outcomes = [run.outcomes[test] for test in run.fail_to_pass + run.pass_to_pass]
    words = {
        index: (outcome.message, outcome.seconds)
        for index, outcome in enumerate(outcomes)
        if outcome.message or outcome.seconds
    }
    letters = "".join(LETTERS[outcome.status] for outcome in outcomes)
    return _StoredRun(
        letters=letters,
        words=words,
        end=run.end,
        detail=run.detail,
        scope=run.scope,
        seconds=run.seconds,
        unnamed=run.unnamed,
        also_fixed=run.also_fixed,
    )
