"""Trajectories of other agents: small files in the forms that their programs write."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.episodes import Episode, EpisodeEnd, Step
from regrade.datasets.errors import UserError
from regrade.datasets.graded.records import Findings
from regrade.datasets.patches import Patch
from regrade.datasets.trajectories.reading import read_trajectories, trajectories_in

PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


MINI_BLOCKS = {
    "info": {"exit_status": "Submitted", "submission": PATCH, "config": {"model": {"model_name": "some/model"}}},
    "messages": [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": "Mend it."},
        answer(
            "THOUGHT: look. In Python:\n```python\nx\n```\n\n```bash\nls -a\n```",
            extra={"response": {"usage": {"completion_tokens": 12}}},
        ),
        {"role": "user", "content": "<returncode>0</returncode>\n<output>\na.py\n</output>"},
        answer("I do two things.\n```bash\nls\n```\n```bash\npwd\n```"),
        {"role": "user", "content": "Please always provide EXACTLY ONE action."},
        answer("```bash\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n```"),
    ],
    "trajectory_format": "mini-swe-agent-1",
    "instance_id": "x__x-1",
}
MINI_TOOLS = {
    "info": {"exit_status": "LimitsExceeded", "submission": ""},
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Mend it."}]},
        answer(
            "Two at once.",
            tool_calls=[
                {"id": "c1", "function": {"name": "bash", "arguments": '{"command": "ls"}'}},
                {"id": "c2", "function": {"name": "bash", "arguments": "not json"}},
            ],
            extra={"timestamp": 100.0, "response": {"usage": {"completion_tokens": 30}}},
        ),
        {"role": "tool", "tool_call_id": "c2", "content": "bad arguments", "extra": {"timestamp": 100.25}},
        {"role": "tool", "tool_call_id": "c1", "content": "a.py", "extra": {"timestamp": 101.0}},
        answer("I stop here."),
        {"role": "exit", "content": "limit"},
    ],
    "trajectory_format": "mini-swe-agent-1.1",
    "instance_id": "x__x-1",
}
SWE_AGENT = {
    "environment": "swe_main",
    "trajectory": [
        {"action": "open a.py\n", "observation": "x = 1\n", "response": "Look.\n```\nopen a.py\n```", "thought": "Look.\n"},
        {"action": "", "observation": "no action", "response": "Hm.", "thought": "Hm.", "execution_time": 0.0},
        {"action": "submit", "observation": PATCH, "response": "", "thought": "", "execution_time": 1.5},
    ],
    "history": [{"role": "system", "content": "s", "agent": "primary"}, {"role": "user", "content": "Mend it."}],
    "info": {"exit_status": "submitted (exit_cost)", "submission": PATCH, "model_stats": {"tokens_received": 77}},
}  # fmt: skip
DEMONSTRATION = {
    "history": [
        {"role": "system", "content": "s", "agent": "main"},
        {"role": "user", "content": "Mend it.", "agent": "main"},
        answer(
            "Look.",
            agent="main",
            action="open a.py",
            tool_calls=[{"id": "c1", "function": {"name": "open", "arguments": '{"path": "a.py"}'}}],
        ),
        {"role": "tool", "content": "x = 1", "agent": "main", "tool_call_ids": ["c1"]},
        answer("```\nls\n```", agent="main", action="ls\n"),
        {"role": "user", "content": "a.py", "agent": "main"},
    ]
}
PAIRS = [
    [
        {"action": "run", "args": {"command": "ls", "background": False, "thought": "Look."}, "message": "Running"},
        {"observation": "run", "content": "a.py", "extras": {"exit_code": 0}},
    ],
    [{"action": "finish", "args": {}}, {"observation": "null", "content": ""}],
]
EVENTS = [
    {"id": 0, "action": "system", "source": "agent", "args": {"content": "You are"}},
    {"id": 1, "action": "message", "source": "user", "args": {"content": "Mend it."}},
    {
        "id": 2, "action": "run", "source": "agent", "timestamp": "2025-01-01T00:00:00",
        "args": {"command": "ls", "thought": "Look.", "blocking": False, "cwd": None},
        "tool_call_metadata": {"function_name": "execute_bash"},
    },
    {"id": 3, "observation": "run", "cause": 2, "content": "a.py", "timestamp": "2025-01-01T00:00:01.5"},
    {"id": 4, "action": "message", "source": "agent", "args": {"content": "I wait."}},
    {"id": 5, "action": "message", "source": "user", "args": {"content": "Go on."}},
    {"id": 6, "action": "finish", "source": "agent", "args": {"thought": ""}},
]  # fmt: skip
SDK = [
    {"kind": "SystemPromptEvent", "id": "e0", "system_prompt": {"text": "You are"}},
    {
        "kind": "MessageEvent", "source": "user", "id": "e1",
        "llm_message": {"role": "user", "content": [{"type": "text", "text": "Mend it."}]},
    },
    {
        "kind": "ActionEvent", "id": "e2", "tool_name": "terminal", "tool_call_id": "c1",
        "timestamp": "2025-01-01T00:00:00", "thought": [{"type": "text", "text": "Look."}],
        "action": {"kind": "TerminalAction", "command": "ls", "is_input": False},
    },
    {
        "kind": "ObservationEvent", "id": "e3", "tool_name": "terminal", "tool_call_id": "c1", "action_id": "e2",
        "timestamp": "2025-01-01T00:00:02", "observation": {"content": [{"type": "text", "text": "a.py"}]},
    },
    {"kind": "ActionEvent", "id": "e4", "tool_name": "finish", "tool_call_id": "c2", "action": {"message": "done"}},
]  # fmt: skip


def row(history: list[Any], **more: Any) -> dict[str, Any]:
    return {"instance_id": "x__x-1", "history": history, "test_result": {"git_patch": PATCH}, **more}


def read(path: Path, value: object) -> Episode:
    path.write_text(json.dumps(value))
    (found,) = read_trajectories(path)
    assert found.instance == "x__x-1"
    return found.episode


def told(step: Step) -> tuple[Any, ...]:
    return step.tool, step.arguments, step.observation, None if math.isnan(step.seconds) else step.seconds


def test_mini_swe_agent_with_code_blocks(tmp_path: Path) -> None:
    episode = read(tmp_path / "no name.txt", MINI_BLOCKS)
    assert [told(step) for step in episode.steps] == [
        ("bash", {"command": "ls -a"}, "<returncode>0</returncode>\n<output>\na.py\n</output>", None),
        ("", {}, "Please always provide EXACTLY ONE action.", None),
        ("bash", {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}, "", None),
    ]
    assert [step.is_mistake for step in episode.steps] == [False, True, False]
    assert (episode.instruction, episode.end, episode.tokens) == ("Mend it.", EpisodeEnd.SUBMITTED, 12)
    assert episode.patch.text == PATCH
    assert not episode.has_trees


def test_mini_swe_agent_with_calls_of_tools(tmp_path: Path) -> None:
    episode = read(tmp_path / "x.traj.json", MINI_TOOLS)
    assert [told(step) for step in episode.steps] == [
        ("bash", {"command": "ls"}, "a.py", 0.75),
        ("bash", {"arguments": "not json"}, "bad arguments", 0.25),
        ("", {}, "limit", None),
    ]
    assert (episode.end, episode.tokens) == (EpisodeEnd.UNKNOWN, 30)


def test_swe_agent(tmp_path: Path) -> None:
    episode = read(tmp_path / "x__x-1.traj", SWE_AGENT)
    assert [told(step) for step in episode.steps] == [
        ("bash", {"command": "open a.py"}, "x = 1\n", None),
        ("", {}, "no action", 0.0),
        ("bash", {"command": "submit"}, PATCH, 1.5),
    ]
    assert episode.steps[0].action == "Look.\n```\nopen a.py\n```"
    assert (episode.instruction, episode.end, episode.tokens) == ("Mend it.", EpisodeEnd.SUBMITTED, 77)
    demonstration = read(tmp_path / "x__x-1.demo.traj", DEMONSTRATION)
    assert [told(step)[:3] for step in demonstration.steps] == [
        ("open", {"path": "a.py"}, "x = 1"), ("bash", {"command": "ls\n"}, "a.py"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("history", "tool", "seconds"),
    [(PAIRS, "run", None), (EVENTS, "execute_bash", 1.5), (SDK, "terminal", 2.0)],
    ids=["pairs", "events", "SDK"],
)
def test_openhands(tmp_path: Path, history: list[Any], tool: str, seconds: float | None) -> None:
    first = row(history, instruction="Mend it." if history is PAIRS else None)
    path = tmp_path / "output.jsonl"
    usage = {"metrics": {"accumulated_token_usage": {"completion_tokens": 9}}, "attempt": 2}
    path.write_text(
        "".join(json.dumps({**first, "instance_id": f"x__x-{number}", **usage}) + "\n" for number in (1, 2))
        + json.dumps(row([])) + "\n"
    )  # fmt: skip
    found = read_trajectories(path)
    assert [(each.instance, each.sample) for each in found] == [("x__x-1", 1), ("x__x-2", 1)]
    episode = found[0].episode
    assert told(episode.steps[0]) == (tool, {"command": "ls"}, "a.py", seconds)
    assert episode.steps[0].action == "Look."
    assert [step.tool for step in episode.steps] == [tool, *([""] if history is EVENTS else []), "finish"]
    assert (episode.instruction, episode.end, episode.tokens) == ("Mend it.", EpisodeEnd.SUBMITTED, 9)
    assert episode.patch.text == PATCH


def test_arguments_of_openhands_are_those_of_the_models_call(tmp_path: Path) -> None:
    """Where the record has the call, nothing that the program added stands among them, and nothing is taken out."""
    chosen = {"command": "ls", "is_input": "false", "hidden": "yes"}
    call = {"id": "c1", "function": {"name": "execute_bash", "arguments": json.dumps(chosen)}}
    other = {"id": "c0", "function": {"name": "think", "arguments": '{"thought": "?"}'}}
    response = {"choices": [{"message": {"tool_calls": [other, call]}}]}
    events, sdk = json.loads(json.dumps(EVENTS)), json.loads(json.dumps(SDK))
    events[2]["args"]["added_by_a_later_version"] = True
    events[2]["tool_call_metadata"] |= {"tool_call_id": "c1", "model_response": response}
    sdk[2]["action"]["added_by_a_later_version"] = True
    sdk[2]["tool_call"] = {"id": "c1", "name": "terminal", "arguments": json.dumps(chosen)}
    for number, history in enumerate((events, sdk)):
        step = read(tmp_path / f"{number}.jsonl", row(history, instruction="Mend it.")).steps[0]
        assert (step.arguments, step.observation, step.action) == (chosen, "a.py", "Look.")


def test_actions_and_arguments_of_openhands_itself_are_known_by_facts(tmp_path: Path) -> None:
    """By names that no version had yet: what nobody answers, calls or thinks; and what is the same for all tools."""
    state = {"state_of_a_later_version": "confirmed", "flag_of_a_later_version": False}
    history = [
        {"id": 0, "action": "system", "source": "agent", "args": {"content": "You are", "tools": []}},
        {"id": 1, "action": "message", "source": "user", "args": {"content": "Mend it."}},
        {"id": 2, "action": "run", "source": "agent", "args": {"command": "ls", "thought": "", **state}},
        {"id": 3, "observation": "run", "cause": 2, "content": "a.py"},
        {"id": 4, "action": "compress_history", "source": "agent", "args": {"forgotten": [1, 2]}},
        {"id": 5, "action": "look_up_notes", "source": "user", "args": {"query": "?", "thought": ""}},
        {"id": 6, "observation": "look_up_notes", "cause": 5, "content": "none"},
        {"id": 7, "action": "read", "source": "agent", "args": {"path": "a.py", "start": 0, **state}},
        {"id": 8, "observation": "read", "cause": 7, "content": "x = 1"},
        {"id": 9, "action": "null", "source": "agent", "args": {}},
        {"id": 10, "action": "run", "source": "agent", "args": {"command": "ls", "thought": "", **state}},
    ]
    episode = read(tmp_path / "output.jsonl", row(history))
    assert [(step.tool, step.arguments, step.observation) for step in episode.steps] == [
        ("run", {"command": "ls"}, "a.py"), ("read", {"path": "a.py", "start": 0}, "x = 1"),
        ("run", {"command": "ls"}, ""),
    ]  # fmt: skip
    assert episode.instruction == "Mend it."


def test_an_episode_of_regrade_itself(tmp_path: Path) -> None:
    own = Episode("x__x-1", "Mend it.", (Step("diff", {}, "-", 0.5, patch_digest="d"),), Patch(PATCH), EpisodeEnd.TURNS)
    stored = StoredEpisode.of(own).to_json()
    assert read(tmp_path / "trajectory.json", stored).steps == own.steps
    (tmp_path / "trajectory.json").write_text(json.dumps({**stored, "patches": {}}))
    with pytest.raises(UserError, match="lacks the patch at the end"):
        read_trajectories(tmp_path / "trajectory.json")


def damaged(change: Callable[[dict[str, Any]], object]) -> str:
    value = json.loads(json.dumps(MINI_BLOCKS))
    change(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(MINI_BLOCKS)[:-200], "no trajectory of a known format .*not JSON"),
        (damaged(lambda value: value.update(trajectory_format="mini-swe-agent-2")), "'mini-swe-agent-2'; this version"),
        (damaged(lambda value: value.pop("messages")), "without `messages`"),
        (json.dumps({**SWE_AGENT, "trajectory": [{"step": 1}]}), "lack `action` or `observation`"),
        (json.dumps(row([{"what": 1}])), "row 1: its history has no events of OpenHands"),
        ("[1, 2]", "no trajectory of a known format"),
        ("", "no trajectory of a known format"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.traj.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_trajectories(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_huge_files_pipes_and_folders_are_refused_without_reading_them(tmp_path: Path) -> None:
    huge = tmp_path / "huge.traj.json"
    with huge.open("wb") as file:
        file.write(b'{"messages": [\n"')
        file.truncate(3 << 30)  # a sparse file
    with pytest.raises(UserError, match="more than 256 MiB"):
        read_trajectories(huge)
    subprocess.run(["mkfifo", str(tmp_path / "pipe")], check=True)
    with pytest.raises(UserError, match="a pipe or a device"):
        read_trajectories(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a folder"):
        read_trajectories(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_trajectories(tmp_path / "none")


def test_odd_values_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    value = json.loads(json.dumps(MINI_BLOCKS))
    value["messages"] += [answer(deep), 3, {"role": None}, {"role": "tool"}, answer("\ud800 ```bash\nls\n```")]
    value["info"] = {"submission": "\ud800", "exit_status": 3, "config": []}
    value["messages"][2]["extra"] = {
        "response": {"usage": {"completion_tokens": 1e300}},
        "actions": [3, {"command": 3}],
    }
    episode = read(tmp_path / "x.json", value)
    assert episode.steps[-1].arguments == {"command": "ls"}
    assert (episode.patch.text, episode.tokens) == ("", 0)


def test_of_a_folder_each_trajectory_is_read_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.traj.json").write_text(json.dumps({**MINI_BLOCKS, "instance_id": name}))
    (tmp_path / "c.json").write_text(json.dumps({**MINI_BLOCKS, "trajectory_format": "mini-swe-agent-9"}))
    (tmp_path / "notes.txt").write_text("nothing")
    findings = Findings()
    assert [each.instance for each in trajectories_in(tmp_path, findings)] == ["a", "b"]
    (line,) = findings.lines()
    assert "trajectories that cannot be read" in line
    assert "mini-swe-agent-9" in line
