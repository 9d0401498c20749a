"""The loop for chat models, with a model that follows a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.attempts import judge
from regrade.policy_training.environments.chat_loop import CALL_A_TOOL, ChatAnswer, Message, run_chat_episode
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD


def call(name: str, number: int = 0, **arguments: Any) -> Message:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "tool_calls": [{"id": f"call-{number}", "type": "function", "function": function}]}


def script(*messages: Message) -> Callable[[Sequence[Message], list[dict[str, Any]]], ChatAnswer]:
    answers = iter(messages)
    return lambda _messages, _tools: ChatAnswer(next(answers), tokens=7)


@pytest.fixture
def task(make_task: Callable[[str], Task]) -> Task:
    return make_task("second")


def test_a_chat_model_works_until_it_submits_and_is_judged_like_any_policy(task: Task, scorer: Scorer) -> None:
    model = script(
        call("read_file", 1, path="library.py"),
        {"role": "assistant", "content": "I see."},
        call("edit", 2, path="library.py", old="items[2]", new="items[1]"),
        call("run_tests", 3),
        call("submit", 4),
    )
    episode, messages = run_chat_episode(RepositoryEnvironment({task.id: task}, scorer), task.id, model)
    assert (episode.end, episode.tokens, len(episode.steps)) == (EpisodeEnd.SUBMITTED, 35, 5)
    assert [message["role"] for message in messages[:5]] == ["system", "user", "assistant", "tool", "assistant"]
    assert messages[5]["content"] == CALL_A_TOOL
    assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == [
        f"call-{number}" for number in (1, 2, 3, 4)
    ]
    rollout = Rollout(task_id=task.id, policy="p", temperature=0, sample=0, seed=0, patch=episode.patch)
    (attempt,) = judge([rollout], {task.id: task}, scorer, DEFAULT_TRAINING_REWARD)
    assert (attempt.reward, attempt.verified) == (1.0, True)


def test_a_model_that_only_talks_ends_with_the_tree_as_it_is(task: Task, scorer: Scorer) -> None:
    silent = {"role": "assistant", "content": "Done!"}
    episode, _ = run_chat_episode(RepositoryEnvironment({task.id: task}, scorer), task.id, script(silent, silent))
    assert (episode.end, len(episode.steps), episode.patch.is_empty) == (EpisodeEnd.ABANDONED, 1, True)


def test_a_model_that_never_submits_runs_out_of_its_budget(task: Task, scorer: Scorer) -> None:
    limits = EpisodeLimits(turns=3)
    broken = {"role": "assistant", "tool_calls": [{"id": "x"}, {"id": "y", "function": {"name": "fly"}}]}
    model = script(broken, call("edit", path="library.py", old="items[2]", new="items[1]"))
    episode, messages = run_chat_episode(RepositoryEnvironment({task.id: task}, scorer, limits), task.id, model)
    assert (episode.end, episode.patch.is_empty) == (EpisodeEnd.TURNS, False)
    assert "names no function" in messages[3]["content"]
    assert "no tool 'fly'" in messages[4]["content"]
