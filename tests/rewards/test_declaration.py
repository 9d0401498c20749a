"""A reward is checked when it is declared; one that raises is the user's to mend and never a zero."""

# ruff: noqa: ARG001 (what matters of these rewards is their signatures)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from regrade.datasets.errors import UserError
from regrade.rewards import Diff, EvidenceSet, RewardError, Score, TestRun, reward


@dataclass
class Mutable:
    value: float


def no_parameters() -> Score:
    return Score(1.0)


def no_annotation(diff) -> Score:  # type: ignore[no-untyped-def]
    return Score(1.0)


def no_score(diff: Diff) -> float:
    return 1.0


def no_return(diff: Diff):  # type: ignore[no-untyped-def]
    return Score(1.0)


def text(diff: str) -> Score:
    return Score(1.0)


def mutable(evidence: Mutable) -> Score:
    return Score(evidence.value)


def many(*diffs: Diff) -> Score:
    return Score(1.0)


def keyword(*, diff: Diff) -> Score:
    return Score(1.0)


def unknown(diff: Nowhere) -> Score:  # type: ignore[name-defined]  # noqa: F821
    return Score(1.0)


async def later(diff: Diff) -> Score:
    return Score(1.0)


def one_by_one(diff: Diff) -> Score:  # type: ignore[misc]
    yield Score(1.0)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (later, "asynchronous or a generator"),
        (one_by_one, "write a plain `def`"),
        (no_parameters, "takes no evidence"),
        (no_annotation, "has the parameter 'diff' without an evidence type"),
        (no_score, "write `-> Score:`"),
        (no_return, "write `-> Score:`"),
        (text, "'str', which is not an evidence type"),
        (mutable, "frozen dataclass"),
        (many, r"has the parameter .*diffs"),
        (keyword, "has the parameter"),
        (unknown, "Nowhere.*import the type at the top"),
        (3, "@reward is for functions"),
        (Diff, "is for functions"),
    ],
)
def test_a_wrong_signature_is_refused_with_what_to_do(function: Callable[..., Score], said: str) -> None:
    with pytest.raises(RewardError, match=said):
        reward(function)


def test_a_message_names_the_reward_and_its_line() -> None:
    with pytest.raises(RewardError, match=r"reward 'text' \(.*test_declaration.py:\d+\)"):
        reward(text)


def test_a_reward_can_still_be_called_and_keeps_its_docstring() -> None:
    @reward
    def small(diff: Diff) -> Score:
        """Small is good."""
        return Score(1 / (1 + diff.changed_lines), why="lines")

    assert small(Diff(1, 0, ("a.py",))) == Score(0.5, "lines")
    assert small.__doc__ == "Small is good."
    assert (small.name, small.needs) == ("small", {Diff})


def test_several_kinds_of_evidence_arrive_in_the_order_of_the_parameters() -> None:
    @reward
    def both(run: TestRun, diff: Diff) -> Score:
        return Score(1.0, f"{type(run).__name__}, {type(diff).__name__}")

    evidence = EvidenceSet({Diff: Diff(0, 0, ()), TestRun: TestRun(outcomes={}, fail_to_pass=(), pass_to_pass=())})
    assert both.evaluate(evidence).parts[0].why == "TestRun, Diff"


@reward
def dividing(diff: Diff) -> Score:
    return Score(1 / diff.added_lines)


@reward
def too_large(diff: Diff) -> Score:
    return Score(float(diff.changed_lines))


@reward
def forgetful(diff: Diff) -> Score:
    return diff.changed_lines  # type: ignore[return-value]


EMPTY = EvidenceSet({Diff: Diff(0, 7, ("a.py",))})


def test_a_reward_that_raises_is_named_with_line_and_evidence() -> None:
    with pytest.raises(RewardError) as caught:
        dividing.evaluate(EMPTY)
    assert "reward 'dividing' raised ZeroDivisionError" in str(caught.value)
    assert "test_declaration.py:" in str(caught.value)
    assert "Diff(added_lines=0, removed_lines=7" in str(caught.value)
    assert isinstance(caught.value, UserError)


@reward
def leaving(diff: Diff) -> Score:
    raise SystemExit(0)


def test_a_reward_that_leaves_is_an_error_too() -> None:
    with pytest.raises(RewardError, match="reward 'leaving' raised SystemExit: 0"):
        leaving.evaluate(EMPTY)


def test_a_reward_that_raises_is_not_silenced_by_a_sum_or_a_gate() -> None:
    with pytest.raises(RewardError, match="dividing"):
        (0.1 * dividing + 0.9 * dividing).only_if(dividing).evaluate(EMPTY)


def test_values_outside_their_scale_and_other_types_are_refused() -> None:
    with pytest.raises(RewardError, match=r"'too_large'.*Score\(7.0\) is outside \[0, 1\]"):
        too_large.evaluate(EMPTY)
    with pytest.raises(RewardError, match="'forgetful' returned 7"):
        forgetful.evaluate(EMPTY)
    for value in (float("nan"), -0.1, 1.1, "much"):
        with pytest.raises(RewardError):
            Score(value)  # type: ignore[arg-type]
