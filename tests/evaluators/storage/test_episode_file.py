import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.episode_json import LONGEST_TEXT
from regrade.datasets.episodes import Episode, EpisodeEnd, SeenTests, Step
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Trial
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.evaluation.answers import Answers
from regrade.evaluators.storage.episode_file import EpisodeFile, add_episodes

WRONG, RIGHT = (Patch.between({"a.py": "x = 1\n"}, {"a.py": f"x = {value}\n"}) for value in (2, 3))
EMPTY = Patch("")
EPISODE = Episode(
    task_id="shop/1",
    instruction="Mend it.",
    steps=(
        Step("search", {"pattern": "x"}, "a.py:1: x = 1", 0.25, patch_digest=EMPTY.digest, action="find x"),
        Step("edit", {"path": "a.py", "old": "1", "new": "2"}, "edited", 0.5, is_change=True, patch_digest=WRONG.digest),
        Step("run_tests", {}, "1 failed", 2.0, patch_digest=WRONG.digest, tests=SeenTests(3, ("t::a",), 1, "boom \ud800")),
        Step("", {}, "no action", 0.0, is_mistake=True, patch_digest=WRONG.digest, action="\ud83d what?"),
        Step("edit", {"nested": [1, {"a": None}], "big": 2.5}, "ok", 0.1, is_change=True, patch_digest=RIGHT.digest),
    ),
    patch=RIGHT,
    end=EpisodeEnd.TURNS,
    tokens=120,
    patches={patch.digest: patch for patch in (EMPTY, WRONG, RIGHT)},
)  # fmt: skip


def row(sample: int = 0, temperature: float = 1.0) -> dict[str, Any]:
    return {"policy": "agent", "task": "shop/1", "temperature": temperature, "sample": sample, "seed": 7}


def test_an_episode_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "agent.episodes"
    add_episodes(path, [(row(0), EPISODE), (row(1, 0), replace(EPISODE, tokens=1))])
    add_episodes(path, [(row(1, 0), replace(EPISODE, tokens=2))])
    stored = EpisodeFile(path)
    assert (len(stored), stored.get(row(0)), stored.get(row(2))) == (2, EPISODE, None)
    assert [episode.tokens for _, episode in stored.items()] == [120, 2]  # the later line counts


def test_a_torn_line_counts_as_absent_and_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.episodes"
    add_episodes(path, [(row(0), EPISODE), (row(1), EPISODE)])
    path.write_bytes(path.read_bytes()[:-9])
    assert row(0) in EpisodeFile(path)
    assert row(1) not in EpisodeFile(path)
    add_episodes(path, [(row(1), EPISODE)])
    assert EpisodeFile(path).get(row(1)) == EPISODE
    assert len(EpisodeFile(tmp_path / "none.episodes")) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n", "line 1: not the episode of an attempt"),
        ("hello\n", "line 1: not the episode of an attempt"),
        ('{"policy":"agent","task":"shop/1","temperature":1,"sample":0,"seed":7,"episode":{"task_id":3}}\n', "task_id"),
        (
            '{"policy":"agent","task":"shop/1","temperature":1,"sample":0,"seed":7,"episode":{"task_id":"a","steps":[],'
            '"instruction":"","end":"submitted","patch":"5","patches":{}}}\n',
            "patches",
        ),
    ],
)
def test_a_line_that_is_no_episode_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.episodes").write_text(text)
    with pytest.raises(UserError, match=words) as error:
        EpisodeFile(tmp_path / "a.episodes").get(row(0))
    assert "\n" not in str(error.value)
    assert "delete that line" in str(error.value)


def test_values_that_json_lacks_and_long_texts_are_stored_within_bounds(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    odd = {"nan": math.nan, "long": 10**5000, "set": {1}, "text": "x" * 10**6, "loop": loop, "key": {3: "a"}}
    step = Step("edit", odd, "o" * 10**6, math.nan, action="a" * 10**6)
    add_episodes(tmp_path / "a.episodes", [(row(), replace(EPISODE, steps=(step,)))])
    stored = EpisodeFile(tmp_path / "a.episodes").get(row())
    assert stored is not None
    (step,) = stored.steps
    assert math.isnan(step.seconds)
    assert step.arguments["nan"] == "nan"
    assert step.arguments["long"] == "<int>"
    assert len(step.observation) < LONGEST_TEXT + 100
    assert "900,000 characters cut" in step.observation
    assert (tmp_path / "a.episodes").stat().st_size < 4 * LONGEST_TEXT


def test_a_stored_answer_keeps_its_episode_and_others_are_stored_as_before(tmp_path: Path) -> None:
    task = Task(
        id="shop/1",
        repository="shop",
        base=Tree(tmp_path),
        instruction="",
        fail_to_pass=("t::a",),
        pass_to_pass=("t::b",),
        suite=TestSuite(),
    )
    rollout = Rollout(task_id="shop/1", policy="agent", temperature=1.0, sample=0, seed=7, patch=RIGHT, episode=EPISODE)
    Answers(tmp_path / "x.answers").add(Trial(task, 1.0, 0), rollout)
    Answers(tmp_path / "x.answers").add(Trial(task, 1.0, 1), replace(rollout, sample=1, episode=None))
    lines = (tmp_path / "x.answers").read_text().splitlines()
    assert "episode" in lines[0]
    assert "episode" not in lines[1]
    answers = Answers(tmp_path / "x.answers")
    for sample, episode in ((0, EPISODE), (1, None)):
        answer = answers.get(Trial(task, 1.0, sample), 7)
        assert answer is not None
        assert answer.episode == episode
        assert answer.patch == RIGHT
