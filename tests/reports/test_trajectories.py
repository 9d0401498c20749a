import math
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.episodes import Episode, EpisodeEnd, SeenTests, Step
from regrade.datasets.patches import Patch
from regrade.evaluators.storage.episode_file import add_episodes, episodes_path
from regrade.evaluators.storage.run import Run
from regrade.evaluators.storage.step_effects import StepEffect
from regrade.reports import trajectories
from regrade.reports.trajectories import (
    FIRST_STEPS,
    LAST_STEPS,
    LONGEST_OBSERVATION,
    LONGEST_TITLE,
    RunTrajectories,
    trajectory_view,
)

EMPTY = Patch("")


def step(tool: str = "read_file", **arguments: object) -> Step:
    return Step(tool, arguments, "seen", 0.5, patch_digest=EMPTY.digest)


def episode(*steps: Step) -> Episode:
    return Episode("t", "", steps, EMPTY, EpisodeEnd.SUBMITTED, 1200, {EMPTY.digest: EMPTY})


def test_a_step_names_its_action_in_one_line_and_keeps_the_rest_as_details() -> None:
    view = trajectory_view(
        episode(
            step(path="a.py", first_line=3, last_line=None),
            step("edit", path="a.py", old="x = 1\ny", new="x = 2", delete=False),
            step("bash", command="pytest -q\ncat log"),
            replace(step("open", path="a.py"), action="open a.py 1 9"),
            replace(step(""), action="I think\nthat", is_mistake=True),
            step("search", pattern="p" * 400),
        ),
        (),
    )
    assert [each.title for each in view.steps[:5]] == ["read_file a.py 3", "edit a.py", "bash pytest -q…",
                                                       "open a.py 1 9", "I think"]  # fmt: skip
    assert len(view.steps[5].title) <= LONGEST_TITLE
    assert [each.details for each in view.steps[:5]] == [
        (), (), (("command", "pytest -q\ncat log"),), (), (("action", "I think\nthat"),),
    ]  # fmt: skip
    assert view.steps[1].change == (("del", "- x = 1"), ("del", "- y"), ("add", "+ x = 2"))
    assert view.head == "6 steps, 1,200 tokens, 3.0 s of tools, submitted"


@pytest.mark.parametrize(
    ("effect", "marks"),
    [
        (StepEffect(step=0, fixed=1, broken=2, tests=("t::a",)), [("good", "+1 fixed"), ("bad", "−2 broken")]),
        (StepEffect(step=0, unfixed=1, restored=3), [("bad", "−1 fixed"), ("good", "+3 restored")]),
        (StepEffect(step=0, has_stopped=True, end="timeout"), [("bad", "tests timeout")]),
        (StepEffect(step=0, unknown="the disk is full"), [("plain", "effect unknown")]),
        (StepEffect(step=0), [("plain", "no test differs")]),
    ],
)
def test_chips_say_what_a_change_did(effect: StepEffect, marks: list[tuple[str, str]]) -> None:
    change = replace(step("edit"), is_change=True)
    (view,) = trajectory_view(episode(change), (effect,)).steps
    assert [*view.marks] == marks
    assert view.broken_tests == effect.tests


def test_chips_say_what_the_agent_saw() -> None:
    red, green = SeenTests(4, ("a", "b"), 0), SeenTests(6, (), 0)
    views = trajectory_view(
        episode(replace(step("run_tests"), tests=red), replace(step("run_tests"), tests=green)), None
    )
    assert [each.marks for each in views.steps] == [(("bad", "saw 2 failed, 4 passed"),), (("good", "saw 6 passed"),)]
    assert views.note == ""  # nothing changed, so nothing is unmeasured


def test_long_episodes_and_observations_are_cut_and_say_so() -> None:
    long = replace(step(), observation="x" * 10_000, seconds=math.nan)
    view = trajectory_view(episode(*[long] * 100), None)
    assert [each.number for each in view.steps] == [*range(1, FIRST_STEPS + 1), *range(101 - LAST_STEPS, 101)]
    assert view.note == "40 steps in the middle are left out."
    assert len(view.steps[0].observation) < LONGEST_OBSERVATION + 40
    assert "8,401 characters cut" in view.steps[0].observation


def test_a_page_has_a_budget_beyond_which_steps_stand_without_observations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    long = episode(*[replace(step(), observation="x" * 1500)] * 30)
    rows = [{"policy": "a", "task": "t", "temperature": 0.0, "sample": n, "seed": 0} for n in range(4)]
    add_episodes(episodes_path(run.evaluation("a")), [(row, long) for row in rows])
    monkeypatch.setattr(trajectories, "TRAJECTORY_BUDGET", 100_000)
    found = [RunTrajectories.of(reader, row) for reader in [RunTrajectories(run)] for row in rows]
    assert [bool(view and view.steps[0].observation) for view in found] == [True, True, False, False]
    last = found[-1]
    assert last is not None
    assert len(last.steps) == 30
    assert last.note.startswith("What the steps showed is left out")
