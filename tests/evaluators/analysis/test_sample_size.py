import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.metrics import FIX_AND_CLEAN
from regrade.evaluators.analysis.sample_size import (
    Spread,
    smallest_effect,
    spread_of,
    spread_within,
    tasks_for_margin,
    tasks_needed,
)
from regrade.evaluators.analysis.uncertainty import difference_rule


@pytest.mark.parametrize(("discordance", "effect", "tasks"), [(0.10, 0.05, 312), (0.20, 0.10, 155)])
def test_plans_are_close_to_mcnemars_at_80_per_cent_power(discordance, effect, tasks):
    """Connor's (1987) figures are approximate; the rule's own power is counted."""
    found = tasks_needed(Spread(discordance), effect)
    assert found == pytest.approx(tasks, rel=0.02)
    assert smallest_effect(Spread(discordance), found) == pytest.approx(effect, rel=0.01)


@pytest.mark.parametrize(
    ("discordance", "effect"), [(0.20, 0.10), (0.30, 0.10), (0.03, 0.03)], ids=["usual", "noisy", "rare"]
)
def test_the_planned_tasks_have_the_planned_power_with_the_verdicts_own_rule(discordance, effect):
    rng = np.random.default_rng(4)
    n = tasks_needed(Spread(discordance), effect)
    shares = [(discordance - effect) / 2, (discordance + effect) / 2, 1 - discordance]
    found = []
    for lost, won, rest in rng.multinomial(n, shares, size=1200):
        values = np.repeat([-1.0, 1.0, 0.0], [lost, won, rest])
        rule = difference_rule(Sample.of(values, np.arange(n), np.zeros(n)))
        found.append(rule.mean > 0 and not rule.contains(np.zeros(1))[0])
    assert np.mean(found) == pytest.approx(0.80, abs=0.05)


def test_margins_are_planned_for_a_policy_that_is_as_good():
    """By simulation: 80 of 100 intervals exclude a loss of the margin."""
    rng = np.random.default_rng(5)
    for discordance, margin in ((0.2, 0.08), (0.01, 0.02)):
        n = tasks_for_margin(Spread(discordance), margin)
        found = []
        for lost, won, rest in rng.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=1200):
            values = np.repeat([-1.0, 1.0, 0.0], [lost, won, rest])
            rule = difference_rule(Sample.of(values, np.arange(n), np.zeros(n)))
            found.append(rule.mean < margin and not rule.contains(np.full(1, margin))[0])
        assert np.mean(found) == pytest.approx(0.80, abs=0.05)


def test_runs_that_differ_are_planned_for():
    still, moving = Spread(0.2, 0.12, between_runs=0.0), Spread(0.2, 0.12, between_runs=0.02)
    assert tasks_needed(still, 0.05) == tasks_needed(Spread(0.2, 0.12), 0.05)
    assert tasks_needed(moving, 0.05) is None, "two single runs differ by 2.8 points by themselves"
    by_runs = [tasks_needed(moving, 0.05, runs=count) for count in (3, 5, 9)]
    assert by_runs == sorted(by_runs, reverse=True)
    assert by_runs[-1] > tasks_needed(still, 0.05, runs=9)
    assert smallest_effect(moving, 5000) > 0.05 > smallest_effect(still, 5000)


def test_attempts_average_out_chance_and_clusters_cost_tasks():
    spread = Spread(0.20, by_chance=0.12)
    by_attempts = [tasks_needed(spread, 0.05, attempts=k) for k in (1, 2, 4, 100)]
    assert by_attempts == sorted(by_attempts, reverse=True)
    assert by_attempts[0] == tasks_needed(Spread(0.20), 0.05)
    assert by_attempts[3] == pytest.approx(tasks_needed(Spread(0.08), 0.05), rel=0.06)
    assert tasks_needed(Spread(0.2), 0.05, attempts=4) == by_attempts[0], "what is not known is not credited"
    assert tasks_needed(Spread(0.2, design_effect=2.0), 0.05) == pytest.approx(2 * by_attempts[0], abs=1)


