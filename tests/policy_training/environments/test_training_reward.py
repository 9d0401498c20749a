"""The map from a reward's verdict to a training value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade import rewards
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import Attempt, judge
from regrade.policy_training.environments.training_reward import (
    DEFAULT_TRAINING_REWARD,
    TrainingReward,
    load_training_reward,
    training_reward_of,
)
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.trainers.expert_iteration import verified_examples
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.evidence import End, EvidenceSet
from regrade.rewards.evidence import TestOutcome as Outcome
from regrade.rewards.evidence import TestRun as RunOfTests
from regrade.rewards.evidence import TestStatus as Status

STORED = json.loads((Path(__file__).parent / "stored_values.json").read_text(encoding="utf-8"))
"""Attempts and what training paid for them when the prices were a formula of their own: FAIL_TO_PASS tests fixed, of
how many, PASS_TO_PASS tests broken, of how many, end of the run, value."""


def run_of(fixed: int, targets: int, broken: int, guards: int, end: str = "completed") -> RunOfTests:
    statuses = {f"target{k}": Status.PASSED if k < fixed else Status.FAILED for k in range(targets)}
    statuses |= {f"guard{k}": Status.FAILED if k < broken else Status.PASSED for k in range(guards)}
    return RunOfTests(
        outcomes={name: Outcome(status) for name, status in statuses.items()},
        fail_to_pass=tuple(f"target{k}" for k in range(targets)),
        pass_to_pass=tuple(f"guard{k}" for k in range(guards)),
        end=End(end),
    )


def paid(pays: TrainingReward, run: RunOfTests, **facts: Any) -> float | None:
    return pays.payment(pays.reward.evaluate(EvidenceSet({RunOfTests: run})), run, **facts).value


def test_stored_attempts_have_their_old_values_to_the_last_digit() -> None:
    """Except for a patch that does not apply: it was paid as if it broke everything, and is as good as unreadable."""
    for *counts, value in STORED:
        expected = DEFAULT_TRAINING_REWARD.malformed if End.NOT_APPLIED in counts else value
        assert paid(DEFAULT_TRAINING_REWARD, run_of(*counts)) == expected, counts
    assert len({value for *_, value in STORED}) > 25


def test_a_plain_reward_pays_its_value() -> None:
    plain = training_reward_of(rewards.tests)
    assert paid(plain, run_of(1, 2, 0, 3)) == 0.1
    assert paid(plain, run_of(2, 2, 1, 4)) == rewards.tests(run_of(2, 2, 1, 4)).value
    assert plain.payment(None, None, well_formed=False).value == 0.0
    assert training_reward_of(plain) is plain


VALUES = st.floats(-10, 10)


@given(scale=VALUES, offset=VALUES, value=st.floats(0, 1), limits=st.tuples(VALUES, VALUES))
def test_the_map_is_affine_and_limited(scale: float, offset: float, value: float, limits: tuple[float, float]) -> None:
    low, high = sorted(limits)
    pays = TrainingReward(reward=rewards.tests, scale=scale, offset=offset, low=low, high=high)
    expected = min(max(scale * value + offset, low), high)
    assert pays.payment(Breakdown(value, "scored"), run_of(1, 1, 0, 0)).value == expected
    assert pays.payment(None, None, well_formed=False).value == min(max(0.0, low), high)


def test_the_first_cause_counts() -> None:
    pays = TrainingReward(reward=rewards.tests, malformed=-1, no_op=-2, uncompilable=-3, tampering=-4, breakage=-10)
    run = run_of(1, 1, 1, 2)
    every = {"well_formed": False, "is_empty": True, "compiles": False, "tampered": True}
    found = []
    for known in [{}, {"well_formed": True}, {"is_empty": False}, {"compiles": True}, {"tampered": False}]:
        every |= known
        found.append(paid(pays, run, **every))
    assert found == [-1, -2, -3, -4, -7.5]
    assert paid(replace(pays, breakage=None), run, tampered=False) == rewards.tests(run).value


def test_what_is_not_known_is_unscored_and_not_zero() -> None:
    run = run_of(1, 1, 0, 2)
    assert paid(DEFAULT_TRAINING_REWARD, run, tampered=None) is None, "nobody looked for tampering"
    lost = Breakdown(None, "unscored", "LintDelta: the disk is full")
    assert DEFAULT_TRAINING_REWARD.payment(lost, run).value is None
    assert DEFAULT_TRAINING_REWARD.payment(lost, run_of(1, 1, 1, 2)).value == pytest.approx(-0.9), "breakage is known"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"reward": "tests"}, "reward is 'tests', not a reward"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"offset": None}, "offset is None"),
        ({"breakage": float("-inf")}, "breakage is -inf"),
        ({"malformed": None}, "malformed is None"),
        ({"no_op": "0"}, "no_op is '0'"),
        ({"tampering": True}, "tampering is True"),
        ({"low": 1.0, "high": 0.0}, "low is 1.0 and high is 0.0"),
    ],
)
def test_impossible_numbers_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TrainingReward(**{"reward": rewards.tests, **arguments})


OWN = """
from regrade.policy_training import TrainingReward
from regrade.rewards import builds, style, tests

