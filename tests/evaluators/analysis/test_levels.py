"""A short form of `benchmarks/levels.py`: false verdicts, coverage and power, over few and many repositories."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def levels() -> ModuleType:
    sys.path.insert(0, str(FOLDER))  # it imports its neighbour `_latest`
    try:
        spec = importlib.util.spec_from_file_location("benchmark_levels", FOLDER / "levels.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def shares(levels: ModuleType, scenario: str, repositories: tuple[int, ...], tasks: int, runs: int) -> dict[str, float]:
    count = levels.Count()
    for number in repositories:
        levels.simulate(levels.SCENARIOS[scenario], number, tasks, runs, count, seed=3)
    return {name: value / count.evaluations for name, value in count.sums.items()}


@pytest.mark.parametrize("scenario", ["the baseline itself", "rare breakage, equal (1 %)", "equal, 5 % lost at random"])
def test_false_verdicts_are_rare_and_intervals_hold_the_truth(levels, scenario):
    """600 evaluations: a rate of 5 % shows up to 7.5 % in 99.7 % of such tests."""
    found = shares(levels, scenario, (2, 6, 40), 200, 200)
    assert found["false improved"] <= 0.075
    assert found["false regressed"] <= 0.075
    if scenario == "the baseline itself":
        assert 0.93 <= found["clean fixes, these repositories"] <= 0.98
        assert 0.93 <= found["breakage, these repositories"] <= 0.985


def test_a_reckless_policy_is_caught_alike_at_five_six_and_seven_repositories(levels):
    caught = [
        shares(levels, "reckless: fixes 15 more, breaks 10 more", (count,), 200, 100)["regressed"]
        for count in (5, 6, 7)
    ]
    assert min(caught) > 0.8
    assert max(caught) - min(caught) < 0.15


def test_a_policy_that_fixes_more_wins_where_nobody_breaks_anything(levels):
    found = shares(levels, "fixes 15 more, nobody breaks anything", (2, 12), 500, 50)
    assert found["improved"] > 0.9
    assert found["false improved"] == 0


def test_attempts_lost_because_they_broke_improve_nothing(levels):
    assert shares(levels, "breaks 5 more, 5 % lost because they broke", (2, 12), 500, 100)["improved"] == 0


def test_a_family_of_ten_is_false_no_more_often_than_one(levels):
    found = shares(levels, "ten candidates like the baseline", (6,), 200, 100)
    assert found["false regressed"] <= 0.12
    assert found["false improved"] <= 0.12


@pytest.mark.parametrize("repositories", [2, 40])
def test_the_power_is_the_promised_one(levels, repositories):
    assert levels.of_detectable(repositories, 200, 400) == pytest.approx(0.8, abs=0.07)
