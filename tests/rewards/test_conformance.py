"""The kit that users run on their own rewards: it passes sound ones and finds each fault."""

from __future__ import annotations

import itertools
import os
import random
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

from regrade.rewards import (
    Diff,
    LintDelta,
    Reward,
    Score,
    TestRun,
    complexity,
    default,
    reward,
    style,
    tests,
    untampered,
)
from regrade.rewards.builtin import builtin_rewards
from regrade.rewards.conformance import RULES, UNTESTED, Violation, check_reward, examine_reward
from regrade.rewards.evidence import End, Integrity, TestStatus

count = itertools.count()


@dataclass(frozen=True)
class Coverage:
    """Evidence of a user's own."""

    lines: int
    covered: tuple[int, ...]
    by_file: dict[str, float]
    tool: str | None = None


@reward
def covered(found: Coverage) -> Score:
    return Score(min(1.0, len(found.covered) / max(1, found.lines)), why=f"{found.lines} lines")


@reward
def dividing(diff: Diff) -> Score:
    return Score(1 / diff.changed_lines, why="")


@reward
def large(diff: Diff) -> Score:
    return Score(min(1.0, diff.changed_lines / 100), why="")


@reward
def chancy(diff: Diff) -> Score:
    return Score(random.random(), why=str(diff.is_empty))


@reward
def forgetful(diff: Diff) -> Score:
    return Score(1.0, why=f"call {next(count)}, {diff.is_empty}")


@reward
def editing(run: TestRun) -> Score:
    """Takes the tests that it does not like out of the evidence."""
    object.__setattr__(run, "pass_to_pass", ())
    return Score(1.0 if run.resolved else 0.1)


@reward
def reading(diff: Diff) -> Score:
    return Score(float(Path(os.devnull).read_text() == "" and not diff.is_empty), why="")


@reward
def destructive(run: TestRun) -> Score:
    return Score(min(1.0, len(run.broken) / 4), why="")


@reward
def skipping(run: TestRun) -> Score:
    """Fewer tests that fail or end in an error: a test that is gone counts as none."""
    bad = (TestStatus.FAILED, TestStatus.ERROR)
    return Score(sum(run.outcomes[test].status not in (*bad, TestStatus.PASSED) for test in run.pass_to_pass) > 0)


@reward
def hanging(run: TestRun) -> Score:
    return Score(run.end in (End.TIMEOUT, End.CRASHED, End.MEMORY))


@reward
def admiring(integrity: Integrity) -> Score:
    return Score(any(sign.conclusive for sign in integrity.signs))


@reward
def silent(run: TestRun) -> Score:
    return len(run.broken) / 1e9  # type: ignore[return-value]


@reward
def lazy(run: TestRun) -> Score:
    return Score(1.0 - min(1.0, len(run.fixed) / 4), why="")


@reward
def tripled(diff: Diff) -> Score:
    return Score(3.0, f"{diff.changed_lines} lines")


@pytest.mark.parametrize("name", builtin_rewards())
def test_the_built_in_rewards_have_every_property(name: str) -> None:
    assert check_reward(builtin_rewards()[name], examples=40) == ()


@pytest.mark.parametrize(
    "composed",
    [
        0.5 * tests + 0.5 * style.at_least(0.5),
        (0.5 * tests + 0.3 * complexity).clip(0.1, 0.6).only_if(style.at_least(0.2)),
        default.at_least(0.5),
        covered,
    ],
    ids=str,
)
def test_compositions_and_rewards_of_own_evidence_have_them_too(composed: Reward) -> None:
    assert check_reward(composed, examples=40) == ()


@pytest.mark.parametrize(
    ("faulty", "rule", "said"),
    [
        (dividing, "answers", r"ZeroDivisionError.*changed|Diff\(added_lines=0, removed_lines=0"),
        (3 * style, "bounded", "outside"),
        (tripled, "bounded", "outside"),
        (chancy, "deterministic", "verdict on equal evidence is first"),
        (forgetful, "deterministic", "verdict on equal evidence is first"),
        (editing, "pure", "it changes its evidence, which others judge too"),
        (reading, "pure", "accesses files, processes or the network: open"),
        (destructive, "breaking never pays", "rises from 0 to 0.25 if .* is (failed|error|skipped|missing)"),
        (skipping, "breaking never pays", "rises from .* if .* is (skipped|missing)"),
        (hanging, "stopping never pays", "rises from 0 to 1 if the run ends early"),
        (admiring, "tampering never pays", "rises from 0 to 1 if the patch tampers with the evaluation"),
        (lazy, "fixing never costs", "rises from .* if .* is not fixed"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_each_fault_is_found_and_shown(faulty: Reward, rule: str, said: str) -> None:
    found = {finding.rule: finding for finding in check_reward(faulty, examples=100)}
    assert rule in found
    assert re.search(said, str(found[rule]))


def test_what_gives_no_answer_has_no_other_property() -> None:
    found = examine_reward(silent, examples=5)
    assert isinstance(found["answers"], Violation)
    assert found["bounded"] is UNTESTED
    assert found["breaking never pays"] is UNTESTED
    assert examine_reward(style, examples=20)["stopping never pays"] is UNTESTED


def test_the_evidence_shown_is_the_smallest() -> None:
    finding = check_reward(destructive, examples=100)[0]
    assert finding.rule == "breaking never pays"
    assert finding.evidence.count("TestOutcome(") == 1


def test_a_sound_reward_of_sizes_has_no_finding() -> None:
    assert check_reward(large, examples=50) == ()


def test_a_strategy_may_be_given_for_a_type() -> None:
    only = {LintDelta: st.just(LintDelta((), (), 1))}
    assert check_reward(3 * style, examples=20, strategies=only)[0].evidence == repr(LintDelta((), (), 1))


def test_a_check_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert not check_reward(tests.only_if(untampered), examples=20)
    assert shown == []


def test_findings_are_the_same_each_time() -> None:
    assert check_reward(destructive, examples=50) == check_reward(destructive, examples=50)


def test_every_rule_says_what_it_demands() -> None:
    assert all(rule.__doc__ for rule in RULES.values())
