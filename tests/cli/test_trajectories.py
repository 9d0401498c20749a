"""`regrade export` and `regrade rescore --tasks`: trajectories as ATIF, and judged again by execution."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regrade.cli.main import app
from regrade.datasets.patches import Patch
from regrade.datasets.trajectories.reading import read_trajectories

BEFORE, AFTER = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return a + b\n"
TEST = "from calculator import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
FIX = Patch.between({"calculator.py": BEFORE}, {"calculator.py": AFTER}).text


def trajectory(instance: str, submission: str | None) -> str:
    value = {
        "trajectory_format": "mini-swe-agent-1.1",
        "instance_id": instance,
        "info": {"exit_status": "Submitted", "submission": submission, "config": {"model": {"model_name": "m"}}},
        "messages": [
            {"role": "user", "content": "Fix add."},
            {"role": "assistant", "content": "```bash\nls\n```"},
            {"role": "user", "content": "calculator.py"},
        ],
    }
    return json.dumps(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task, three attempts at it (a fix, nothing, an unknown patch), and one at another task."""
    root = tmp_path_factory.mktemp("trajectories")
    (root / "repository" / "tests").mkdir(parents=True)
    (root / "repository" / "calculator.py").write_text(BEFORE)
    (root / "repository" / "tests" / "test_calculator.py").write_text(TEST)
    failing = ["tests/test_calculator.py::test_add"]
    task = {
        "id": "add",
        "instruction": "Fix add.",
        "repository": "repository",
        "fail_to_pass": failing,
        "pass_to_pass": [],
    }
    (root / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    (root / "attempts").mkdir()
    for name, instance, patch in (("a", "add", FIX), ("b", "add", ""), ("c", "add", None), ("d", "other", FIX)):
        (root / "attempts" / f"{name}.traj.json").write_text(trajectory(instance, patch))
    return root


def test_trajectories_are_judged_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRADE_CACHE", str(folder / "cache"))
    arguments = ["rescore", str(folder / "attempts"), "--tasks", str(folder / "tasks.jsonl"), "--reward", "resolved"]
    ran = CliRunner().invoke(app, [*arguments, "--out", str(folder / "run"), "--workers", "1"])
    assert ran.exit_code == 0, ran.output
    assert "trajectories of none of the tasks, left out: other" in ran.output
    assert "trajectories without the patch at their end, left out: add" in ran.output
    (rows,) = (folder / "run" / "evaluations").glob("*.jsonl")
    rewards = {row["sample"]: row["reward"] for row in map(json.loads, rows.read_text().splitlines())}
    assert rewards == {0: 1.0, 1: 0.0}
    ran = CliRunner().invoke(app, ["export", str(folder / "run"), "--format", "atif", "--out", str(folder / "atif")])
    assert ran.exit_code == 0, ran.output
    written = sorted((folder / "atif").glob("*.json"))
    assert [read_trajectories(path)[0].instance for path in written] == ["add", "add"]
    assert {read_trajectories(path)[0].episode.patch.text for path in written} == {FIX, ""}


def test_foreign_trajectories_are_exported(folder: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        app, ["export", str(folder / "attempts"), "--format", "atif", "--out", str(tmp_path / "atif")]
    )
    assert ran.exit_code == 0, ran.output
    first = json.loads((tmp_path / "atif" / "add.json").read_text())
    assert first["schema_version"] == "ATIF-v1.7"
    assert (first["agent"]["name"], first["agent"]["model_name"]) == ("mini-swe-agent", "m")
    assert first["steps"][1]["tool_calls"][0]["arguments"] == {"command": "ls"}
    assert len(list((tmp_path / "atif").glob("*.json"))) == 4


def test_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["rescore", str(folder / "attempts"), "--tasks", str(folder / "tasks.jsonl"), "--reward", "tests"], "--out"),
        (["rescore", str(tmp_path), "--tasks", str(folder / "tasks.jsonl"), "--reward", "tests", "--out", "r"], "nothing to judge"),
        (["export", str(tmp_path), "--format", "atif", "--out", str(tmp_path / "none")], "contains no trajectory"),
    ):  # fmt: skip
        ran = CliRunner().invoke(app, arguments)
        assert ran.exit_code != 0
        assert message in f"{ran.output} {ran.exception}"
