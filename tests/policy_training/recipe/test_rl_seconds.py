"""The time that an equal-time control gets, while reinforcement learning still runs beside it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from regrade.evaluators.storage.manifest import Phase
from regrade.evaluators.storage.run import HEARTBEAT_SECONDS, Run
from regrade.policy_training.recipe.phases import Phases
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.trainers.callbacks import Budget, StopAndLog

SETTINGS = Recipe(rounds=2, grpo_steps=10)


@pytest.fixture
def phases(tmp_path: Path) -> Phases:
    scorer: Any = None  # nothing is executed
    return Phases(Run(tmp_path), SETTINGS, 0, lambda _title: nullcontext(lambda _done, _total: None), scorer)


def test_it_becomes_exact_and_is_always_more_than_the_time_so_far(phases: Phases) -> None:
    run = phases.run
    assert not phases.rl_has_begun()
    run.update(phases={"expert iteration": Phase(90.0)})
    assert phases.rl_has_begun()
    assert phases.rl_seconds() == math.inf
    run.log("expert-iteration", 1, 100.0)
    run.update(phases={"expert iteration": Phase(130.0)})
    assert phases.rl_seconds() == 300, "two rounds, and GRPO like a round"
    run.update(phases={"expert iteration": Phase(400.0)})
    assert phases.rl_seconds() == 400 + 2 * HEARTBEAT_SECONDS, "the second round takes longer than it all"
    run.log("expert-iteration", 2, 300.0)
    run.update(phases={"expert iteration": Phase(410.0, done=True), "grpo": Phase(5.0)})
    assert phases.rl_seconds() == 410 + 200
    run.log("grpo", 1, 20.0)
    run.log("grpo", 2, 40.0)
    run.update(phases={"grpo": Phase(50.0)})
    assert phases.rl_seconds() == 410 + 50 * 10 / 2
    for step in range(3, 11):
        run.log("grpo", step, 20.0 * step)
    run.update(phases={"grpo": Phase(240.0)})
    assert phases.rl_seconds() == 410 + 240 + 2 * HEARTBEAT_SECONDS, "it may not end before reinforcement learning"
    run.update(phases={"grpo": Phase(243.0, done=True)})
    assert phases.rl_seconds() == 410 + 243


def test_a_training_follows_it() -> None:
    known = [math.inf]
    clock = StopAndLog(Budget(seconds=lambda: known[0]))
    clock.began -= 50
    assert clock.spent(7) == 0.0
    assert clock.budget.progress(7, 50.0) == (7, 0)
    known[0] = 200.0
    assert clock.spent(7) == pytest.approx(0.25, abs=0.01)
    assert clock.budget.progress(7, 50.0) == (50, 200)
    known[0] = 40.0
    assert clock.spent(7) > 1.0
