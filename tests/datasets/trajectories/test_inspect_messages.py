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
    from inspect_ai.model import ModelOutput, get_model
    from inspect_ai.solver import basic_agent
    from inspect_ai.tool import tool

    @tool
    def look():
        async def execute(path: str):
            """Look at a file.

            Args:
                path: of the file.
            """
            return f"{path}: x = 1"

        return execute

    outputs = [
        ModelOutput.for_tool_call("mockllm/model", "look", {"path": "a.py"}, content="First."),
        ModelOutput.for_tool_call("mockllm/model", "look", {"file": "a.py"}),
        ModelOutput.for_tool_call("mockllm/model", "submit", {"answer": "done"}),
    ]
    task = Task(dataset=[Sample(id="x__x-1", input="Mend it.")], solver=basic_agent(tools=[look()]), name="swe_bench")
    model = get_model("mockllm/model", custom_outputs=outputs)
    eval(task, model=model, log_dir=str(tmp_path), log_format=log_format, display="none")
    (path,) = tmp_path.iterdir()
    (found,) = read_trajectories(path)
    assert (found.instance, found.sample, found.model, found.episode.instruction[:8]) == (
        "x__x-1", 0, "mockllm/model", "Mend it.",
    )  # fmt: skip
    first, wrong, last = found.episode.steps
    assert (first.tool, first.arguments, first.observation, first.action) == (
        "look", {"path": "a.py"}, "a.py: x = 1", "First.",
    )  # fmt: skip
    assert "path" in wrong.observation
    assert last.tool == "submit"
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 3)])
    with pytest.raises(UserError):
        read_trajectories(path)
