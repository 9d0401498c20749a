"""Parts that moved and tasks that changed outcome, of tables whose differences are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.evaluators.analysis.checkpoint_changes import task_changes
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.uncertainty import difference_interval, mcnemar_p
from regrade.evaluators.storage.rows import COLUMNS, table


def part(name: str, contribution: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "value": contribution, "weight": 1.0, "contribution": contribution, "why": ""} | more


def row(
    policy: str, task: str, *, fix: int | None, broke: int | None = 0, sample: int = 0, **more: Any
) -> dict[str, Any]:
    tests = 0.7 * (fix or 0)
    parts = [
        part("tests", tests),
        part("quality", 0.1, parts=[part("style", 0.1), part("resolved", 0.0, role="gate", value=1.0)]),
    ]
    known = fix is not None
    return dict.fromkeys(COLUMNS, "") | {
        "policy": policy, "task": task, "repository": "r", "function": f"{task}.py::f", "temperature": 0.0, "sample": sample, "seed": 0,
        "task_digest": f"digest of {task}", "reward_name": "default" if known else "", "empty": False, "well_formed": True, "applied": True,
        "status": "scored" if known else "unscored", "reward": tests + 0.1 if known else None, "fix": fix, "broke": broke if known else None,
        "fail_to_pass": 1, "fixed": fix, "guarded": 10, "broken": broke if known else None, "newly_skipped": 0, "clean_fix": None, "tampering": None,
        "tokens": 1, "generation_seconds": 0.0, "execution_seconds": 0.0, "changed_lines": 1, "broken_tests": [], "parts": parts if known else [],
    } | more  # fmt: skip


def changes(before: list[dict[str, Any]], after: list[dict[str, Any]]):
    return task_changes(table(before), table(after))


def test_tasks_that_change_sides_are_named_with_their_attempts() -> None:
    def attempts(policy: str, task: str, fixes: list[int | None]) -> list[dict[str, Any]]:
        return [row(policy, task, fix=fix, sample=sample) for sample, fix in enumerate(fixes)]

    wanted = {
        "a": ([1, 1], [0, 0, 1]),
        "b": ([0, 0], [1, 0]),
        "c": ([1, 1], [1, 0]),
        "d": ([0], [0]),
        "e": ([1], [None]),
        "f": ([1, None], [0]),
    }
    before = [each for task, (fixes, _) in wanted.items() for each in attempts("old", task, fixes)]
    after = [each for task, (_, fixes) in wanted.items() for each in attempts("new", task, fixes)]
    found = changes(before, after)
    lost, won = found.sides["no longer fixed"], found.sides["newly fixed"]
    assert [(each.task, each.baseline, each.candidate) for each in lost] == [
        ("a", (2, 2), (1, 3)),
        ("f", (1, 1), (0, 1)),
    ]
    assert [(each.task, each.baseline, each.candidate) for each in won] == [("b", (0, 2), (1, 2))]
    assert (found.n_tasks, found.left_out) == (5, 1)
    assert found.p["fix"] == mcnemar_p(2, 1)
    assert found.p["broke"] == 1.0


def test_broken_tests_are_those_of_the_side_that_breaks() -> None:
    before = [row("old", "a", fix=1, broke=1, broken_tests=["t::x"]), row("old", "b", fix=1)]
    after = [row("new", "a", fix=1)] + [
        row("new", "b", fix=1, broke=1, sample=n, broken_tests=["t::y", "t::z"][n:]) for n in range(2)
    ]
    found = changes(before, after)
    (repaired,), (broken,) = found.sides["no longer broken"], found.sides["newly broken"]
    assert (repaired.task, repaired.tests) == ("a", ("t::x",))
    assert (broken.task, broken.tests) == ("b", ("t::z", "t::y")), "those of most attempts first"
    assert not found.sides["newly fixed"]


def test_parts_and_gates_that_moved() -> None:
    gate = [part("builds", 0.0, role="gate", value=0.0)]
    before = [row("old", task, fix=0) for task in "abcd"]
    after = [row("new", task, fix=1) for task in "abc"]
    after += [row("new", "d", fix=0, reward=0.0, parts=[part("tests", 0.0), part("style", 0.0), *gate])]
    found = changes(before, after)
    assert found.reward.difference == pytest.approx((3 * 0.7 - 0.1) / 4)
    assert {each.name: each.difference for each in found.parts} == pytest.approx({"tests": 0.525, "style": -0.025})
    assert found.reward.low < found.reward.difference < found.reward.high
    gates = {each.name: (each.baseline, each.candidate) for each in found.gates}
    assert gates == {"builds": (0.0, 0.25), "resolved": (0.0, 0.0)}


def test_where_all_tasks_differ_alike_the_interval_is_as_wide_as_the_part_is_large() -> None:
    def rows(policy: str, share: float) -> list[dict[str, Any]]:
        gate = part("resolved", 0.0, role="gate", value=share)
        parts = [part("tests", 0.9 * share, weight=0.9), part("style", 0.1 * share, weight=0.1), gate]
        return [row(policy, task, fix=int(share), reward=share, parts=parts) for task in "abcdef"]

    found = changes(rows("old", 0.0), rows("new", 1.0))
    intervals = {each.name: (each.low, each.high) for each in (*found.parts, found.reward, *found.gates)}
    known = difference_interval(Sample.of(np.ones(6), np.arange(6), np.zeros(6))).low
    assert -0.2 < known < 0, "six tasks show nothing"
    assert intervals["tests"] == pytest.approx((0.9 * known, 0.9))
    assert intervals["style"] == pytest.approx((0.1 * known, 0.1))
    assert intervals["reward"] == pytest.approx((known, 1.0))
    assert intervals["resolved"] == pytest.approx((-1.0, -known))


@settings(max_examples=15)  # each draws thousands of resamples
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=12))
def test_parts_add_up_to_the_reward_and_sides_to_the_difference_in_tasks(
    outcomes: list[tuple[bool, bool, float]],
) -> None:
    def rows(policy: str, side: int) -> list[dict[str, Any]]:
        found = []
        for number, outcome in enumerate(outcomes):
            parts = [part("tests", 0.5 * outcome[side]), part("rest", outcome[2] * (side + 1) / 2)]
            reward = math.fsum(each["contribution"] for each in parts)
            found.append(row(policy, f"t{number}", fix=int(outcome[side]), reward=reward, parts=parts))
        return found

    found = changes(rows("old", 0), rows("new", 1))
    assert math.fsum(each.difference for each in found.parts) == pytest.approx(found.reward.difference, abs=1e-9)
    won, lost = (len(found.sides[side]) for side in ("newly fixed", "no longer fixed"))
    assert won - lost == sum(after for _, after, _ in outcomes) - sum(before for before, _, _ in outcomes)
    same = changes(rows("old", 0), rows("new", 0))
    assert not any(same.sides.values())
    assert same.reward.difference == 0.0
    found.to_json()


def test_tasks_of_one_table_and_other_rewards_are_excluded_and_reported() -> None:
    before = [row("old", task, fix=1) for task in "abc"]
    after = [row("new", "a", fix=0), row("new", "b", fix=0, task_digest="other"), row("new", "d", fix=0)]
    found = changes(before, after)
    assert [each.task for each in found.sides["no longer fixed"]] == ["a"]
    assert (found.n_tasks, found.left_out) == (1, 3)
    assert math.isnan(found.reward.low), "one task shows no spread"
    assert found.to_json()["reward"]["low"] is None
    other = changes(before, [row("new", "a", fix=0, reward_name="tests")])
    assert (other.reward, other.parts, other.rewards) == (None, (), ("default", "tests"))
    assert other.sides["no longer fixed"]
    nothing = changes(before, [row("new", "z", fix=0)])
    assert (nothing.n_tasks, nothing.reward, any(nothing.sides.values())) == (0, None, False)


def test_an_unscored_attempt_is_no_zero() -> None:
    lost = {"reward": None, "status": "unscored", "parts": []}
    before = [row("old", task, fix=1) for task in "ab"]
    after = [row("new", "a", fix=1), row("new", "a", fix=1, sample=1, **lost), row("new", "b", fix=1, **lost)]
    found = changes(before, after)
    assert found.reward.candidate == pytest.approx(0.8)
    assert found.reward.difference == 0.0
    assert not pd.isna(found.reward.baseline)
