"""An agent's tools on a real repository, with real test runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.datasets.applying import apply_patch
from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Shown, Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments import agent_tools
from regrade.policy_training.environments.agent_tools import (
    LONGEST_OBSERVATION,
    OVER,
    TOOLS,
    EpisodeLimits,
    RepositoryEnvironment,
)
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.edited_tree import EditedTree, ToolMistakeError
from regrade.policy_training.environments.tool_calls import call_tool, tool_schemas
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript, Turn
from regrade.rewards.evidence import TestRun as RunOfTests

Environment = Callable[..., RepositoryEnvironment]
WRONG, RIGHT = "    return items[2]", "    return items[1]"


@pytest.fixture
def environment(make_task: Callable[[str], Task], scorer: Scorer) -> Environment:
    """An environment that has begun an episode."""

    def begin(task: Task | None = None, **limits: Any) -> RepositoryEnvironment:
        task = task or make_task("second")
        made = RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(**limits) if limits else None)
        made.reset(task_id=task.id)
        return made

    return begin


def test_an_agent_finds_a_bug_breaks_something_takes_it_back_and_mends_it(
    environment: Environment, make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    task = make_task("second")
    agent = environment(task)
    assert "test_second" in agent.session.instruction
    assert "library.py" in agent.list_files().splitlines()
    assert f"library.py:8: {WRONG}" in agent.search(r"items\[\d\]")
    assert f"    8 {WRONG}" in agent.read_file("library.py", 4, 8)
    assert "1 failed" in agent.run_tests()

    assert "edited library.py" in agent.edit("library.py", WRONG, "    return None")
    agent.edit("library.py", "        self.value -= step", "        self.value += 2 * step")
    red = agent.run_tests()
    assert "test_second" in red
    assert "self.value" not in agent.undo()
    assert "nothing is changed now" in agent.undo()
    agent.edit("library.py", WRONG, RIGHT)
    assert agent.run_tests(["test_library.py::test_second"]).startswith("0 failed, 1 passed")
    assert f"-{WRONG}\n+{RIGHT}" in agent.diff()
    agent.submit()
    assert agent.diff() == OVER

    episode = agent.session.episode()
    assert (episode.end, episode.test_runs, episode.taken_back) == (EpisodeEnd.SUBMITTED, 3, 2)
    assert episode.tested_before_the_end
    assert [step.is_change for step in episode.steps].count(True) == 5
    assert not any(step.is_mistake for step in episode.steps)
    (evidence,) = scorer.gather([(task, episode.patch)], {RunOfTests})
    assert evidence.records[RunOfTests].resolved
    assert set(episode.patches) >= {step.patch_digest for step in episode.steps}


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("read_file", {"path": "libary.py"}, "there is no file 'libary.py'"),
    ("read_file", {"path": "elsewhere/library.py"}, "did you mean library.py"),
    ("read_file", {"path": "../../etc/passwd"}, "there is no file"),
    ("read_file", {"path": "/etc/passwd"}, "there is no file"),
    ("read_file", {"path": "library.py", "first_line": 900}, "do not exist"),
    ("read_file", {"path": "library.py", "first_line": "x"}, "Expected `int`"),
    ("read_file", {}, "missing required field `path`"),
    ("read_file", {"path": "library.py", "mode": "rb"}, "unknown field `mode`"),
    ("search", {"pattern": "("}, "no regular expression"),
    ("search", {"pattern": "x" * 600}, "at most 500"),
    ("search", {"pattern": "x", "path": "nowhere"}, "no file fits"),
    ("list_files", {"folder": "nowhere"}, "no folder 'nowhere'"),
    ("edit", {"path": "library.py", "old": "return"}, "occurs 5 times"),
    ("edit", {"path": "library.py", "old": "absent"}, "does not occur"),
    ("edit", {"path": "library.py", "old": "items[2]", "new": "items[2]"}, "are the same"),
    ("edit", {"path": "library.py", "new": "x"}, "exists"),
    ("edit", {"path": "new.py", "old": "a", "new": "b"}, "there is no file"),
    ("edit", {"path": "../new.py", "new": "x"}, "no path in the repository"),
    ("edit", {"path": "/tmp/new.py", "new": "x"}, "no path in the repository"),
    ("edit", {"path": "a/./b.py", "new": "x"}, "no path in the repository"),
    ("edit", {"path": ".git/config", "new": "x"}, "reserved"),
    ("edit", {"path": "library.py/x.py", "new": "x"}, "a part of its path is a file"),
    ("edit", {"path": "nul\0.py", "new": "x"}, "no path"),
    ("edit", {"path": "gone.py", "delete": True}, "there is no file"),
    ("edit", {"path": "big.py", "new": "x" * 5_000_000}, "at most"),
    ("run_tests", {"tests": ["tests/test_nothing.py"]}, "no test that you may run"),
    ("run_tests", {"tests": 3}, "Expected `array"),
    ("undo", {}, "no change to take back"),
    ("rm", {"path": "x"}, "there is no tool 'rm'"),
]  # fmt: skip


def test_every_mistake_is_an_observation_and_costs_a_turn(environment: Environment) -> None:
    agent = environment(turns=len(MISTAKES) + 3)
    for count, (tool, arguments, said) in enumerate(MISTAKES, 1):
        assert said in call_tool(agent, tool, json.dumps(arguments)), (tool, arguments)
        assert len(agent.session.steps) == count
    for broken in ("{", "[1]"):
        assert "no JSON object" in call_tool(agent, "edit", broken)
    assert all(step.is_mistake and not step.is_change for step in agent.session.steps)
    assert agent.session.episode().patch.is_empty
    agent.diff()
    assert agent.diff() == OVER
    assert agent.session.episode().end is EpisodeEnd.TURNS


def test_budgets_end_an_episode_and_its_tree_is_the_answer(environment: Environment) -> None:
    agent = environment(test_runs=1, tokens=10)
    agent.run_tests()
    assert "all 1 test run of the budget are used" in agent.run_tests()
    agent.edit("library.py", WRONG, RIGHT)
    agent.session.tokens = 10
    assert agent.submit() == OVER
    episode = agent.session.episode()
    assert (episode.end, episode.patch.is_empty) == (EpisodeEnd.TOKENS, False)
    assert not episode.tested_before_the_end
    late = environment(seconds=1e-9)
    assert late.list_files() == OVER
    assert late.session.episode().end is EpisodeEnd.SECONDS
    with pytest.raises(UserError, match="turns is 0"):
        EpisodeLimits(turns=0)


def test_the_third_equal_refusal_on_an_equal_tree_ends_an_episode(environment: Environment) -> None:
    agent = environment()
    agent.read_file("libary.py")
    agent.undo()
    agent.read_file("libary.py")
    agent.read_file("library.py")
    agent.undo()
    assert not agent.session.is_over()
    assert "there is no file" in agent.read_file("libary.py")
    assert agent.list_files() == OVER
    assert agent.session.episode().end is EpisodeEnd.REPEATS


def test_refusals_of_other_actions_or_on_other_trees_end_no_episode(environment: Environment) -> None:
    agent = environment()
    for text in ("1", "2", "3"):
        agent.read_file("libary.py")
        agent.read_file(f"libary{text}.py")
        agent.edit("note.txt", new=text) if text == "1" else agent.edit("note.txt", str(int(text) - 1), text)
    assert not agent.session.is_over()
    for name in ("fly", "run", "swim"):
        call_tool(agent, name, "{}")
    assert not agent.session.is_over(), "they are refused for different reasons"
    once = environment(repeats=1)
    once.undo()
    assert once.session.episode().end is EpisodeEnd.REPEATS
    with pytest.raises(UserError, match="repeats is 0"):
        EpisodeLimits(repeats=0)


def test_an_edit_that_failed_its_tests_is_noted_when_it_comes_again(environment: Environment) -> None:
    agent = environment()
    wrong = "    return None"
    assert "note" not in agent.edit("library.py", WRONG, wrong)
    assert agent.run_tests().startswith("1 failed")
    agent.undo()
    assert "note: you ran tests on exactly this before, and 1 failed" in agent.edit("library.py", WRONG, wrong)
    agent.undo()
    agent.edit("library.py", WRONG, RIGHT)
    assert agent.run_tests().startswith("0 failed")
    agent.undo()
    assert "note" not in agent.edit("library.py", WRONG, RIGHT), "its tests passed"


def test_hidden_tests_are_not_read_not_run_and_not_named(
    environment: Environment, make_task: Callable[[str], Task]
) -> None:
    task = make_task("second")
    (file,) = {test.partition("::")[0] for test in task.tests}
    shown = task.fail_to_pass[0]
    partly = environment(replace(task, shown=Shown(tests=(shown,))))
    assert partly.run_tests().startswith("1 failed, 0 passed")
    other = next(test for test in task.tests if test != shown)
    assert "no test that you may run" in partly.run_tests([other])
    blind = environment(replace(task, shown=Shown(tests=(), names_failing_tests=False)))
    assert shown not in blind.session.instruction
    assert file not in blind.list_files()
    assert "there is no file" in blind.read_file(file)
    assert "no file fits" in blind.search("second", file)
    assert "reserved" in blind.edit(file, new="def test_second(): pass\n")
    assert "shows no test" in blind.run_tests()


def test_edits_of_tests_are_told_to_be_without_effect(
    environment: Environment, make_task: Callable[[str], Task]
) -> None:
    task = make_task("second")
    (file,) = {test.partition("::")[0] for test in task.tests}
    agent = environment(task)
    assert "original state" in agent.edit(file, "assert second([1, 2, 3]) == 2", "assert True")
    assert "1 failed" in agent.run_tests()
    assert "syntax error" in agent.edit("library.py", WRONG, "    return (")


def test_long_outputs_are_cut_and_say_what_was_cut(environment: Environment) -> None:
    agent = environment()
    agent.edit("long.txt", new="".join(f"line {n} {'x' * 600}\n" for n in range(1, 2001)))
    text = agent.read_file("long.txt")
    assert len(text) <= LONGEST_OBSERVATION
    next_line = int(text.rpartition("first_line=")[2].rstrip("]"))
    assert agent.read_file("long.txt", next_line).startswith(f"{next_line:>5} line {next_line}")
    assert "[1900 of 2000 matches cut" in agent.search("line", "long.txt")
    assert agent.diff().endswith("characters cut]")
    assert len(agent.diff()) < LONGEST_OBSERVATION + 100


def test_a_search_in_very_many_files_stops_and_says_where(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = environment()
    assert "stopped" not in agent.search("def ")
    monkeypatch.setattr(agent_tools, "SEARCH_SECONDS", 0.0)
    seen = agent.search("nowhere at all")
    assert seen.startswith("no line matches\n[stopped after 0 seconds: the last ")
    assert "were not searched: search in a folder]" in seen


def test_a_search_that_would_never_end_is_stopped(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrade.policy_training.environments.agent_tools.SEARCH_SECONDS", 0.2)
    agent = environment()
    agent.edit("trap.txt", new="a" * 60 + "b\n")
    assert "simplify the pattern" in agent.search(r"^(a|aa|a?a)+$", "trap.txt")


def test_large_and_binary_files_and_links_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"x" * 5_000_000)
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    tree = EditedTree(Tree(tmp_path), lambda _: False)
    assert tree.paths() == ["big.txt", "binary"]
    for path in ("big.txt", "binary", "link", "folder/passwd"):
        with pytest.raises(ToolMistakeError):
            tree.read(path)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(["a.txt", "b.txt", "sub/c.txt"]), st.none() | st.text("xy\n", max_size=6)), max_size=8
    ),
    undone=st.integers(0, 8),
)
def test_the_patch_is_the_difference_whatever_is_done_and_undone(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str | None]], undone: int
) -> None:
    root = tmp_path_factory.mktemp("tree")
    (root / "a.txt").write_text("one\ntwo\n")
    (root / "b.txt").write_text("x\n")
    tree, states = EditedTree(Tree(root), lambda _: False), []
    for path, text in changes:
        before = {each: tree.read(each) for each in tree.paths()}
        try:
            tree.write(path, text)
        except ToolMistakeError:
            continue
        states.append(before)
    for _ in range(min(undone, len(states))):
        assert tree.undo()
        assert {each: tree.read(each) for each in tree.paths()} == states.pop()
    expected = {each: tree.read(each) for each in tree.paths()}
    patched = apply_patch(Tree(root), tree.patch)
    assert {each: patched.read(each) for each in patched.paths()} == expected


def test_schemas_describe_every_tool_and_argument() -> None:
    schemas = {schema["function"]["name"]: schema["function"] for schema in tool_schemas()}
    assert tuple(schemas) == TOOLS
    assert set(TOOLS) == {"list_files", "read_file", "search", "edit", "run_tests", "diff", "undo", "submit"}
    read = schemas["read_file"]
    assert read["parameters"]["required"] == ["path"]
    assert read["parameters"]["properties"]["first_line"]["description"].startswith("Number of the first line")
    for schema in schemas.values():
        assert schema["description"]
        assert all("description" in argument for argument in schema["parameters"]["properties"].values())
    json.dumps(list(schemas.values()))


def test_one_line_actions(make_task: Callable[[str], Task], scorer: Scorer) -> None:
    task = make_task("second")
    compact = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(turns=20)), task.id)
    assert compact.prompt == prompt_of(task).text
    answer = prompt_of(task).reference_answer()
    number = answer.split(" ")[0]
    assert "already reads so" in str(compact.act(f"{number} return items[2]"))
    assert "no line 999" in str(compact.act("999 x"))
    assert WRONG in str(compact.act("find items"))
    assert compact.act("test") == "1 failed\n>>> assert second([1, 2, 3]) == 2\nassert 3 == 2"
    assert compact.act(answer) == "ok"
    assert compact.act("test") == "passed"
    assert compact.act("undo") == "ok"
    assert WRONG in str(compact.act("open library.py 4 8"))
    assert "no action: write open PATH" in str(compact.act("please help"))
    assert "no action" in str(compact.act("find a\nsubmit"))
    assert compact.act("8 return items[1]") == "ok"
    assert compact.act("submit") is None
    assert compact.act("undo") is None
    assert f"+{RIGHT}" in compact.episode().patch.text
    transcript = compact.transcript()
    assert transcript.turns[4] == Turn(answer, "ok")
    assert transcript.turns[-1] == Turn("submit")


def test_a_line_that_failed_its_tests_is_not_accepted_again(make_task: Callable[[str], Task], scorer: Scorer) -> None:
    task = make_task("second")
    compact = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer), task.id)
    lines = ("4 return items[0]", "test", "undo", "4 return items[0]", "4 return items[1]", "test", "undo")
    seen = [str(compact.act(line)).split("\n")[0] for line in lines]
    assert seen == ["ok", "1 failed", "ok", "error: tried before: 1 failed", "ok", "passed", "ok"]
    refused, right = compact.episode().steps[3:5]
    assert (refused.is_mistake, refused.is_change) == (True, False)
    assert right.is_change
    assert compact.episode().patch.is_empty
    assert compact.act("4 return items[1]") == "ok", "its tests passed"
    assert compact.act("3 return 0") == "ok", "another tree"


@pytest.mark.parametrize("line", ["4 return items[2]", "please help"])
def test_the_third_equal_line_that_is_refused_ends_an_episode(
    line: str, make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    task = make_task("second")
    compact = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer), task.id)
    assert [compact.act(each) is None for each in (line, "undo", line, "find items", line)] == [False] * 4 + [True]
    assert compact.episode().end is EpisodeEnd.REPEATS
    assert compact.transcript().turns[-1] == Turn(line)


def test_an_answer_of_one_turn_is_an_episode_of_one_action(make_task: Callable[[str], Task], scorer: Scorer) -> None:
    task = make_task("second")
    compact = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(turns=1)), task.id)
    answer = prompt_of(task).reference_answer()
    assert compact.act(answer) is None
    assert compact.episode().patch == prompt_of(task).patch(answer)
    assert compact.transcript() == Transcript.of_answer(prompt_of(task).text, answer)


@pytest.mark.parametrize("line", ["test", "open library.py"])
def test_an_action_at_the_very_moment_when_time_runs_out_is_no_step(
    line: str, make_task: Callable[[str], Task], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("second")
    compact = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer), task.id)
    session = compact.environment.session
    looks = iter([False])
    monkeypatch.setattr(session, "is_over", lambda: next(looks, True))
    assert compact.act(line) is None
    assert session.steps == []