fix_bug = (0.8 * tests + 0.2 * style).only_if(builds)
priced = TrainingReward(reward=fix_bug, breakage=-2, malformed=-0.5)
other = 3
"""


FUNCTION = """
from regrade.rewards import Diff, Score, builds, reward


@reward
def few(diff: Diff) -> Score:
    return Score(1.0 if len(diff.files) < 2 else 0.0)


mine = few.only_if(builds)
"""


def test_the_record_tells_a_changed_function_of_the_same_name(tmp_path: Path) -> None:
    """So a training that was killed is not gone on with by another reward."""
    file, records = tmp_path / "mine.py", []
    for text in (FUNCTION, f"# A comment.\n{FUNCTION}", FUNCTION.replace("< 2", "< 3")):
        file.write_text(text)
        records.append(load_training_reward(f"{file}:mine").to_json())
    assert records[0] == records[1]
    assert {key for key in records[0] if records[0][key] != records[2][key]} == {"sources"}
    assert set(records[0]["sources"]) == {"few"}
    assert "sources" not in TrainingReward(reward=rewards.tests).to_json()


def test_a_file_names_a_reward_or_a_training_reward(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    plain, priced = load_training_reward(f"{file}:fix_bug"), load_training_reward(f"{file}:priced")
    assert (plain.breakage, plain.malformed, priced.breakage, priced.malformed) == (None, 0.0, -2, -0.5)
    assert plain.reward.needs == priced.reward.needs
    assert load_training_reward("default").reward is rewards.default
    assert json.dumps(priced.to_json(), allow_nan=False).count("style") >= 1
    with pytest.raises(UserError, match="other is 3, not a reward"):
        load_training_reward(f"{file}:other")
    with pytest.raises(UserError, match=r"its rewards: .*priced"):
        load_training_reward(f"{file}:missing")


def rollout(task: Task, patch: Patch | None, number: int = 0) -> Rollout:
    return Rollout(
        task_id=task.id,
        policy="policy",
        temperature=1.0,
        sample=number,
        seed=0,
        patch=patch or Patch(""),
        prompt="p",
        completion=f"answer {number}",
        well_formed=patch is not None,
    )


def test_attempts_are_paid_by_a_reward_of_your_own_with_its_evidence(
    make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    """Style decides between two clean fixes, and the empty patch is judged by the reward itself."""
    task = make_task("second")
    prompt = prompt_of(task)
    right = prompt.reference_answer()
    neat, untidy = prompt.patch(right), prompt.patch(f"{right}; import os, sys")
    fix_bug = TrainingReward(reward=0.5 * rewards.tests + 0.5 * rewards.style.otherwise(1.0), breakage=-1.0)
    rollouts = [rollout(task, patch, n) for n, patch in enumerate([neat, untidy, Patch(""), None])]
    attempts = judge(rollouts, {task.id: task}, scorer, fix_bug)
    values = [attempt.reward for attempt in attempts]
    assert values[0] == 1.0
    assert values[1] is not None
    assert 0.5 < values[1] < 1.0
    assert (values[2], values[3]) == (0.5, 0.0)
    assert [attempt.verified for attempt in attempts] == [True, True, False, False]
    assert attempts[1].breakdown is not None
    assert {part.name: part.value for part in attempts[1].breakdown.parts}["tests"] == 1.0
    (best,) = verified_examples([attempts[1], attempts[1], attempts[0]], per_task=1)
    assert best.completion == "answer 0", "among verified answers, the reward chooses"


def test_a_scan_that_could_not_be_made_is_no_clean_bill(make_task: Callable[[str], Task]) -> None:
    class NoScan:
        """A scorer that runs the tests and loses the scan."""

        def gather(self, jobs: list[object], *_: object, **__: object) -> list[EvidenceSet]:
            return [EvidenceSet({RunOfTests: run_of(1, 1, 0, 1)}) for _ in jobs]

    task = make_task("second")
    patch = prompt_of(task).patch(prompt_of(task).reference_answer())
    found: list[Attempt] = judge([rollout(task, patch)], {task.id: task}, NoScan(), DEFAULT_TRAINING_REWARD)  # type: ignore[arg-type]
    assert found[0].reward is None
