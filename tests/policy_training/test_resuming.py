"""A training that is killed goes on, to the same numbers, and is refused with other settings."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.resuming import ResumePoints
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    SFTSettings,
)

STEPS, EVERY = 6, 3
"""So that a state falls within an epoch of the data, and between the steps that share one generation."""
TWO = {"prompts_per_step": 1, "samples_per_prompt": 4, "steps_per_generation": 2, "learning_rate": 1e-3}
AGENT = AgentFormat(EpisodeLimits(turns=3, test_runs=1), max_tokens=120)
PLANS: dict[str, dict[str, Any]] = {
    "sft": {"settings": SFTSettings(batch_size=1, learning_rate=1e-3)},
    "expert-iteration": {
        "settings": ExpertIterationSettings(sampling=Sampling(1.0, 12), sft=SFTSettings(batch_size=1))
    },
    "grpo-agent": {"settings": OnlineSettings(algorithm="grpo", **TWO), "agent": AGENT},
    "rloo": {"settings": OnlineSettings(algorithm="rloo", **TWO)},
    "ppo": {"settings": PPOSettings(learning_rate=1e-3, samples_per_prompt=4, epochs=4)},
}
DEATHS = (
    ("regrade.evaluators.storage.run:Run", "log", EVERY + 2, False),  # in a step: a state of step 3, a log of 5
    ("torch", "save", 2, False),  # when half of the second state is written
    ("regrade.policy_training.policies.models:LanguageModel", "save", 1, True),  # with all steps done
)
TIMES = ("seconds", "step_time", "waiting_share")

Train = Callable[..., int]


@pytest.fixture(scope="module")
def train_in_child(evidence: Path, tasks: list[Task], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Runs a plan in a process of its own; returns its exit code."""
    program = Path(__file__).with_name("killed_training.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    job = tmp_path_factory.mktemp("jobs") / "job"
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(plan: dict[str, Any], out: Path, death: tuple[Any, ...] | None = None) -> int:
            values = {"plan": plan, "out": out, "death": death, "tasks": tasks, "evidence": evidence}
            job.write_bytes(pickle.dumps(values))
            server.stdin.write(f"{job}\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield run
        server.stdin.close()


def rows(run: Path) -> list[dict[str, Any]]:
    """All logged numbers but times."""
    (path,) = (run / "training").glob("*.jsonl")
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES and not k.endswith("_seconds")} for row in logged]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_killed_training_goes_on_with_the_same_curve(
    undecided_folder: Path, train_in_child: Train, tmp_path: Path, name: str
) -> None:
    plan = {**PLANS[name], "model": str(undecided_folder), "budget": Budget(steps=STEPS)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_in_child(plan, whole) == 0
    plan["resume"] = ResumePoints(every=EVERY)
    for death in DEATHS:
        assert train_in_child(plan, killed, death) == -signal.SIGKILL
    assert [path.name for path in sorted((killed / "trainer").glob("checkpoint-*"))] == ["checkpoint-3", "checkpoint-6"]
    assert train_in_child(plan, killed) == 0
    assert rows(killed) == rows(whole)
    assert [row["step"] for row in rows(killed) if "loss" in row] == list(range(1, STEPS + 1))
    weights = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*.safetensors")}
    assert len(weights) == 1 + (name == "ppo")
    for path, expected in weights.items():
        assert (killed / path).read_bytes() == expected, path
    assert not list((killed / "trainer").glob("checkpoint-*"))
