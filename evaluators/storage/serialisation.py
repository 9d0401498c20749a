"""Evidence as JSON text and back. A run of tests is kept compactly: one letter a test, words only for what failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from regrade.rewards.evidence import LETTERS, End, StoredOutcomes, TestList, TestRun

SCHEMA = 1
"""Version of the evidence types' shape, written beside what is kept. It grows when a field changes its meaning."""


DETERMINISTIC: Literal["deterministic"] | None = "deterministic"


class HasTests(Protocol):
    """A task, or what is known of its tests."""

    @property
    def fail_to_pass(self) -> tuple[str, ...]: ...

    @property
    def pass_to_pass(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class _StoredRun:
    """A TestRun without its test ids: the task has them."""

    letters: str
    words: dict[int, tuple[str, float]]
    end: End
    detail: str
    scope: str
    seconds: float


def encode(evidence: Any) -> str:
    """One record of evidence (a frozen dataclass) as JSON.

    Raises:
        TypeError: it has a field of a type that JSON cannot hold.
    """
    record, order = evidence, DETERMINISTIC
    if isinstance(evidence, TestRun):
        record, order = _stored(evidence), None  # the places of tests are in order as they are
    try:
        return msgspec.json.encode(record, order=order).decode()
    except UnicodeEncodeError:  # half of a surrogate pair, out of a test's output: only json escapes it
        return json.dumps(msgspec.to_builtins(record, order=order, str_keys=True), separators=(",", ":"))


def decode(kind: type, text: str | bytes, tests: HasTests) -> Any:
    """The record that `encode` wrote. Raises ValueError where the text is of another shape."""
    if kind is not TestRun:
        return decode_plain(kind, text)
    return _restored(decode_plain(_StoredRun, text), tests)


def decode_all(kinds: frozenset[type], text: str | bytes, tests: HasTests) -> dict[type, Any]:
    """Those records that are of one of the kinds, out of a JSON object of them by the names of their kinds.

    Raises:
        ValueError: one is of another shape.
    """
    ordered, decoder = _records_decoder(kinds)
    records = astuple(decoder.decode(text))
    found = {kind: record for kind, record in zip(ordered, records, strict=True) if record is not UNSET}
    if TestRun in found:
        found[TestRun] = _restored(found[TestRun], tests)
    return found


def _restored(run: _StoredRun, tests: HasTests) -> TestRun:
    known = tests if isinstance(tests, TestList) else _test_list(tests.fail_to_pass, tests.pass_to_pass)
    outcomes = StoredOutcomes(known, run.letters, run.words)
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=known.fail_to_pass,
        pass_to_pass=known.pass_to_pass,
        end=run.end,
        detail=run.detail,
        scope=run.scope,
        seconds=run.seconds,
    )


def decode_plain(kind: type, text: str | bytes) -> Any:
    """JSON as an instance of a dataclass. Raises ValueError where the text is of another shape."""
    try:
        return _decoder(kind).decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # it may hold half of a surrogate pair
        return msgspec.convert(json.loads(text), kind, str_keys=True)


@cache
def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@cache
def _records_decoder(kinds: frozenset[type]) -> tuple[tuple[type, ...], msgspec.json.Decoder[Any]]:
    """One pass over all the records costs half of what one decoder a record does."""
    ordered = tuple(kinds)
    fields = [(f"record{place}", _stored_as(kind) | UnsetType, UNSET) for place, kind in enumerate(ordered)]
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
        place: (outcome.message, outcome.seconds)
        for place, outcome in enumerate(outcomes)
        if outcome.message or outcome.seconds
    }
    letters = "".join(LETTERS[outcome.status] for outcome in outcomes)
    return _StoredRun(
        letters=letters, words=words, end=run.end, detail=run.detail, scope=run.scope, seconds=run.seconds
    )
