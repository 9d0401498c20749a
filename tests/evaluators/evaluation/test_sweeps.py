"""Policies over temperatures: samplings, the choice of a temperature, and no repeated work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Keep, Rollout, Sampling, Trial
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.answers import Answers
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Sweep, TooManyLostError, enter
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.rows import load_rows
from regrade.evaluators.storage.run import Run
from regrade.rewards import tests as passing

SWEEP = Sweep((0.2, 1.0), samples=3, samples_elsewhere=1, validation_samples=2)


@dataclass
class Hot:
    """Fixes the task at one temperature only; counts its trials."""

    fix: Patch
    good: float
    name: str = "hot"
    asked: list[tuple[str, float]] = field(default_factory=list)

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for task in tasks:
            assert task.reference is None
            for sampling in samplings:
                for sample in range(sampling.samples):
                    self.asked.append((task.id, sampling.temperature))
                    patch = self.fix if sampling.temperature == self.good else Patch("")
                    yield Rollout(
                        task_id=task.id,
                        policy="whatever it calls itself",
                        temperature=sampling.temperature,
                        sample=sample,
                        seed=seed,
                        patch=patch,
                    )


@dataclass
class OneByOne(Hot):
    """The same, attempt by attempt; `dies` after so many answers."""

    dies: int = 10**6
    loses: Callable[[Trial], bool] = lambda _trial: False

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        for trial in trials:
            if len(self.asked) >= self.dies:
                raise KeyboardInterrupt
            self.asked.append((trial.task.id, trial.temperature))
            patch = self.fix if trial.temperature == self.good else Patch("")
            lost = "the endpoint died" if self.loses(trial) else ""
            made = Rollout(
                task_id=trial.task.id,
                policy="",
                temperature=trial.temperature,
                sample=trial.sample,
                seed=seed,
                patch=Patch("") if lost else patch,
                lost=lost,
            )
            keep(trial, made)
            yield made


@pytest.fixture
def judged(task: Task) -> list[Task]:
    return [task, replace(task, id="second", pass_to_pass=task.pass_to_pass[:1])]


@pytest.fixture
def validation(task: Task) -> list[Task]:
    """Two other tasks, as a held-out task may not be a validation task."""
    return [replace(task, id=f"v{number}", pass_to_pass=task.pass_to_pass[number:]) for number in (1, 2)]


def entrant(policy: Hot, **more: object) -> Entrant:
    return Entrant(name="p", role="candidate", load=lambda _tasks: policy, **more)  # type: ignore[arg-type]


def hidden(tasks: Sequence[Task]) -> list[Task]:
    return [task.without_reference() for task in tasks]


@pytest.mark.parametrize("kind", [Hot, OneByOne])
@pytest.mark.parametrize("good", [0.2, 1.0])
def test_each_policy_is_judged_most_at_the_temperature_that_validation_chooses(
    kind: type[Hot], good: float, judged, validation, fix: Patch, scorer: Scorer, tmp_path: Path
) -> None:
    run, policy = Run(tmp_path), kind(fix, good)
    rows = enter(
        run, entrant(policy), SWEEP, hidden(validation), hidden(judged), Judge(scorer=scorer, reward=passing, seed=1)
    )
    entry = run.manifest.policies["p"]
    assert (entry.best_temperature, entry.chosen) == (good, True)
    (other,) = {0.2, 1.0} - {good}
    assert Counter(rows["temperature"]) == Counter({good: 2 * 3, other: 2 * 1})
    assert rows[rows["temperature"] == good]["clean_fix"].eq(1).all()
    assert rows[rows["temperature"] != good]["clean_fix"].eq(0).all()
    assert set(rows["policy"]) == {"p"}
    asked = len(policy.asked)
    assert asked == 2 * 2 * 2 + 2 * 4
    again = enter(
        run, entrant(policy), SWEEP, hidden(validation), hidden(judged), Judge(scorer=scorer, reward=passing, seed=1)
    )
    assert again.equals(rows)
    assert len(policy.asked) == asked, "nothing is asked again"
    greedy = Sweep((0.0,), samples=3)
    more = enter(run, entrant(policy), greedy, (), hidden(judged), Judge(scorer=scorer, reward=passing, seed=1))
    assert run.manifest.policies["p"].best_temperature == good, "what was chosen stays"
    assert Counter(more["temperature"]) == Counter({0.0: 2, good: 2 * 3})


def test_without_validation_tasks_the_lowest_temperature_is_taken_and_nothing_is_called_chosen(
    judged, fix: Patch, scorer: Scorer, tmp_path: Path
) -> None:
    rows = enter(Run(tmp_path), entrant(Hot(fix, 1.0)), SWEEP, (), hidden(judged), Judge(scorer=scorer, reward=passing))
    entry = Run.open(tmp_path).manifest.policies["p"]
    assert (entry.best_temperature, entry.chosen) == (0.2, False)
    assert set(rows["temperature"]) == {0.2, 1.0}


def test_a_validation_task_cannot_be_held_out(judged, fix: Patch, scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'second' is among the validation tasks"):
        enter(Run(tmp_path), entrant(Hot(fix, 1.0)), SWEEP, judged[1:], judged, Judge(scorer=scorer, reward=passing))


def test_a_run_has_one_baseline_and_one_policy_of_a_name(judged, fix: Patch, scorer: Scorer, tmp_path: Path) -> None:
    run, judge = Run(tmp_path), Judge(scorer=scorer, reward=passing)
    first = entrant(Hot(fix, 0.0), spec={"model": "a"})
    enter(run, replace(first, role="baseline"), Sweep(), (), hidden(judged), judge)
    with pytest.raises(UserError, match=r"'p' is model 'a' in .*, but model 'b' here"):
        enter(run, replace(first, spec={"model": "b"}), Sweep(), (), hidden(judged), judge)
    with pytest.raises(UserError, match="has the baseline 'p'"):
        enter(run, replace(first, name="q", role="baseline"), Sweep(), (), hidden(judged), judge)
    enter(run, replace(first, name="a/b"), Sweep(), (), hidden(judged), judge)
    with pytest.raises(UserError, match="'a_b' and 'a/b' would be written to one file"):
        enter(run, replace(first, name="a_b"), Sweep(), (), hidden(judged), judge)


def test_answers_survive_a_stop_and_only_missing_ones_are_requested(
    judged, fix: Patch, scorer: Scorer, tmp_path: Path
) -> None:
    run, judge, sweep = Run(tmp_path), Judge(scorer=scorer, reward=passing), Sweep((1.0,), samples=4)
    dying = OneByOne(fix, 1.0, dies=5)
    with pytest.raises(KeyboardInterrupt):
        enter(run, entrant(dying), sweep, (), hidden(judged), judge)
    assert not run.evaluation("p").exists(), "too few for a chunk: nothing was scored yet"
    policy = OneByOne(fix, 1.0)
    told: list[tuple[int, int]] = []
    judge = replace(judge, stage=lambda _title: nullcontext(lambda *counts: told.append(counts)))
    rows = enter(run, entrant(policy), sweep, (), hidden(judged), judge)
    assert told == [(count, 8) for count in range(9)], "answers are told of as they come"
    assert len(policy.asked) == 3
    assert len(rows) == 8
    assert rows["clean_fix"].eq(1).all()


def test_what_a_local_policy_sampled_survives_a_stop_before_it_is_scored(
    judged, fix: Patch, scorer: Scorer, tmp_path: Path
) -> None:
    """A local model answers task by task: only tasks that were open are sampled again."""
    run, sweep = Run(tmp_path), Sweep((0.2, 1.0), samples=2)

    class Stopped(Hot):
        def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
            for rollout in super().propose(tasks, samplings, seed):
                if len(self.asked) > 6:  # in the second task
                    raise KeyboardInterrupt
                yield rollout

    judge = Judge(scorer=scorer, reward=passing)
    with pytest.raises(KeyboardInterrupt):
        enter(run, entrant(Stopped(fix, 1.0)), sweep, (), hidden(judged), judge)
    assert not run.evaluation("p").exists(), "too few for a chunk: nothing was scored yet"
    policy = Hot(fix, 1.0)
    rows = enter(run, entrant(policy), sweep, (), hidden(judged), judge)
    assert {name for name, _ in policy.asked} == {"second"}
    assert len(rows) == 8
    assert rows["clean_fix"].sum() == 4
    assert [path.suffix for path in sorted(run.evaluation("p").parent.iterdir())] == [".evidence", ".jsonl"]


def test_lost_attempts_are_unscored_then_repeated(judged, fix: Patch, scorer: Scorer, tmp_path: Path) -> None:
    run, judge, sweep = Run(tmp_path), Judge(scorer=scorer, reward=passing), Sweep((1.0,), samples=2)
    flaky = OneByOne(fix, 1.0, loses=lambda trial: trial.task.id == "second")
    rows = enter(run, entrant(flaky), sweep, (), hidden(judged), judge)
    lost = rows[rows["task"] == "second"]
    assert lost[["fix", "broke", "clean_fix", "reward"]].isna().all(axis=None)
    assert set(lost["cause"]) == {"the endpoint died"}
    assert not lost["empty"].any(), "nobody knows what it would have changed"
    well = OneByOne(fix, 1.0)
    rows = enter(run, entrant(well), sweep, (), hidden(judged), judge)
    assert rows["clean_fix"].eq(1).all()
    assert {task for task, _ in well.asked} == {"second"}
    assert len(load_rows(run.evaluation("p"))) == 4


def test_no_temperature_is_chosen_from_lost_attempts(
    judged, validation, fix: Patch, scorer: Scorer, tmp_path: Path
) -> None:
    dead = OneByOne(fix, 1.0, loses=lambda trial: trial.temperature == 1.0)
    with pytest.raises(TooManyLostError, match=r"4 of 8 attempts of 'p'.*the endpoint died"):
        enter(
            Run(tmp_path),
            entrant(dead),
            SWEEP,
            hidden(validation),
            hidden(judged),
            Judge(scorer=scorer, reward=passing),
        )


def test_an_edited_task_is_evaluated_again(judged, fix: Patch, scorer: Scorer, tmp_path: Path) -> None:
    run, policy, judge = Run(tmp_path), Hot(fix, 0.0), Judge(scorer=scorer, reward=passing)
    enter(run, entrant(policy), Sweep(), (), hidden(judged), judge)
    edited = [judged[0], replace(judged[1], pass_to_pass=judged[0].pass_to_pass[:3])]
    enter(run, entrant(policy), Sweep(), (), hidden(edited), judge)
    assert [task for task, _ in policy.asked] == ["calculator", "second", "second"]


def test_patches_of_a_fixed_policy_may_change_and_change_back(
    judged, fix: Patch, scorer: Scorer, tmp_path: Path
) -> None:
    run, judge = Run(tmp_path), Judge(scorer=scorer, reward=passing)
    for patch, fixed in ((Patch(""), 0), (fix, 1), (Patch(""), 0), (Patch(""), 0)):
        policy = Hot(patch, 0.0)
        rows = enter(run, entrant(policy, is_fixed=True), SWEEP, (), hidden(judged), judge)
        assert rows["fix"].tolist() == [fixed, fixed]
    assert len(run.evaluation("p").read_text().splitlines()) == 6, "what is recorded is not recorded again"


def test_a_file_of_answers_that_holds_something_else_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "x.answers").write_text('{"task": 1}\n')
    with pytest.raises(UserError, match="line 1: not an answer"):
        Answers(tmp_path / "x.answers")
