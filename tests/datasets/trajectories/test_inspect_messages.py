"""Messages of Inspect's logs, written and read by its own package."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.trajectories.reading import read_trajectories


@pytest.mark.parametrize("log_format", ["eval", "json"])
def test_each_sample_is_a_trajectory(tmp_path: Path, log_format: str) -> None:
    pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageTool
    from inspect_ai.solver import solver
    from inspect_ai.tool import ToolCall, ToolCallError

    def called(name: str, tool: str, **arguments: str) -> ToolCall:
        return ToolCall(id=name, function=tool, arguments=arguments)

    @solver
    def recorded():
        async def solve(state, _generate):
            error = ToolCallError("parsing", "'path' is missing")
            state.messages += [
                ChatMessageAssistant(content="First.", tool_calls=[called("c1", "look", path="a.py")]),
                ChatMessageTool(content="a.py: x = 1", tool_call_id="c1", function="look"),
                ChatMessageAssistant(content="", tool_calls=[called("c2", "look", file="a.py")]),
                ChatMessageTool(content="", tool_call_id="c2", function="look", error=error),
                ChatMessageAssistant(content="", tool_calls=[called("c3", "submit", answer="done")]),
            ]
            return state

        return solve

    task = Task(dataset=[Sample(id="x__x-1", input="Mend it.")], solver=recorded(), name="swe_bench")
    eval(task, model="mockllm/model", log_dir=str(tmp_path), log_format=log_format, display="none")
    (path,) = tmp_path.iterdir()
    (found,) = read_trajectories(path)
    assert (found.instance, found.sample, found.model, found.episode.instruction[:8]) == (
        "x__x-1", 0, "mockllm/model", "Mend it.",
    )  # fmt: skip
    first, wrong, last = found.episode.steps
    assert (first.tool, first.arguments, first.observation, first.action) == (
        "look", {"path": "a.py"}, "a.py: x = 1", "First.",
    )  # fmt: skip
    assert wrong.observation == "'path' is missing"
    assert last.tool == "submit"
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 3)])
    with pytest.raises(UserError):
        read_trajectories(path)
