"""`regrade agent` on a small repository, with a scripted model behind a real HTTP server."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regrade.cli import agent as command
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task, Tree
from tests.endpoint_server import Answer, Server, serving

FIX = ("edit", {"path": "calc/__init__.py", "old": "a - b", "new": "a + b"})
BREAK = ("edit", {"path": "calc/__init__.py", "old": "a * 2", "new": "a * 3"})
INSTRUCTION = "Sums are wrong: mend add."


def calls(*named: tuple[str, Any]) -> Answer:
    """An answer that calls tools; arguments that are a text are sent as they are."""
    tools = [
        {
            "id": f"call-{number}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for number, (name, given) in enumerate(named)
    ]
    message = {"role": "assistant", "content": "I go on.", "tool_calls": tools}
    return 200, {"choices": [{"message": message}], "usage": {"completion_tokens": 9}}


def scripted(answers: Sequence[Answer], seconds: float = 0.0) -> Any:
    left = iter(answers)
    return serving(lambda _: next(left), seconds)


def arguments(server: Server, repo: Path, out: Path, *more: str) -> list[str]:
    return [
        *("agent", INSTRUCTION, "--repo", str(repo), "--model", "some/model", "--endpoint", server.url),
        *("--out", str(out), *more),
    ]


def test_an_agent_mends_a_repository_before_ones_eyes(regrade, repo, tmp_path):
    answers = [
        calls(("search", {"pattern": "def add"}), ("read_file", {"path": "calc/__init__.py"})),
        calls(FIX),
        calls(("run_tests", {})),
        calls(("submit", {})),
    ]
    with scripted(answers) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out"))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"{repo}: passing tests: 1, failing: 1; some/model at {server.url}"
    steps = [line for line in lines if line.endswith(" s)")]
    assert [line.split()[1] for line in steps] == ["search", "read_file", "edit", "run_tests", "submit"]
    assert 'search  pattern="def add"' in steps[0]
    assert "       0 failed, 2 passed" in done.out
    assert "submitted after 5 steps, 1 test run, 36 tokens" in lines
    assert "+    return a + b" in lines
    assert lines[-5:] == [
        "verdict of all tests: breaks nothing",
        "  passed before and now: 1 of 1 test",
        "  failed before, and pass now: 1 of 1 test",
        "  fixed: tests/test_calc.py::test_add",
        f"patch, trajectory and chat: {tmp_path / 'out'}",
    ]
    assert "\x1b" not in done.out
    assert "a - b" in (repo / "calc" / "__init__.py").read_text(), "the repository itself does not change"
    assert "+    return a + b" in (tmp_path / "out" / "change.diff").read_text()
    trajectory = json.loads((tmp_path / "out" / "trajectory.json").read_text())
    assert [step["tool"] for step in trajectory["steps"]] == ["search", "read_file", "edit", "run_tests", "submit"]
    assert trajectory["instruction"].startswith(INSTRUCTION)
    chat = json.loads((tmp_path / "out" / "chat.json").read_text())
    assert [message["role"] for message in chat[:5]] == ["system", "user", "assistant", "tool", "tool"]
    first = server.requests[0]
    assert (first["model"], first["path"]) == ("some/model", "/v1/chat/completions")
    assert {tool["function"]["name"] for tool in first["tools"]} >= {"edit", "run_tests", "submit"}


def test_a_change_that_breaks_a_test_exits_with_1_and_is_not_applied(regrade, repo, tmp_path):
    with scripted([calls(FIX, BREAK, ("submit", {}))]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out", "--apply", "--json"))
    assert done.code == 1, done.err
    result = json.loads(done.out)
    assert result["fixed"] == ["tests/test_calc.py::test_add"]
    assert result["broken"] == ["tests/test_calc.py::test_double"]
    assert (result["verdict"], result["applied"], result["steps"]) == ("breaks", False, 3)
    assert "not applied, as it breaks tests" in done.err
    assert "a - b" in (repo / "calc" / "__init__.py").read_text()


def test_apply_writes_a_harmless_change_into_the_repository(regrade, repo, tmp_path):
    new = ("edit", {"path": "calc/more/twice.py", "new": "TWICE = 2\n"})
    with scripted([calls(FIX, new, ("submit", {}))]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out", "--apply"))
    assert done.code == 0, done.err
    assert f"applied to {repo}" in done.out
    assert "a + b" in (repo / "calc" / "__init__.py").read_text()
    assert (repo / "calc" / "more" / "twice.py").read_text() == "TWICE = 2\n"


def test_what_the_verdict_does_not_judge_is_not_applied(regrade, repo, tmp_path):
    """Runs use the original tests and configuration, so an edit of them may be anything: also their end."""
    deleted = ("edit", {"path": "tests/test_calc.py", "delete": True})
    settings = ("edit", {"path": "pytest.ini", "new": "[pytest]\nminversion = 6\n"})
    with scripted([calls(FIX, deleted, settings, ("submit", {}))]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out", "--apply"))
    assert done.code == 0, done.err
    assert "verdict of all tests: breaks nothing" in done.out
    assert "not judged, since the original tests and configuration decide: pytest.ini, tests/test_calc.py" in done.out
    assert "not applied, as the verdict does not judge it: pytest.ini, tests/test_calc.py" in done.err
    assert f"applied to {repo}: calc/__init__.py" in done.out.splitlines()
    assert "a + b" in (repo / "calc" / "__init__.py").read_text()
    assert (repo / "tests" / "test_calc.py").exists()
    assert not (repo / "pytest.ini").exists()


def test_a_change_that_tampers_is_not_applied_and_exits_with_1(regrade, repo, tmp_path):
    hook = "import pytest\n\ndef pytest_collection_modifyitems(items):\n    items.clear()\n"
    cheat = ("edit", {"path": "conftest.py", "new": hook})
    with scripted([calls(cheat, ("submit", {}))]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out", "--apply"))
    assert done.code == 1, done.err
    assert "verdict of all tests: tampers" in done.out
    assert "conftest.py:3" in done.out
    assert "not applied, as it has the verdict `tampers`" in done.err
    assert not (repo / "conftest.py").exists()


def test_a_killed_command_has_stored_what_its_agent_did(repo, tmp_path):
    """Not even `kill -9` loses the steps that ended before it."""
    asked = threading.Event()

    def answer(_: object) -> Answer:
        if len(server.requests) < 2:
            return calls(FIX)
        asked.set()
        time.sleep(60)
        return None

    with serving(answer) as server:
        words = arguments(server, repo, tmp_path / "out")
        main = "from regrade.cli.main import main; main()"
        running = subprocess.Popen([sys.executable, "-c", main, *words], stdout=subprocess.DEVNULL)
        assert asked.wait(120)
        running.kill()
        running.wait()
    assert "a + b" in (tmp_path / "out" / "change.diff").read_text()
    trajectory = json.loads((tmp_path / "out" / "trajectory.json").read_text())
    assert [step["tool"] for step in trajectory["steps"]] == ["edit"]


def test_a_disk_that_is_full_costs_no_verdict_and_the_change_is_printed(regrade, repo, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr(command, "_store", full)
    with scripted([calls(FIX, ("submit", {}))]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out"))
    assert done.code == 2
    assert done.err.count("cannot be stored") == 1
    assert "No space left on device" in done.err.splitlines()[-1]
    assert "verdict of all tests: breaks nothing" in done.out
    assert "+    return a + b" in done.out.partition("verdict of all tests")[2]


def test_a_file_that_changed_meanwhile_is_not_overwritten(regrade, repo, tmp_path):
    path = repo / "calc" / "__init__.py"

    def answer(_: object) -> Answer:
        path.write_text(path.read_text() + "\n\nMINE = 1\n")
        return calls(FIX, ("submit", {}))

    with serving(answer) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out", "--apply"))
    assert done.code == 2
    assert "calc/__init__.py changed" in done.err
    assert f"what the agent did so far is in {tmp_path / 'out'}" in done.err
    assert "MINE = 1" in path.read_text()
    assert "a - b" in path.read_text()


def test_all_or_none_of_a_change_is_applied(repo, tmp_path):
    tree = Tree(repo)
    task = Task(id="t", repository="r", base=tree, instruction="", fail_to_pass=(), pass_to_pass=())
    _ = task.digest
    (repo / "link").symlink_to(tmp_path)
    for path in ("link", "link/new.py", "tests/test_calc.py"):
        (repo / "tests" / "test_calc.py").write_text("changed")
        with pytest.raises(UserError, match="so nothing was applied"):
            command.write_changes(task, {"calc/__init__.py": "x", path: "y"}, tmp_path / "change.diff")
    assert (repo / "calc" / "__init__.py").read_text() != "x"
    command.write_changes(task, {"calc/__init__.py": None}, tmp_path / "change.diff")
    assert not (repo / "calc" / "__init__.py").exists()


def test_an_endpoint_that_dies_is_an_error_and_what_was_done_is_kept(regrade, repo, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "TRIES", 1)
    with scripted([calls(FIX), (500, {"error": "down"})]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out"))
    assert done.code == 2
    assert "the endpoint gave no answer" in done.err
    assert "500 down" in done.err
    assert "a + b" in (tmp_path / "out" / "change.diff").read_text()


def test_a_server_without_tool_calls_is_told_apart(regrade, repo, tmp_path):
    refusal = (400, {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice'}})
    with scripted([refusal]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out"))
    assert done.code == 2
    assert "start the server with tool calls" in done.err
    with scripted(["I would look at add.", "Done."]) as server:
        done = regrade(*arguments(server, repo, tmp_path / "out"))
    assert done.code == 0, done.err
    assert "no action could be read from all that the model wrote" in done.out
    assert "nothing was changed" in done.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--format", "compact"], "leave out --endpoint"),
        (["--repo", "nowhere"], "is no folder"),
        (["--key-env", "NO_SUCH_KEY"], "is not set"),
        (["--endpoint", "somewhere"], "is no URL"),
        (["--endpoint", "", "--model", "endpoint:x"], "give its base URL with --endpoint URL"),
    ],
)
def test_bad_options_are_errors_of_one_line(regrade, repo, tmp_path, more, words):
    given = ["agent", INSTRUCTION, "--repo", repo, "--model", "m", "--endpoint", "http://localhost:1/v1", *more]
    assert regrade(*given, "--out", tmp_path / "out").is_refusal(words)
    assert regrade("agent", " ", "--model", "m").is_refusal("the instruction is empty")
