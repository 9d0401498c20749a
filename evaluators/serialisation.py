"""Evidence as JSON text and back. A run of tests is kept compactly: one letter a test, words only for what failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol

import msgspec

from regrade.rewards.evidence import LETTERS, End, StoredOutcomes, TestList, TestRun

SCHEMA = 1
"""Version of the evidence types' shape, written beside what is kept. It grows when a field changes its meaning."""


class HasTests(Protocol):
    """A task, or what is known of its tests."""

    @property
    def fail_to_pass(self) -> tuple[str, ...]: ...

    @property
    def pass_to_pass(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class _StoredRun:
    """A TestRun without its test ids: the task has them."""

    letters: str
    words: dict[str, tuple[str, float]]
    end: End
    detail: str
    scope: str
    seconds: float


def encode(evidence: Any) -> str:
    """One record of evidence (a frozen dataclass) as JSON.

    Raises:
        TypeError: it has a field of a type that JSON cannot hold.
    """
    record = _stored(evidence) if isinstance(evidence, TestRun) else evidence
    try:
        return msgspec.json.encode(record, order="deterministic").decode()
    except UnicodeEncodeError:  # half of a surrogate pair, out of a test's output: only json escapes it
        return json.dumps(msgspec.to_builtins(record, order="deterministic"), separators=(",", ":"))


def decode(kind: type, text: str | bytes, tests: HasTests) -> Any:
    """The record that `encode` wrote. Raises ValueError where the text is of another shape."""
    if kind is not TestRun:
        return decode_plain(kind, text)
    run: _StoredRun = decode_plain(_StoredRun, text)
    known = _test_list(tests.fail_to_pass, tests.pass_to_pass)
    words = {int(place): said for place, said in run.words.items()}
    outcomes = StoredOutcomes(known, run.letters, words)
    return TestRun(outcomes, known.fail_to_pass, known.pass_to_pass, run.end, run.detail, run.scope, run.seconds)


def decode_plain(kind: type, text: str | bytes) -> Any:
    """JSON as an instance of a dataclass. Raises ValueError where the text is of another shape."""
    try:
        return _decoder(kind).decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # it may hold half of a surrogate pair
        return msgspec.convert(json.loads(text), kind)


@cache
def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@lru_cache(maxsize=4096)
def _test_list(fail_to_pass: tuple[str, ...], pass_to_pass: tuple[str, ...]) -> TestList:
    return TestList(fail_to_pass, pass_to_pass)


def _stored(run: TestRun) -> _StoredRun:
    outcomes = [run.outcomes[test] for test in run.fail_to_pass + run.pass_to_pass]
    words = {
        str(place): (outcome.message, outcome.seconds)
        for place, outcome in enumerate(outcomes)
        if outcome.message or outcome.seconds
    }
    letters = "".join(LETTERS[outcome.status] for outcome in outcomes)
    return _StoredRun(letters, words, run.end, run.detail, run.scope, run.seconds)
