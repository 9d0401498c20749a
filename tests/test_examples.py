"""The programs in examples/ work as they stand there, one after another in one process and with one cache."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint_server import serving

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
Example = Callable[..., str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where build_tasks.py writes, and compare_policies.py reads."""
    return tmp_path_factory.mktemp("built") / "tasks"


@pytest.fixture
def example(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Example]:
    """Runs a program of examples/ with arguments; returns what it printed."""
    monkeypatch.setenv("REGRADE_CACHE", str(cache))

    def run(name: str, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield run
    left = {path.name for path in EXAMPLES.rglob("*")} & {"__pycache__", ".pytest_cache", ".regrade"}
    assert not left, "an example wrote into the repository that it judges"


def test_there_is_a_test_of_each_program() -> None:
    text = Path(__file__).read_text("utf-8")
    assert len(PROGRAMS) == 6
    assert [name for name in PROGRAMS if f'example("{name}"' not in text] == []


def test_score_a_patch(example: Example) -> None:
    fix, bold = example("score_a_patch.py").split("\nbold\n")
    assert fix.startswith("fix\n1.000\n")
    assert "breaks 2 of 6 PASS_TO_PASS" in bold


def test_compose_a_reward(example: Example) -> None:
    printed = example("compose_a_reward.py")
    assert "fit for training: True" in printed
    assert "tests: 77% of the reward's variance within the group" in printed


@pytest.mark.filterwarnings("ignore:the plain process is no security boundary")
def test_own_sandbox(example: Example) -> None:
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"] if os.geteuid() == 0 else ["env"]
    name = f"command:{' '.join(command)}"
    assert example("own_sandbox.py", *command).splitlines() == [f"fix in {name}: 1.000", f"bold in {name}: 0.067"]
    with pytest.raises(SystemExit, match=r"error: the command does not start: .*no-such-program"):
        example("own_sandbox.py", "no-such-program")


@pytest.mark.slow
def test_tasks_are_built_and_policies_compared_on_them(example: Example, built: Path) -> None:
    assert "4 candidates, 3 valid tasks" in example("build_tasks.py", built)
    printed = example("compare_policies.py", built)
    assert "no difference shown" in printed, "three tasks show nothing"
    (fixes,) = [line for line in printed.splitlines() if line.startswith("fix_rate: ")]
    assert fixes.startswith("fix_rate: 0.33")


def test_chat_agent(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server that speaks OpenAI's API: it reads, edits, tests and hands in."""
    edit = {"path": "shop/prices.py", "old": "gross * (1 + TAX)", "new": "gross / (1 + TAX)"}
    script = iter([("read_file", {"path": "shop/prices.py"}), ("edit", edit), ("run_tests", {}), ("submit", {})])

    def answer(asked: dict[str, Any]) -> tuple[int, object]:
        assert (asked["model"], asked["path"]) == ("any", "/v1/chat/completions")
        assert "test_net" in json.dumps(asked["messages"])
        name, arguments = next(script)
        function = {"name": name, "arguments": json.dumps(arguments)}
        message = {"role": "assistant", "tool_calls": [{"id": name, "type": "function", "function": function}]}
        return 200, {"choices": [{"message": message}], "usage": {"completion_tokens": 9}}

    monkeypatch.setenv("MODEL", "any")
    with serving(answer) as server:
        printed = example("chat_agent.py", server.url)
    assert "read_file: " in printed
    assert printed.splitlines()[-1] == "submitted: 1.0"
