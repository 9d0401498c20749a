"""A reward model in a cascade: what it stops, what it is paid, and what follows when it overpays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.cascade.audits import FEWEST, StopAudit, StopAudits
from regrade.policy_training.cascade.cascade import Cascade
from regrade.policy_training.cascade.outlook import PredictedOutcome, chances
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.environments.attempts import Attempt
from regrade.policy_training.environments.stops import CascadeStage, Ground
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.trainers.alarms import StepJudge
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.online import train_online
from regrade.policy_training.trainers.settings import OnlineSettings, StabilitySettings
from regrade.policy_training.trainers.stability import StabilityGuard
from regrade.rewards.evidence import PredictedPart, Prediction
from tests.policy_training.cascade.shop import PATCHES, ByOperator, rollouts_of

MODEL = CascadeSettings(severity=0.0, audit=0.001, model=Path("by-operator"), model_answers="failures")
PAYS = DEFAULT_TRAINING_REWARD


def judged(
    settings: CascadeSettings, task: Task, scorer: Scorer, names: Sequence[str] = tuple(PATCHES)
) -> tuple[dict[str, Attempt], Mapping[str, float]]:
    cascade = Cascade(settings, prediction=ByOperator)
    attempts = cascade.judge(rollouts_of(names), {task.id: task}, scorer, PAYS)
    return dict(zip(names, attempts, strict=True)), cascade.take_numbers()


def test_asked_first_a_model_stops_sure_failures_before_anything_runs(task: Task, shop_scorer: Scorer) -> None:
    found, numbers = judged(MODEL, task, shop_scorer)
    stops = {name: attempt.stop for name, attempt in found.items() if attempt.stop is not None}
    assert {name: (stop.stage, stop.ground, stop.broke) for name, stop in stops.items()} == {
        "no fix": (CascadeStage.MODEL, Ground.PREDICTED, False),
        "breaks its file": (CascadeStage.MODEL, Ground.PREDICTED, True),
        "breaks elsewhere": (CascadeStage.MODEL, Ground.PREDICTED, False),
    }
    assert found["fix"].verified, "a model certifies nothing: what it takes for a fix is executed"
    assert found["crashes"].run is not None, "it is not sure"
    assert found["no fix"].reward == 0.0
    assert found["breaks its file"].reward == pytest.approx(-1.2 * (0.5 + 0.5 / 3)), "one test at least"
    assert numbers["cascade/answered/model"] == 0.6
    assert numbers["cascade/tests_spared"] == 3 * 4


def test_asked_for_the_rest_it_decides_what_the_file_left_open(task: Task, shop_scorer: Scorer) -> None:
    found, _ = judged(replace(MODEL, model_answers="rest", charge=0.4), task, shop_scorer)
    grounds = {name: attempt.stop and (attempt.stop.stage, attempt.stop.ground) for name, attempt in found.items()}
    assert grounds == {
        "fix": None,
        "no fix": (CascadeStage.MODEL, Ground.PREDICTED),
        "breaks its file": (CascadeStage.FILE, Ground.SEVERITY),
        "breaks elsewhere": (CascadeStage.MODEL, Ground.PREDICTED),
        "crashes": (CascadeStage.FILE, Ground.SEVERITY),
    }


def test_a_group_without_variance_is_executed(task: Task, shop_scorer: Scorer) -> None:
    found, numbers = judged(MODEL, task, shop_scorer, ["no fix", "breaks elsewhere"])
    assert [attempt.stop for attempt in found.values()] == [None, None]
    assert found["no fix"].reward == 0.0 > (found["breaks elsewhere"].reward or 0.0)
    assert (numbers["cascade/suites_run"], numbers["cascade/suites_spared"]) == (2, 0)


def test_a_model_alone_pays_what_it_expects(task: Task, shop_scorer: Scorer) -> None:
    found, _ = judged(replace(MODEL, model_answers="all"), task, shop_scorer, ["no fix", "crashes"])
    breakage = -1.2 * (0.5 + 0.5 / 3)
    clean, both = 0.25, 0.25  # of 0.5 that fix, half break
    assert found["crashes"].reward == pytest.approx(clean + 0.5 * breakage)
    assert (
        both
        == chances(ByOperator(0.25, 0.1, "m", parts=(PredictedPart("fixes", 0.5, 0.1),)))[PredictedOutcome(True, True)]
    )  # type: ignore[index]
    assert [attempt.stop.ground for attempt in found.values() if attempt.stop] == [Ground.EXPECTED] * 2


def test_a_model_without_heads_expects_failures_to_be_harmless() -> None:
    assert chances(Prediction(0.3, 0.1, "m")) == pytest.approx(
        {
            PredictedOutcome(True, False): 0.3,
            PredictedOutcome(False, False): 0.7,
            PredictedOutcome(True, True): 0.0,
            PredictedOutcome(False, True): 0.0,
        }
    )
    assert chances(Prediction(None, 0.0, "m", "no such language")) is None


def test_a_model_that_overpays_is_asked_no_more_and_raises_an_alarm(task: Task, shop_scorer: Scorer) -> None:
    audits = StopAudits(max_wrong=0.5, tolerance=0.1)
    for number in range(FEWEST):
        assert not audits.have_parted
        audits.add(StopAudit(CascadeStage.MODEL, Ground.EXPECTED, paid=0.9, executed=0.01 * number))
    assert audits.have_parted
    assert not audits.are_too_wrong, "it is the mean that counts: an expected pay is seldom that of one execution"
    numbers = audits.take_numbers()
    assert (numbers["cascade/model_pays"], numbers["cascade/execution_pays"]) == pytest.approx((0.9, 0.02))
    alarm = StepJudge(StabilitySettings()).judge(numbers)
    assert alarm is not None
    assert (alarm.kind, alarm.reaction) == ("reward model", "roll back")
    assert StepJudge(StabilitySettings()).judge(audits.take_numbers()) is None, "once"
    cascade = Cascade(replace(MODEL, model_answers="all"), prediction=ByOperator)
    cascade.load_state_dict({"audits": audits.state_dict(), "batch": 3})
    (attempt,) = cascade.judge(rollouts_of(["no fix"]), {task.id: task}, shop_scorer, PAYS)
    assert attempt.stop is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_answers": "all"}, "no model is given"),
        ({"model": Path("m")}, "severity is None, but a model predicts whether"),
        ({"model": Path("m"), "severity": 0.1, "audit": 0}, "audit is 0"),
        ({"model": Path("m"), "severity": 0.1, "model_answers": "some"}, "give one of rest, failures, all"),
        ({"unsure": 0.5}, "give a share below 1/2"),
    ],
)
def test_settings_of_a_model_that_contradict_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CascadeSettings(**values)  # type: ignore[arg-type]


class LikesZero(Prediction):
    """Of the model `likes_zero`."""


def likes_zero(_before: Tree, _after: Tree, patch: Patch, _task: Task) -> LikesZero:
    """A reward model that takes `return 0` for a fix: it breaks a test."""
    clean = 0.95 if any(line.startswith("+") and "return 0" in line for line in patch.text.split("\n")) else 0.05
    parts = (PredictedPart("fixes", clean, 0.05), PredictedPart("breaks", 0.02, 0.02))
    return LikesZero(clean, 0.05, "likes zero", parts=parts)


@pytest.mark.slow
def test_a_run_that_optimises_a_model_alone_is_noticed_and_goes_on_with_executions(
    undecided: LanguageModel, tasks: list[Task], evidence: Path, tmp_path: Path
) -> None:
    settings = OnlineSettings(algorithm="grpo", learning_rate=5e-3, prompts_per_step=2, samples_per_prompt=12)
    alone = CascadeSettings(severity=0.0, audit=0.5, model=Path("likes-zero"), model_answers="all")
    guard, rows = StabilityGuard(StabilitySettings(kl_every=1, max_kl=50.0), tmp_path), []
    cascade = Cascade(alone, prediction=LikesZero)
    with Scorer(workers=1, cache=evidence, probes={LikesZero: likes_zero}) as scorer:
        train_online(
            undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=12), seed=0, cascade=cascade,
            guard=guard, log=lambda step, _seconds, numbers: rows.append({"step": step, **numbers}),
        )  # fmt: skip
    (step,) = [at for at, alarm in guard.alarms if alarm.kind == "reward model"]
    side_by_side = [row for row in rows if {"kl", "cascade/model_pays", "cascade/execution_pays"} <= row.keys()]
    assert any(row["cascade/model_pays"] > row["cascade/execution_pays"] for row in side_by_side)
    after = [row for row in rows if row["step"] > step]
    assert after
    assert all("cascade/answered/model" not in row for row in after)
    assert all("reward/tests/mean" in row for row in after), "the execution pays"
