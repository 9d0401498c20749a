"""Which attempts a trainer compares, and the components of a real step in a run's log."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.analysis.training_audit import audit_training
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.attempts import Attempt
from regrade.policy_training.environments.reward_components import numbers_of_round, numbers_of_step
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import ExpertIterationSettings, OnlineSettings, PPOSettings
from regrade.policy_training.training_plan import TrainingPlan
from regrade.rewards import resolved, style, tests
from regrade.rewards.breakdown import Breakdown, Part
from regrade.rewards.evidence import TestOutcome as Outcome
from regrade.rewards.evidence import TestRun as RunOfTests
from regrade.rewards.evidence import TestStatus as Status


def attempt(task: str, value: float | None, cause: str = "", lint: float = 1.0) -> Attempt:
    """A clean fix if its tests are worth 1."""
    is_fix = value is not None and value >= 1.0
    status = Status.PASSED if is_fix else Status.FAILED
    run = RunOfTests(outcomes={"t": Outcome(status)}, fail_to_pass=("t",), pass_to_pass=())
    parts = (Part("tests", float(is_fix), 0.9, 0.9 * is_fix, ""), Part("style", lint, 0.1, 0.1 * lint, ""))
    whole = 0.9 * is_fix + 0.1 * lint
    rollout = Rollout(task_id=task, policy="p", temperature=1.0, sample=0, seed=0, patch=Patch("x"))
    breakdown = None if cause or value is None else Breakdown(whole, "scored", parts=parts)
    return Attempt(rollout, run, value if cause or value is None else whole, breakdown=breakdown, cause=cause)


def test_a_group_with_an_unscored_attempt_is_not_compared_and_no_number_counts_it() -> None:
    judged = [attempt("a", 1.0), attempt("a", 0.0), attempt("b", 1.0, lint=0.0), attempt("b", 0.0)]
    numbers = numbers_of_step(judged, DEFAULT_TRAINING_REWARD)
    assert numbers["reward/groups"] == 2
    lost = [*judged[:3], replace(attempt("b", None), run=None)]
    without = numbers_of_step(lost, DEFAULT_TRAINING_REWARD)
    assert without["reward/groups"] == 1
    assert without["reward/tests/mean"] == pytest.approx(2 / 3)
    assert without["reward/style/mean"] == pytest.approx(2 / 3)
    assert without["reward/tests/share"] == pytest.approx(1.0), "b is not compared"
    assert without["reward/style/std_within"] == 0.0
    assert numbers_of_step(lost[3:], DEFAULT_TRAINING_REWARD) == {}


def test_the_batch_is_the_group_of_an_algorithm_with_one_attempt_a_task() -> None:
    batch = [
        attempt("a", 1.0),
        attempt("b", 0.0),
        attempt("c", -0.6, "malformed"),
        replace(attempt("d", None), run=None),
    ]
    numbers = numbers_of_step(batch, DEFAULT_TRAINING_REWARD)
    assert numbers["reward/groups"] == numbers["reward/different_groups"] == 1
    assert numbers["reward/price(malformed)/mean"] == pytest.approx(1 / 3)
    assert numbers["reward/price(malformed)/share"] + numbers["reward/tests/share"] == pytest.approx(1.0)
    assert numbers["reward/price(breakage)/mean"] == 0.0


def test_a_round_of_expert_iteration_compares_clean_fixes_alone() -> None:
    """Among these the reward chooses, here by style; what is no fix is not learned whatever it is paid."""
    attempts = [attempt("a", 1.0), attempt("a", 1.0, lint=0.5), attempt("a", 0.0), attempt("b", 1.0)]
    numbers = numbers_of_round(attempts, DEFAULT_TRAINING_REWARD)
    assert (numbers["reward/groups"], numbers["reward/different_groups"]) == (1, 1)
    assert numbers["reward/tests/mean"] == 0.75
    assert (numbers["reward/tests/decides"], numbers["reward/style/decides"]) == (0.0, 1.0)


def test_the_costs_of_an_agents_steps_are_a_component() -> None:
    batch = [attempt("a", 1.0), attempt("a", 1.0)]
    dear = [replace(batch[0], reward=1.0), batch[1]]
    numbers = numbers_of_step(dear, DEFAULT_TRAINING_REWARD, [-0.2, 0.0])
    assert numbers["reward/cost(steps)/decides"] == 1.0
    assert numbers["reward/cost(steps)/mean"] == pytest.approx(-0.1)
    assert "reward/cost(steps)/mean" not in numbers_of_step(batch, DEFAULT_TRAINING_REWARD)


def test_the_numbers_cost_nothing_beside_a_step() -> None:
    batch = [attempt(f"task{k % 8}", float(k % 3 == 0), lint=k % 5 / 4) for k in range(64)]
    began = time.process_time()
    numbers_of_step(batch, DEFAULT_TRAINING_REWARD)
    assert time.process_time() - began < 0.25, "a step takes seconds"


GATED = TrainingReward(reward=0.8 * tests + 0.2 * style.otherwise(1.0).only_if(resolved), malformed=-0.5, breakage=-1.0)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "expert-iteration"])
def test_a_real_step_logs_its_components_and_the_audit_reads_them(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: str
) -> None:
    settings = {
        "grpo": OnlineSettings(algorithm="grpo", samples_per_prompt=8),
        "ppo": PPOSettings(samples_per_prompt=4, epochs=1),
        "expert-iteration": ExpertIterationSettings(sampling=Sampling(1.0, 8)),
    }[algorithm]
    plan = TrainingPlan(settings=settings, model=str(undecided_folder), budget=Budget(steps=1), reward=GATED)  # type: ignore[arg-type]
    train(plan, tasks, scorer, tmp_path)
    lines = (tmp_path / "training" / f"{algorithm}.jsonl").read_text().splitlines()
    (step,) = [row for row in map(json.loads, lines) if "reward/groups" in row]
    assert {f"reward/{name}/mean" for name in ("tests", "style", "only_if(resolved)", "price(breakage)")} <= step.keys()
    assert "reward/tests/paid_unresolved" in step
    assert ("reward/tests/std_within" in step) == (step["reward/groups"] > 0)
    assert step["reward/tests/mean"] > 0
    shares = [value for key, value in step.items() if key.startswith("reward/") and key.endswith("/share")]
    assert sum(shares) == (pytest.approx(1.0) if step["reward/different_groups"] else 0.0)
    if algorithm == "grpo":
        assert step["reward/different_groups"] > 0
        assert step["reward/price(malformed)/mean"] == pytest.approx(step["malformed"])
    (audit,) = audit_training(Run.open(tmp_path))
    assert (audit.phase, audit.steps, audit.groups) == (algorithm, 1, step["reward/groups"])
    assert {each.name for each in audit.components} >= {"tests", "style", "only_if(resolved)"}