@given(st.floats(0.02, 0.9), st.floats(0.05, 0.9), st.integers(1, 8))
def test_what_is_seen_with_the_planned_tasks_is_what_was_planned_for(discordance, share, attempts):
    spread = Spread(discordance, by_chance=discordance / 2)
    effect = share * discordance
    n = tasks_needed(spread, effect, attempts=attempts)
    seen = smallest_effect(spread, n, attempts=attempts)
    assert seen is not None
    assert seen <= effect * 1.001
    assert tasks_needed(spread, max(seen, 1e-5), attempts=attempts) >= 0.97 * n - 2


def rows(policy: str, outcomes: np.ndarray) -> pd.DataFrame:
    """Outcomes of shape (tasks, attempts); two tasks a function."""
    tasks, attempts = outcomes.shape
    each = np.repeat(np.arange(tasks), attempts)
    return pd.DataFrame({
        "policy": policy, "task": [f"t{n}" for n in each], "repository": "r", "function": [f"f{n // 2}" for n in each],
        "clean_fix": outcomes.ravel().astype(float), "sample": np.tile(np.arange(attempts), tasks), "seed": 0,
        "fix": 1.0, "broke": 0.0, "fail_to_pass": 1, "patch_digest": "p",
    })  # fmt: skip


def test_a_stored_run_gives_its_discordance_its_chance_and_its_design_effect():
    rng = np.random.default_rng(7)
    solved = np.repeat(rng.random((1500, 2)), 2, axis=0)  # two tasks of a function are equally hard for each policy
    first, second = (rng.random((3000, 4)) < solved[:, [place]] for place in (0, 1))
    found = spread_of(rows("a", first), rows("b", second), FIX_AND_CLEAN)
    assert found.discordance == pytest.approx(np.mean(first[:, :1] != second[:, :1]), abs=0.03)
    within = [2 * np.mean(solved[:, place] * (1 - solved[:, place])) / 2 for place in (0, 1)]
    assert found.by_chance == pytest.approx(sum(within), abs=0.02)
    difference = Sample.of(second.mean(1) - first.mean(1), np.repeat(np.arange(1500), 2), np.zeros(3000))
    assert found.design_effect == pytest.approx(difference.within.variance * 3000 / difference.values.var(), rel=0.01)
    assert found.between_runs is None, "one seed each"
    again = [rows(name, x).assign(seed=rows(name, x)["sample"]) for name, x in (("a", first), ("b", second))]
    assert spread_of(*again, FIX_AND_CLEAN).between_runs == pytest.approx(0, abs=0.01)
    assert 1.3 < found.design_effect < 2
    itself = spread_within(rows("a", first), FIX_AND_CLEAN)
    assert itself.discordance == pytest.approx(np.mean(first[:, 0] != first[:, 1]), abs=0.03)


def test_single_attempts_say_nothing_of_chance():
    ones, zeros = np.ones((10, 1)), np.zeros((10, 1))
    assert spread_of(rows("a", ones), rows("b", zeros), FIX_AND_CLEAN).by_chance is None
    assert spread_of(rows("a", ones), rows("b", ones), FIX_AND_CLEAN) is None
    assert spread_within(rows("a", ones), FIX_AND_CLEAN) is None
    other = rows("b", ones).assign(task="elsewhere")
    with pytest.raises(UserError, match="share no task"):
        spread_of(rows("a", ones), other, FIX_AND_CLEAN)


@pytest.mark.parametrize(
    ("spread", "effect", "words"),
    [
        ({"discordance": 0.1}, 0.2, "discordance of at least 0.2"),
        ({"discordance": 0.1}, 0.0, "effect"),
        ({"discordance": 1.5}, 0.1, "discordance must be"),
        ({"discordance": 0.1, "by_chance": 0.2}, 0.05, "by chance"),
        ({"discordance": 0.1, "design_effect": 0.0}, 0.05, "design effect"),
    ],
)
def test_invalid_plans_are_refused(spread, effect, words):
    with pytest.raises(UserError, match=words):
        tasks_needed(Spread(**spread), effect)
    with pytest.raises(UserError, match="power"):
        tasks_needed(Spread(0.1), 0.05, power=1.0)
    assert smallest_effect(Spread(0.01), 20) is None
