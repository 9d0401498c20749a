"""What training pays for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import Attempt, judge, read_attempts, scored_answers, write_attempts
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.trainers.executed_tests import rates
from regrade.rewards.components import tests
from regrade.rewards.evidence import End, EvidenceSet
from regrade.rewards.evidence import TestOutcome as Outcome
from regrade.rewards.evidence import TestRun as RunOfTests
from regrade.rewards.evidence import TestStatus as Status

CHANGED = Patch("some patch")
PAYS = DEFAULT_TRAINING_REWARD


def run_of(fixed: list[bool], kept: list[Status], end: End = End.COMPLETED) -> RunOfTests:
    targets = {f"target{k}": Status.PASSED if good else Status.FAILED for k, good in enumerate(fixed)}
    guards = {f"guard{k}": status for k, status in enumerate(kept)}
    outcomes = {name: Outcome(status) for name, status in (targets | guards).items()}
    return RunOfTests(outcomes=outcomes, fail_to_pass=tuple(targets), pass_to_pass=tuple(guards), end=end)


def attempt(patch: Patch = CHANGED, *, well_formed: bool = True) -> Rollout:
    return Rollout(
        task_id="task",
        policy="policy",
        temperature=1.0,
        sample=0,
        seed=0,
        patch=patch,
        prompt="p",
        completion="c",
        well_formed=well_formed,
    )


def reward(run: RunOfTests) -> float:
    value = PAYS.payment(tests.evaluate(EvidenceSet({RunOfTests: run})), run).value
    assert value is not None
    return value


FIXED = st.lists(st.booleans(), min_size=1, max_size=4)
BROKEN = st.sampled_from([Status.FAILED, Status.ERROR, Status.SKIPPED, Status.XFAILED, Status.MISSING])
KEPT = st.lists(st.one_of(st.just(Status.PASSED), st.just(Status.UNREACHED), BROKEN), min_size=1, max_size=6)


@given(fixed=FIXED, kept=KEPT, place=st.integers(0, 5), how=BROKEN)
def test_breaking_one_more_test_always_costs(fixed: list[bool], kept: list[Status], place: int, how: Status) -> None:
    sound = [*kept]
    sound[place % len(kept)] = Status.PASSED
    broken = [*sound]
    broken[place % len(kept)] = how
    assert reward(run_of(fixed, broken)) < reward(run_of(fixed, sound))


@given(fixed=FIXED, kept=KEPT, place=st.integers(0, 3))
def test_fixing_one_more_test_pays_as_long_as_nothing_breaks(fixed: list[bool], kept: list[Status], place: int) -> None:
    less, more = [*fixed], [*fixed]
    less[place % len(fixed)], more[place % len(fixed)] = False, True
    better, worse = run_of(more, kept), run_of(less, kept)
    assert (reward(better) == reward(worse)) if better.broken else (reward(better) > reward(worse))


@given(fixed=FIXED, kept=KEPT)
def test_whoever_breaks_anything_gets_less_than_for_nothing_broken(fixed: list[bool], kept: list[Status]) -> None:
    """Even the full set of fixes does not make up for one broken test."""
    broken = run_of(fixed, [*kept, Status.FAILED])
    harmless = run_of([False] * len(fixed), [Status.PASSED] * (len(kept) + 1))
    assert reward(broken) < PAYS.payment(None, None, is_empty=True).value <= reward(harmless)
    assert PAYS.breakage <= reward(broken) <= 1


def test_a_clean_fix_is_worth_one_and_nothing_else_is() -> None:
    assert reward(run_of([True, True], [Status.PASSED, Status.UNREACHED])) == 1
    assert reward(run_of([True, False], [Status.PASSED])) < 0.5


def test_what_never_ran() -> None:
    assert PAYS.payment(None, None, well_formed=False).value == PAYS.malformed
    assert PAYS.payment(None, None, is_empty=True).value == PAYS.no_op
    assert PAYS.payment(None, None).value is None


def test_unscored_attempts_are_left_out_and_not_zero(tmp_path: Path) -> None:
    fix = run_of([True], [Status.PASSED])
    attempts = [Attempt(attempt(), fix, 1.0), Attempt(attempt(), None, None), Attempt(attempt(Patch("")), None, -0.1)]
    assert [answer.reward for answer in scored_answers(attempts)] == [1.0, -0.1]
    assert [answer.verified for answer in scored_answers(attempts)] == [True, False]
    write_attempts(tmp_path / "attempts.jsonl", attempts)
    assert read_attempts(tmp_path / "attempts.jsonl") == scored_answers(attempts)


def test_a_patch_that_does_not_apply_breaks_nothing_and_is_paid_as_malformed() -> None:
    run = run_of([False], [Status.MISSING], End.NOT_APPLIED)
    assert run.broken
    assert PAYS.payment(None, run) == PAYS.payment(None, None, well_formed=False)
    assert not Attempt(attempt(), run, PAYS.malformed).broke
    (answer,) = scored_answers([Attempt(attempt(), run, PAYS.malformed)])
    assert (answer.fixes, answer.breaks) == (False, False)


def test_a_run_that_was_cut_short_is_never_verified() -> None:
    assert Attempt(attempt(), run_of([True], [Status.PASSED]), 1.0).verified
    for end in (End.TIMEOUT, End.MEMORY, End.CRASHED, End.NOT_APPLIED):
        assert not Attempt(attempt(), run_of([True], [Status.PASSED], end), 1.0).verified


class Forbidden:
    """A scorer that nobody may ask."""

    def gather(self, *_: object, **__: object) -> list[EvidenceSet]:
        raise AssertionError("something was executed")


def test_what_does_not_compile_costs_as_if_it_broke_everything_and_is_not_executed(
    make_task: Callable[[str], Task],
) -> None:
    task = make_task("second")
    patch = prompt_of(task).patch("2 return (")
    assert patch is not None
    rollouts = [replace(attempt(patch), task_id=task.id), replace(attempt(Patch("")), task_id=task.id)]
    (broken, nothing) = judge(rollouts, {task.id: task}, cast(Scorer, Forbidden()), PAYS)
    assert (broken.compiles, broken.broke, broken.verified, broken.reward) == (False, True, False, PAYS.breakage)
    assert (nothing.compiles, nothing.broke, nothing.reward) == (True, False, PAYS.no_op)
    assert rates([broken, nothing])["breakage"] == 0.5
    everything = run_of([False], [Status.FAILED])
    assert broken.reward == pytest.approx(reward(everything))


class Recording:
    """A scorer that finds nothing out, and remembers how much it was asked to run."""

    reachable: bool | None = None

    def gather(self, jobs: list[object], *_: object, reachable: bool = False, **__: object) -> list[EvidenceSet]:
        self.reachable = reachable
        return [EvidenceSet() for _ in jobs]


def test_training_runs_only_the_tests_that_can_reach_the_change(make_task: Callable[[str], Task]) -> None:
    task, scorer = make_task("second"), Recording()
    judge([replace(attempt(CHANGED), task_id=task.id)], {task.id: task}, cast(Scorer, scorer), PAYS)
    assert scorer.reachable is True


class Unable:
    """A scorer whose infrastructure fails."""

    def gather(self, jobs: list[object], *_: object, **__: object) -> list[EvidenceSet]:
        return [EvidenceSet() for _ in jobs]


def test_a_patch_that_could_not_be_applied_for_want_of_git_is_unscored(
    make_task: Callable[[str], Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("second")
    patch = prompt_of(task).patch("2 return (")
    assert patch is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    (unscored,) = judge([replace(attempt(patch), task_id=task.id)], {task.id: task}, cast(Scorer, Unable()), PAYS)
    assert (unscored.run, unscored.reward, unscored.broke) == (None, None, False)


def test_rates() -> None:
    attempts = [
        Attempt(attempt(), run_of([True], [Status.PASSED]), 1.0),
        Attempt(attempt(), run_of([True], [Status.FAILED]), -0.2),
        Attempt(attempt(Patch("")), None, -0.1, is_empty=True),
        Attempt(attempt(Patch(""), well_formed=False), None, -0.3),
    ]
    shares = {"fix_and_clean": 0.25, "breakage": 0.25, "no_op": 0.25, "malformed": 0.25, "tampering": 0.0}
    assert rates(attempts) == pytest.approx(shares)
    unscored = Attempt(attempt(), None, None)
    assert rates([*attempts, unscored]) == pytest.approx(shares), "an unscored attempt is no failure"
    assert rates([unscored]) == {}


def test_attempts_that_reach_for_the_verdict_are_counted_by_kind_and_never_pay(
    make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    task = make_task("second")
    cheat = "class Same:\n    def __eq__(self, other):\n        return True\n"
    before = task.base.read("library.py")
    patch = Patch.between({"library.py": before}, {"library.py": f"{before}\n\n{cheat}"})
    rollouts = [replace(attempt(patch), task_id=task.id), replace(attempt(Patch("")), task_id=task.id)]
    (cheated, nothing) = judge(rollouts, {task.id: task}, scorer, PAYS)
    assert (cheated.tampering, cheated.reward, cheated.verified) == (
        ("equal to everything",),
        PAYS.tampering,
        False,
    )
    found = rates([cheated, nothing])
    assert (found["tampering"], found["tampering/equal to everything"]) == (0.5, 1.0)
    assert not Attempt(attempt(), run_of([True], [Status.PASSED]), 1.0, tampering=("test hook",)).verified
