"""The stages of a cascade on a small repository, in real sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.cascade.permission import check_cascade
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.stops import CascadeStage, Ground
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.trainers.alarms import StepJudge
from regrade.policy_training.trainers.settings import StabilitySettings
from regrade.rewards import Score, default, resolved, reward, tests
from regrade.rewards.evidence import FailToPassRun
from regrade.rewards.evidence import TestFileRun as FileRun
from regrade.rewards.evidence import TestRun as RunOfTests
from tests.policy_training.cascade.shop import PATCHES, rollouts_of

PAYS = DEFAULT_TRAINING_REWARD
ALL_STOPS = CascadeSettings(charge=1.2, severity=0.0, audit=0.01)


def judged(
    cascade: Cascade, task: Task, scorer: Scorer, pays: TrainingReward = PAYS, names: Sequence[str] = tuple(PATCHES)
) -> dict[str, Attempt]:
    attempts = cascade.judge(rollouts_of(names), {task.id: task}, scorer, pays)
    return dict(zip(names, attempts, strict=True))


def executed(
    task: Task, scorer: Scorer, pays: TrainingReward = PAYS, names: Sequence[str] = tuple(PATCHES)
) -> dict[str, Attempt]:
    return dict(zip(names, judge(rollouts_of(names), {task.id: task}, scorer, pays), strict=True))


def test_partial_runs_hold_what_ran_and_what_could_have(task: Task, shop_scorer: Scorer) -> None:
    (evidence,) = shop_scorer.gather([(task, rollouts_of(["breaks its file"])[0].patch)], {FailToPassRun, FileRun})
    alone, of_file = evidence.records[FailToPassRun], evidence.records[FileRun]
    assert set(alone.outcomes) == set(task.fail_to_pass) == set(alone.failing(task.tests))
    assert set(alone.unrun) == set(task.pass_to_pass)
    assert set(of_file.outcomes) == {"test_total.py::test_total", "test_total.py::test_names"}
    assert of_file.failing(task.pass_to_pass) == ("test_total.py::test_names",)
    assert of_file.unrun == ("test_receipt.py::test_receipt", "test_receipt.py::test_empty_receipt")


def test_each_stage_stops_what_it_decides_and_a_fix_is_executed(task: Task, shop_scorer: Scorer) -> None:
    found = judged(Cascade(ALL_STOPS), task, shop_scorer)
    known = executed(task, shop_scorer)
    grounds = {name: attempt.stop and (attempt.stop.stage, attempt.stop.ground) for name, attempt in found.items()}
    assert grounds == {
        "fix": None,
        "no fix": (CascadeStage.FILE, Ground.NOTHING_BROKEN),
        "breaks its file": (CascadeStage.FILE, Ground.SEVERITY),
        "breaks elsewhere": (CascadeStage.FILE, Ground.NOTHING_BROKEN),
        "crashes": (CascadeStage.FILE, Ground.SEVERITY),
    }
    assert found["fix"] == known["fix"]
    assert found["fix"].verified
    assert found["no fix"].reward == known["no fix"].reward == 0.0
    assert found["breaks its file"].broke
    assert not found["breaks its file"].verified
    # It broke one of three, and one more that was not run: charged is what was seen.
    assert found["breaks its file"].reward == pytest.approx(-1.2 * (0.5 + 0.5 / 3))
    assert known["breaks its file"].reward == pytest.approx(-1.2 * (0.5 + 0.5 * 2 / 3))
    stop = found["breaks its file"].stop
    assert stop is not None
    assert (stop.low, stop.high) == pytest.approx((-1.2, -1.2 * (0.5 + 0.5 / 3)))
    assert found["breaks elsewhere"].reward == 0.0 > (known["breaks elsewhere"].reward or 0.0)


def test_a_declared_severity_is_charged(task: Task, shop_scorer: Scorer) -> None:
    cascade = Cascade(replace(ALL_STOPS, severity=0.6))
    found = judged(cascade, task, shop_scorer, names=["breaks its file", "no fix"])
    assert found["breaks its file"].reward == pytest.approx(-1.2 * (0.5 + 0.5 * 2 / 3))  # 0.6 of 3 tests, rounded up
    assert found["no fix"].reward == 0.0


@pytest.mark.parametrize("pays", [resolved, tests, default], ids=lambda pays: pays.name)
def test_without_a_charge_no_stop_changes_what_is_paid(task: Task, shop_scorer: Scorer, pays: object) -> None:
    """These pay nothing for an attempt without a fix, so its FAIL_TO_PASS tests alone decide."""
    training = TrainingReward(reward=pays)  # type: ignore[arg-type]
    found = judged(Cascade(CascadeSettings(audit=0)), task, shop_scorer, training)
    known = executed(task, shop_scorer, training)
    assert {name: attempt.reward for name, attempt in found.items()} == {
        name: attempt.reward for name, attempt in known.items()
    }
    stages = {attempt.stage for name, attempt in found.items() if name != "fix"}
    assert stages == {CascadeStage.FAIL_TO_PASS}
    numbers = Cascade(CascadeSettings(audit=0)).take_numbers()
    assert numbers["cascade/audits"] == 0


def test_a_batch_logs_what_ran_and_what_was_spared(task: Task, shop_scorer: Scorer) -> None:
    cascade = Cascade(ALL_STOPS)
    judged(cascade, task, shop_scorer, names=["fix", "no fix", "no fix"])
    numbers = cascade.take_numbers()
    # Two tests of the file for each distinct patch; then the fix runs all four. Spared: the two others of "no fix",
    # less the two that ran in vain for the fix.
    assert (numbers["cascade/tests_run"], numbers["cascade/tests_spared"]) == (8, 0)
    assert (numbers["cascade/suites_run"], numbers["cascade/suites_spared"]) == (1, 1)
    assert numbers["cascade/answered/file"] == numbers["cascade/answered/full"] == 0.5
    assert "cascade/suites_run" not in cascade.take_numbers(), "they are of one batch"


def test_audits_pay_by_execution_and_end_a_cascade_that_is_wrong(task: Task, shop_scorer: Scorer) -> None:
    cascade = Cascade(replace(ALL_STOPS, audit=1.0))
    found = judged(cascade, task, shop_scorer)
    assert {name: attempt.reward for name, attempt in found.items()} == {
        name: attempt.reward for name, attempt in executed(task, shop_scorer).items()
    }
    assert all(attempt.stop is None for attempt in found.values())
    numbers = cascade.take_numbers()
    # Of four stops that of "no fix" is right; the one elsewhere was unseen, and two break more than was seen.
    assert (numbers["cascade/audits"], numbers["cascade/wrong"], numbers["cascade/fell_back"]) == (4, 0.75, 0)
    judged(cascade, task, shop_scorer, names=["breaks elsewhere", "breaks its file"])
    assert cascade.fell_back
    alarm = StepJudge(StabilitySettings()).judge(cascade.take_numbers())
    assert alarm is not None
    assert (alarm.kind, alarm.reaction) == ("cascade", "skip")
    again = Cascade(ALL_STOPS)
    again.load_state_dict(cascade.state_dict())
    assert again.fell_back
    assert again.take_numbers()["cascade/audits"] == 6
    assert judged(again, task, shop_scorer, names=["no fix"])["no fix"].stop is None


def test_a_stage_that_costs_more_than_it_can_spare_is_left_out(task: Task, shop_scorer: Scorer) -> None:
    """By the times of the test files at the base; "" is a run without a test."""
    times = {"": 0.2, "test_total.py": 0.1, "test_receipt.py": 0.25}
    slow = replace(task, suite=replace(task.suite, seconds=times))
    assert judged(Cascade(ALL_STOPS), slow, shop_scorer, names=["no fix"])["no fix"].stop is None
    slower = replace(task, suite=replace(task.suite, seconds={**times, "test_receipt.py": 0.35}))
    assert judged(Cascade(ALL_STOPS), slower, shop_scorer, names=["no fix"])["no fix"].stop is not None


@reward
def pays_for_breakage(run: RunOfTests) -> Score:
    return Score(1.0 if run.broken else 0.0)


@pytest.mark.parametrize(
    ("settings", "pays", "message"),
    [
        (CascadeSettings(), PAYS, "give charge = 0.4 to stop attempts that broke something, and declare `severity`"),
        (CascadeSettings(charge=0.6), PAYS, "declare `severity`, the share of tests"),
        (CascadeSettings(), TrainingReward(reward=pays_for_breakage), "breaks the rule 'breaking never pays'"),
    ],
)
def test_a_cascade_that_would_change_the_pay_undeclared_is_refused(
    task: Task, shop_scorer: Scorer, settings: CascadeSettings, pays: TrainingReward, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_cascade(settings, pays, [task], shop_scorer)


def test_a_cascade_that_can_stop_something_is_accepted(task: Task, shop_scorer: Scorer) -> None:
    check_cascade(CascadeSettings(charge=0.6, severity=0.1), PAYS, [task], shop_scorer)
    check_cascade(CascadeSettings(), TrainingReward(reward=default), [task], shop_scorer)


@pytest.mark.parametrize(
    "values", [{"charge": -1}, {"severity": 1.5}, {"audit": "all"}, {"tolerance": float("nan")}, {"max_wrong": True}]
)
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"CascadeSettings: {next(iter(values))} is .*; give "):
        CascadeSettings(**values)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="audit is 0, but stops may change"):
        CascadeSettings(charge=1.0, audit=0)
