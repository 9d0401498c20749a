"""Audit of rewards within groups: shares add up, and agree with numpy's covariance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis.reward_audit import audit


def row(
    task: str, sample: int, parts: dict[str, tuple[float | None, float]], fix: int = 0, **others: Any
) -> dict[str, Any]:
    records = [
        {"name": name, "value": value, "weight": weight, "contribution": weight * (value or 0.0), "why": ""}
        for name, (value, weight) in parts.items()
    ]
    whole = sum(part["contribution"] for part in records)
    return {
        "policy": "p", "task": task, "temperature": 0.5, "sample": sample, "status": "scored", "reward_name": "r",
        "reward": whole, "clean_fix": fix, "broke": 0, "parts": records, **others,
    }  # fmt: skip


values = st.floats(0, 1).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(st.sampled_from("abc"), values, values), min_size=2, max_size=30))
def test_shares_add_up_and_are_the_covariances_within_groups(found: list[tuple[str, float, float]]) -> None:
    rows = [row(task, n, {"x": (x, 0.7), "y": (y, 0.3)}) for n, (task, x, y) in enumerate(found)]
    judged = audit(rows)
    groups = {task: [n for n, other in enumerate(found) if other[0] == task] for task, _, _ in found}
    table = np.array([[0.7 * x, 0.3 * y] for _, x, y in found])
    for places in groups.values():
        table[places] -= table[places].mean(axis=0)
    whole = table.sum(axis=1)
    if (whole**2).sum() < 1e-9:
        return
    shares = (table * whole[:, None]).sum(axis=0) / (whole**2).sum()
    assert [part.share for part in judged.parts] == pytest.approx(list(shares), abs=1e-6)
    assert math.fsum(part.share for part in judged.parts) == pytest.approx(1.0, abs=1e-6)


def test_differences_between_tasks_count_for_nothing() -> None:
    rows = [
        row(task, n, {"x": (level, 1.0), "y": (n / 2, 1.0)}) for task, level in (("a", 0.1), ("b", 0.9)) for n in (0, 1)
    ]
    x, y = audit(rows).parts
    assert (x.share, y.share) == pytest.approx((0.0, 1.0))
    assert x.is_constant
    assert any("x never differs" in warning for warning in audit(rows).warnings)


def test_a_reward_dominated_by_quality_gets_a_warning() -> None:
    rows = [
        row("a", n, {"tests": (float(n == 0), 0.1), "style": (style, 0.9)}, fix=int(n == 0))
        for n, style in enumerate([0.2, 0.9, 0.1, 1.0])
    ]
    judged = audit(rows)
    assert judged.outcome_share is not None
    assert judged.outcome_share < 0.5
    assert "style moves" in judged.warnings[0]
    paying = [row("a", n, {"tests": (float(n == 0), 0.9), "style": (0.5, 0.1)}, fix=int(n == 0)) for n in range(4)]
    assert audit(paying).outcome_share == pytest.approx(1.0)
    assert not any("moves" in warning for warning in audit(paying).warnings)


def test_division_by_the_deviation_of_the_group_gives_small_parts_their_share() -> None:
    """In half of the groups only style varies: hardly any variance, but half of what GRPO as published sees."""
    rng = np.random.default_rng(0)
    rows = []
    for group in range(60):
        for n in range(8):
            tests = float(rng.random() < 0.5) if group % 2 else 0.0
            style = 0.5 if group % 2 else float(rng.random())
            parts = {"tests": (tests, 0.9), "style": (style, 0.1)}
            rows.append(row(f"t{group}", n, parts, fix=int(tests)))
    judged = audit(rows)
    contributions = np.array([[part["contribution"] for part in each["parts"]] for each in rows]).reshape(60, 8, 2)
    centred = contributions - contributions.mean(axis=1, keepdims=True)
    reward = centred.sum(axis=2)
    deviation = reward.std(axis=1, ddof=1)
    kept = deviation > 1e-9
    scaled = centred[kept] / deviation[kept][:, None, None]
    expected = (scaled * scaled.sum(axis=2, keepdims=True)).sum(axis=(0, 1)) / (scaled.sum(axis=2) ** 2).sum()
    assert [part.scaled_share for part in judged.parts] == pytest.approx(list(expected))
    tests, style = judged.parts
    assert tests.share > 0.99
    assert 0.45 < style.scaled_share < 0.55
    assert judged.outcome_share == pytest.approx(tests.share, abs=1e-6)
    assert judged.scaled_outcome_share == pytest.approx(tests.scaled_share, abs=1e-6)


def test_a_part_that_only_a_scaling_trainer_sees_gets_a_warning() -> None:
    rows = [row("a", n, {"tests": (float(n == 0), 0.9), "style": (0.5, 0.1)}, fix=int(n == 0)) for n in range(4)]
    rows += [row(f"b{g}", n, {"tests": (0.0, 0.9), "style": (n / 4, 0.1)}) for g in range(3) for n in range(4)]
    judged = audit(rows)
    assert judged.outcome_share is not None
    assert judged.outcome_share > 0.9
    assert (
        "after division by the standard deviation of the group (TRL's default), and style moves" in judged.warnings[0]
    )


def test_redundant_parts_are_named() -> None:
    rows = [row("a", n, {"x": (n / 4, 0.5), "y": (n / 4, 0.5)}) for n in range(4)]
    assert "x and y are redundant (correlation 1.00): use one of them" in audit(rows).warnings


def test_a_reward_that_never_differs_teaches_nothing() -> None:
    judged = audit([row("a", n, {"x": (0.5, 1.0)}) for n in range(4)])
    assert judged.informative == 0
    assert "learns nothing" in judged.warnings[0]


def test_what_is_unscored_is_counted_and_left_out() -> None:
    rows = [
        row("a", 0, {"x": (0.5, 1.0)}),
        row("a", 1, {"x": (1.0, 1.0)}),
        row("a", 2, {}, status="unscored", reward=None),
    ]
    judged = audit(rows)
    assert (judged.attempts, judged.unscored, judged.parts[0].mean) == (3, 1, 0.75)


def test_rows_of_several_rewards_are_refused() -> None:
    with pytest.raises(UserError, match="rewards q, r are mixed: give the rows of one reward"):
        audit([row("a", 0, {"x": (0.5, 1.0)}), row("a", 1, {"x": (0.5, 1.0)}, reward_name="q")])
    with pytest.raises(UserError, match="no attempt was scored"):
        audit([row("a", 0, {}, status="unscored")])
