"""Evidence as JSON text and back. A run of tests is kept compactly: one letter a test, words only for what failed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from regrade.datasets.tasks import Task
from regrade.rewards.evidence import End, TestOutcome, TestRun, TestStatus

LETTERS: Mapping[TestStatus, str] = {
    TestStatus.PASSED: "p",
    TestStatus.FAILED: "f",
    TestStatus.ERROR: "e",
    TestStatus.SKIPPED: "s",
    TestStatus.XFAILED: "x",
    TestStatus.MISSING: "m",
    TestStatus.UNREACHED: "u",
}
_PLAIN = {letter: TestOutcome(status) for status, letter in LETTERS.items()}


def encode(evidence: Any) -> str:
    """One record of evidence (a frozen dataclass) as JSON. A TestRun leaves its test ids out: the task has them."""
    return json.dumps(
        _encoded_run(evidence) if isinstance(evidence, TestRun) else _plain(evidence), separators=(",", ":")
    )


def decode(kind: type, text: str, task: Task) -> Any:
    """The record that `encode` wrote. Raises ValueError, KeyError or TypeError where the text is of another shape."""
    data = json.loads(text)
    return _decoded_run(data, task) if kind is TestRun else typed(kind, data)


def _encoded_run(run: TestRun) -> dict[str, Any]:
    outcomes = [run.outcomes[test] for test in run.fail_to_pass + run.pass_to_pass]
    words = {
        str(index): [outcome.message, outcome.seconds]
        for index, outcome in enumerate(outcomes)
        if outcome.message or outcome.seconds
    }
    return {
        "letters": "".join(LETTERS[outcome.status] for outcome in outcomes),
        "words": words,
        "end": run.end.value,
        "detail": run.detail,
        "scope": run.scope,
        "seconds": run.seconds,
    }


def _decoded_run(data: Mapping[str, Any], task: Task) -> TestRun:
    tests = task.fail_to_pass + task.pass_to_pass
    if len(tests) != len(data["letters"]):
        raise ValueError(f"{len(data['letters'])} outcomes for {len(tests)} tests")
    outcomes = {test: _PLAIN[letter] for test, letter in zip(tests, data["letters"], strict=True)}
    for index, (message, seconds) in data["words"].items():
        test = tests[int(index)]
        outcomes[test] = TestOutcome(outcomes[test].status, message, seconds)
    return TestRun(
        outcomes, task.fail_to_pass, task.pass_to_pass, End(data["end"]), data["detail"], data["scope"], data["seconds"]
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    return value


def typed(kind: Any, data: Any) -> Any:
    """Plain data as an instance of `kind`, a dataclass or a type of one of its fields. Raises KeyError or TypeError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if data is None:
            return None
        return typed(next(argument for argument in arguments if argument is not type(None)), data)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: typed(hints[name], item) for name, item in data.items()})  # type: ignore[operator]
    if origin is tuple:
        of_one = len(arguments) == 2 and arguments[1] is Ellipsis
        return tuple(typed(arguments[0] if of_one else arguments[place], item) for place, item in enumerate(data))
    if origin in (frozenset, set, list):
        return origin(typed(arguments[0], item) for item in data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: typed(arguments[1], item) for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(data)
    return data
