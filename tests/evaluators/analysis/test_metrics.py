import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from regrade.evaluators.analysis import metrics
from regrade.evaluators.analysis.figures import figures
from regrade.evaluators.analysis.side_metrics import SIDE_METRICS
from regrade.evaluators.storage.rows import COLUMNS, table


def row(task: str, sample: int = 0, **changes):
    """An attempt that changed something, fixed nothing and broke nothing of 10 guarded tests."""
    base = dict.fromkeys(COLUMNS, "") | {
        "policy": "p",
        "task": task,
        "repository": "r",
        "function": f"m.py::{task}",
        "temperature": 0.0,
        "sample": sample,
        "seed": 0,
        "empty": False,
        "well_formed": True,
        "applied": True,
        "status": "scored",
        "reward": 0.0,
        "fix": 0,
        "fail_to_pass": 1,
        "fixed": 0,
        "guarded": 10,
        "broken": 0,
        "newly_skipped": 0,
        "broke": 0,
        "clean_fix": 0,
        "tampering": None,
        "tokens": 10,
        "generation_seconds": 1.0,
        "execution_seconds": 1.0,
        "changed_lines": 2,
        "broken_tests": [],
        "parts": [],
    }
    return base | changes


FIXED = {"fix": 1, "clean_fix": 1, "fixed": 1, "reward": 1.0}
BROKE = {"broken": 5, "broke": 1}
BOTH = {"fix": 1, "fixed": 1, **BROKE}
NOTHING = {"empty": True, "changed_lines": 0}
LOST = dict.fromkeys(("fix", "clean_fix", "broke", "broken", "reward")) | {"status": "unscored"}


def test_each_metric_counts_its_attempts():
    rows = table([row("a", **FIXED), row("b", **BROKE), row("c", **BOTH), row("d", **NOTHING)])
    assert metrics.fix_rate(rows).value == 0.5
    assert metrics.breakage_incidence(rows).value == 0.5
    assert metrics.fix_and_clean(rows).value == 0.25
    assert metrics.fixed_but_broke(rows).value == 0.25
    assert metrics.no_op_rate(rows).value == 0.25
    assert metrics.malformed_rate(rows).value == 0.0
    assert metrics.estimate(rows, metrics.BREAKAGE_OF_CHANGES).value == pytest.approx(2 / 3)
    assert metrics.estimate(rows, metrics.NET_VALUE).value == 0.0
    sweep = metrics.net_value_sweep(rows, (0, 2))
    assert [sweep[0.0].value, sweep[2.0].value] == [0.5, -0.5]


def test_a_policy_that_does_nothing_breaks_nothing_and_is_seen_to_do_nothing():
    rows = table([row(f"t{i}", **NOTHING) for i in range(20)])
    broke = metrics.breakage_incidence(rows)
    assert (broke.value, broke.low) == (0.0, 0.0)
    square = stats.t.ppf(0.975, 19) ** 2  # Wilson's interval with t
    assert broke.high == pytest.approx(square / (20 + square), abs=1e-4)
    assert metrics.no_op_rate(rows).value == 1.0
    of_changes = metrics.estimate(rows, metrics.BREAKAGE_OF_CHANGES)
    assert math.isnan(of_changes.value)
    assert of_changes.n == 0
    assert of_changes.missing == 0
    assert of_changes.to_json()["value"] is None


def test_tasks_count_the_same_and_attempts_are_counted():
    rows = table([row("a", sample, **FIXED) for sample in range(9)] + [row("b")])
    found = metrics.fix_rate(rows)
    assert (found.value, found.n, found.n_tasks, found.clusters) == (0.5, 10, 2, "function")


def test_lost_attempts_are_missing_and_never_zero():
    rows = table([row("a", **FIXED), row("b", **LOST), row("c", **BROKE), row("d", **FIXED)])
    fixed, broke = metrics.fix_rate(rows), metrics.breakage_incidence(rows)
    assert fixed.value == pytest.approx(2 / 3)
    assert (fixed.n, fixed.n_tasks, fixed.missing) == (3, 3, 1)
    assert (fixed.worst, fixed.best) == (0.5, 0.75)
    assert broke.value == pytest.approx(1 / 3)
    assert (broke.worst, broke.best) == (0.5, 0.25)
    assert metrics.no_op_rate(rows).missing == 0


def test_severity_has_its_tail():
    rows = table([row(f"t{i}") for i in range(8)] + [row("u", **BROKE), row("v", **(BROKE | {"broken": 10}))])
    found = metrics.severity(rows)
    assert found.mean.value == pytest.approx(0.15)
    assert found.median == 0.0
    assert found.ninetieth == pytest.approx(0.55)
    assert found.catastrophes == 0.2
    assert found.pooled == pytest.approx(0.15)
    assert math.isnan(metrics.severity(table([row("a", guarded=0)])).mean.value)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_draws(k):
    outcomes = {"a": [1, 0, 0, 1, 0], "b": [0, 0, 0, 0, 1], "c": [0] * 5}
    rows = table(
        [
            row(task, sample, fix=value, clean_fix=value)
            for task, values in outcomes.items()
            for sample, value in enumerate(values)
        ]
    )
    draws = [list(itertools.combinations(values, k)) for values in outcomes.values()]
    any_of = np.mean([np.mean([any(draw) for draw in of_task]) for of_task in draws])
    all_of = np.mean([np.mean([all(draw) for draw in of_task]) for of_task in draws])
    assert metrics.pass_at_k(rows, k).value == pytest.approx(any_of)
    assert metrics.pass_hat_k(rows, k).value == pytest.approx(all_of)


