"""ATIF: trajectories of Harbor and NeMo Gym are read; episodes are written, and read back whole.

The last test holds both against the models of the package `harbor`, in an environment of its own; it is skipped where
there is none.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.caches import default_cache
from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.episodes import Episode, EpisodeEnd, SeenTests, Step
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.trajectories.atif_writing import to_atif
from regrade.datasets.trajectories.reading import read_trajectories
from regrade.datasets.trajectories.records import ForeignTrajectory

PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
HARBOR: dict[str, Any] = {
    "schema_version": "ATIF-v1.7",
    "session_id": "s-1",
    "agent": {"name": "terminus-2", "version": "2.0", "model_name": "some/model"},
    "steps": [
        {"step_id": 1, "source": "system", "message": "You are an agent."},
        {"step_id": 2, "source": "user", "message": [{"type": "text", "text": "Fix it."}]},
        {"step_id": 3, "source": "agent", "message": "old", "is_copied_context": True},
        {
            "step_id": 4,
            "source": "agent",
            "message": "Two at once.",
            "reasoning_content": "Look first.",
            "tool_calls": [
                {"tool_call_id": "c1", "function_name": "bash", "arguments": {"command": "ls"}},
                {"tool_call_id": "c2", "function_name": "open", "arguments": {}},
            ],
            "observation": {
                "results": [
                    {"source_call_id": "c2", "content": [{"type": "text", "text": "x = 1"}]},
                    {"source_call_id": "c1", "content": "a.py"},
                    {"content": "(of nobody)"},
                ]
            },
            "metrics": {"completion_tokens": 20},
        },
        {"step_id": 5, "source": "agent", "message": "Done.", "metrics": {"completion_tokens": 3}},
    ],
    "extra": {"model_patch": PATCH},
}
EPISODE = Episode(
    task_id="x__x-1",
    instruction="Fix x.",
    steps=(
        Step("open", {"file": "a.py"}, "x = 1", 0.25, action="open a.py"),
        Step("edit", {"line": 1}, "edited", 0.5, is_change=True, patch_digest=Patch(PATCH).digest),
        Step("run_tests", {}, "1 failed", 2.0, tests=SeenTests(3, ("t.py::test_x",), 0, "assert"), action="run_tests"),
        Step("", {}, "cannot be read", math.nan, is_mistake=True, action="hm"),
    ),
    patch=Patch(PATCH),
    end=EpisodeEnd.SUBMITTED,
    tokens=42,
)


PACKAGE = "harbor==0.26.0"
VERSIONS = ("3.13", "3.12")
VALIDATE = """
import json, sys
from harbor.models.trajectories import Agent, Observation, ObservationResult, Step, ToolCall, Trajectory

for path in sys.argv[2:]:
    made = Trajectory.model_validate_json(open(path, encoding="utf-8").read())
    print(made.schema_version, len(made.steps))
call = ToolCall(tool_call_id="c", function_name="bash", arguments={"command": "ls"})
seen = Observation(results=[ObservationResult(source_call_id="c", content="a.py")])
steps = [
    Step(step_id=1, source="user", message="Fix it."),
    Step(step_id=2, source="agent", message="Look.", tool_calls=[call], observation=seen),
]
agent = Agent(name="terminus", version="1", model_name="m")
inner = Trajectory(schema_version="ATIF-v1.7", trajectory_id="inner", agent=agent, steps=steps)
whole = Trajectory(schema_version="ATIF-v1.7", agent=agent, steps=steps, subagent_trajectories=[inner])
open(sys.argv[1], "w", encoding="utf-8").write(json.dumps(whole.to_json_dict()))
"""


def read_one(path: Path, value: object) -> ForeignTrajectory:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    (found,) = read_trajectories(path)
    return found


def test_calls_and_their_results_become_steps(tmp_path: Path) -> None:
    found = read_one(tmp_path / "x__x-1.json", HARBOR)
    assert (found.instance, found.source, found.model, found.is_patch_known) == ("x__x-1", "atif", "some/model", True)
    episode = found.episode
    assert (episode.instruction, episode.tokens, episode.patch.text) == ("Fix it.", 23, PATCH)
    assert [(step.tool, step.observation) for step in episode.steps] == [
        ("bash", "a.py"),
        ("open", "x = 1\n(of nobody)"),
        ("", ""),
    ]
    assert episode.steps[0].action == "Look first.\nTwo at once."


def test_the_task_is_that_of_the_trial_around_it(tmp_path: Path) -> None:
    value = {key: part for key, part in HARBOR.items() if key != "extra"}
    (tmp_path / "job" / "fix-x__Ab1").mkdir(parents=True)
    (tmp_path / "job" / "fix-x__Ab1" / "result.json").write_text('{"task_name": "org/fix-x", "trial_name": "t"}')
    found = read_one(tmp_path / "job" / "fix-x__Ab1" / "agent" / "trajectory.json", value)
    assert found.instance == "org/fix-x"
    assert not found.is_patch_known


def test_an_episode_survives(tmp_path: Path) -> None:
    written = to_atif(EPISODE, agent="regrade", model="m", version="0.1")
    assert written["schema_version"] == "ATIF-v1.7"
    found = read_one(tmp_path / "any.json", written)
    assert StoredEpisode.of(found.episode).to_json() == StoredEpisode.of(EPISODE).to_json()
    assert (found.instance, found.model) == ("x__x-1", "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": "ATIF-v2.0"}, "ATIF-v1.0 to 1.x"),
        ({"steps": []}, "without `steps`"),
        ({"extra": {"regrade": {"end": "submitted", "patch": "no", "patches": {}}}}, "lacks the patch"),
        ({"extra": {"regrade": {"end": "never"}}}, "not an episode"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_one(tmp_path / "bad.json", {**HARBOR, **change})


def interpreter() -> Path | None:
    """One of a version that harbor needs; None: there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        for place in sorted(pyenv.glob(f"{version}.*/bin/python3")):
            return place
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Path(found)
    return None


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter with harbor's models, cached."""
    base = interpreter()
    if base is None:
        pytest.skip(f"harbor needs Python {' or '.join(VERSIONS)}")
    folder = default_cache() / "contracts" / PACKAGE.replace("==", "-")
    made, ready = folder / "bin" / "python", folder / "ready"
    if not ready.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        commands = (
            [str(base), "-m", "venv", str(folder)],
            [str(made), "-m", "pip", "install", "-q", "--no-deps", PACKAGE],
            [str(made), "-m", "pip", "install", "-q", "pydantic"],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode:
                pytest.skip(f"{PACKAGE} cannot be installed: {(done.stderr.splitlines() or ['?'])[-1]}")
        ready.write_text("")
    return made


@pytest.mark.slow
def test_harbor_reads_what_is_written_and_what_it_writes_is_read(python: Path, tmp_path: Path) -> None:
    nothing = Episode("empty", "", (), Patch(""), EpisodeEnd.ABANDONED)
    files = []
    for number, episode in enumerate((EPISODE, nothing)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(to_atif(episode, agent="regrade", model="m")), "utf-8")
        files.append(str(path))
    of_harbor = tmp_path / "harbor.json"
    done = subprocess.run(
        [str(python), "-c", VALIDATE, str(of_harbor), *files], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ATIF-v1.7", str(len(EPISODE.steps) + 1), "ATIF-v1.7", "1"]
    (found,) = read_trajectories(of_harbor)
    assert [(step.tool, step.observation) for step in found.episode.steps] == [("bash", "a.py")]
    assert (found.episode.instruction, found.model, found.is_patch_known) == ("Fix it.", "m", False)
