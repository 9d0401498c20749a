"""Generated evidence: hypothesis strategies for the built-in types and, by the types of their fields, for others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from regrade.rewards.evidence import End, EvidenceSet, TestOutcome, TestRun, TestStatus

FILES = ("src/shop/prices.py", "src/shop/orders.py", "tests/test_prices.py", "tests/test_orders.py")
WORDS = ("", "total", *FILES, "E501", "assert 1 == 2", "café")


def evidence_sets(
    kinds: Iterable[type], strategies: Mapping[type, st.SearchStrategy[Any]]
) -> st.SearchStrategy[EvidenceSet]:
    """Evidence sets with one record of each kind.

    Raises:
        TypeError: a kind without a strategy has a field whose type has none either.
    """
    ordered = sorted(kinds, key=lambda kind: kind.__qualname__)  # the order of a set differs from run to run
    records = {kind: strategies[kind] if kind in strategies else examples(kind) for kind in ordered}
    return st.fixed_dictionaries(records).map(EvidenceSet)


def examples(kind: type) -> st.SearchStrategy[Any]:
    """Records of one kind of evidence, including unusual ones: empty records, zeros, stopped runs."""
    return test_runs() if kind is TestRun else _of(kind)


# Built once: a strategy that is built while it draws is checked anew in each example.
_TESTS = st.lists(st.sampled_from([f"{file}::test_{number}" for file in FILES[2:] for number in range(4)]), unique=True)
_STATUSES = st.sampled_from([TestStatus.PASSED, TestStatus.FAILED, *TestStatus])
_MESSAGES = st.sampled_from(("", "assert 1 == 2"))
_ENDS = st.sampled_from([End.COMPLETED] * 20 + list(End))


@st.composite
def test_runs(draw: st.DrawFn) -> TestRun:
    """Runs of up to eight tests in two files, with every status, and of tests that fail at the base and are no goal; 4
    of 25 ended early."""
    tests = draw(_TESTS)
    split = draw(st.integers(0, min(3, len(tests))))
    outcomes = {test: TestOutcome(draw(_STATUSES), draw(_MESSAGES)) for test in tests}
    end = draw(_ENDS)
    detail = "" if end is End.COMPLETED else "stopped"
    unnamed = tuple(f"{FILES[3]}::test_unnamed_{number}" for number in range(draw(st.integers(0, 2))))
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=tuple(tests[:split]),
        pass_to_pass=tuple(tests[split:]),
        end=end,
        detail=detail,
        unnamed=unnamed,
        also_fixed=unnamed[: draw(st.integers(0, len(unnamed)))] if end is End.COMPLETED else (),
    )


test_runs.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def _of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type as in evidence: counts are not negative, texts are names, messages and paths."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of(*(st.none() if argument is type(None) else _of(argument) for argument in arguments))
    if origin is tuple:
        if arguments[-1:] == (Ellipsis,):
            return st.lists(_of(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(_of, arguments))
    if origin in (list, set, frozenset):
        return st.lists(_of(arguments[0]), max_size=3).map(origin)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=3)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: _of(hints[field.name]) for field in dataclasses.fields(hint)})
    return _scalar(hint)


def _scalar(hint: Any) -> st.SearchStrategy[Any]:
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 10) | st.integers(0, 100_000)
    if hint is float:
        return st.floats(0.0, 1.0) | st.floats(0.0, 1e6)
    if hint is str:
        return st.sampled_from(WORDS)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if isinstance(hint, type):
        return st.from_type(hint)
    raise TypeError(f"cannot generate examples of {hint!r}: pass check_reward(strategies={{TYPE: strategy}})")