def test_pass_at_k_leaves_out_tasks_with_too_few_samples():
    rows = table([row("a", 0, **FIXED), row("a", 1), row("b", 0)])
    found = metrics.pass_at_k(rows, 2)
    assert (found.value, found.n_tasks) == (1.0, 1)
    assert math.isnan(metrics.pass_at_k(rows, 3).value)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.pass_at_k(rows, 0)


def test_skipped_tests_are_broken_and_counted_apart():
    rows = table([row("a", broken=2, newly_skipped=2, broke=1), row("b", broken=3, newly_skipped=1, broke=1), row("c")])
    assert metrics.breakage_incidence(rows).value == pytest.approx(2 / 3)
    assert metrics.estimate(rows, metrics.NEWLY_SKIPPED).value == pytest.approx(2 / 3)
    assert metrics.estimate(rows, metrics.BREAKAGE_BESIDE_SKIPS).value == pytest.approx(1 / 3)
    crashed = table([row("a", broke=1, end="crashed")])
    assert metrics.estimate(crashed, metrics.BREAKAGE_BESIDE_SKIPS).value == 1.0


def test_a_rate_without_a_case_has_an_upper_bound():
    found = metrics.breakage_incidence(table([row(f"t{n}") for n in range(40)]))
    assert found.at_most == pytest.approx(1 - 0.05 ** (1 / 40))
    assert metrics.breakage_incidence(table([row("a", **BROKE), row("b")])).at_most is None
    assert metrics.breakage_incidence(table([])).at_most is None


def test_net_value_is_bounded_by_its_own_ends():
    rows = table([row("a", **FIXED), row("b", **LOST)])
    found = metrics.estimate(rows, metrics.net_value(3.0))
    assert (found.value, found.missing, found.worst, found.best) == (1.0, 1, -1.0, 1.0)
    assert metrics.estimate(rows, metrics.REWARD).worst is None


def test_the_cost_of_a_clean_fix_has_an_interval():
    rows = table([row(f"t{n}", tokens=10 + n, **(FIXED if n % 2 else {})) for n in range(60)] + [row("lost", **LOST)])
    found = metrics.cost_estimate(rows, "tokens")
    assert found.value == pytest.approx(sum(range(10, 70)) / 30) == metrics.cost_per_clean_fix(rows, "tokens")
    assert found.low < found.value < found.high < np.inf
    assert (found.n, found.missing) == (60, 1)
    assert metrics.cost_estimate(table([row("a"), row("b")]), "tokens").to_json()["value"] is None


def test_all_figures_are_json_with_and_without_rows():
    for rows in (table([row("a", s, **FIXED) for s in range(2)] + [row("b", s, **BROKE) for s in range(2)]), table([])):
        found = figures(rows)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert {metric.name for metric in (*metrics.METRICS, *SIDE_METRICS)} <= found.keys()
    found = figures(table([row("a", s, **FIXED) for s in range(2)] + [row("b", s, **BROKE) for s in range(2)]))
    assert found["severity_tail"]["catastrophes"] == 0.5
    assert found["pass_at_k"]["2"]["value"] == 0.5
    assert found["net_value_sweep"]["2"]["value"] == -0.5


def test_cost_of_a_clean_fix():
    rows = table([row("a", **FIXED), row("b"), row("c", **LOST)])
    assert metrics.cost_per_clean_fix(rows, "tokens") == 20
    assert metrics.cost_per_clean_fix(rows, "seconds") == 4.0
    assert metrics.cost_per_clean_fix(rows.iloc[1:2], "tokens") == math.inf


def test_every_metric_survives_no_rows():
    nothing = table([])
    assert isinstance(nothing, pd.DataFrame)
    for metric in metrics.METRICS:
        assert math.isnan(metrics.estimate(nothing, metric).value)


def sweep(found: dict[float, list[int]]) -> pd.DataFrame:
    """One attempt a task and temperature; 1: a clean fix."""
    return table([
        row(f"t{number}", temperature=temperature, **(FIXED if fixed else {}))
        for temperature, outcomes in found.items()
        for number, fixed in enumerate(outcomes)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({0.2: [1, 0, 0, 0, 0, 0], 0.6: [0, 1, 1, 0, 0, 0]}, 0.2),  # one task in six more is luck
        ({0.2: [0] * 8, 0.6: [1] * 7 + [0]}, 0.6),
        ({0.6: [1, 1, 0], 0.2: [1, 1, 0], 1.0: [1, 1, 0]}, 0.2),
        ({0.6: [0, 0]}, 0.6),
    ],
)
def test_a_higher_temperature_must_be_better_by_more_than_its_standard_error(found, best):
    assert metrics.best_temperature(sweep(found)) == best


@pytest.mark.parametrize("tasks", range(2, 80))
def test_one_task_more_is_exactly_one_standard_error_and_not_better(tasks):
    assert metrics.best_temperature(sweep({0.2: [0] * tasks, 0.6: [1] + [0] * (tasks - 1)})) == 0.2


def test_the_best_temperature_of_a_cost_is_the_one_that_has_least():
    rows = table([row(f"t{n}", temperature=t, **(BROKE if t == 0.2 else {})) for t in (0.2, 0.6) for n in range(5)])
    assert metrics.best_temperature(rows, metrics.BREAKAGE_INCIDENCE) == 0.6
    with pytest.raises(ValueError, match="no rows"):
        metrics.best_temperature(rows.head(0))
