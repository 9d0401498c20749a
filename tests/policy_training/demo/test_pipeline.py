"""The main job with a tiny model: killed in the midst of it, it goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from regrade.datasets.rollouts import Sampling
from regrade.evaluators.storage.run import Run
from regrade.policy_training.demo.settings import FULL, DemoSettings
from regrade.policy_training.trainers.settings import RewardModelSettings

SETTINGS = DemoSettings(
    max_prompt_tokens=420, repositories=1, demonstrations=6, tests_only=6, validation=4, held_out=5, scripted=2,
    sft_steps=4, check_every=2, turns=4, test_runs=1, episode_tokens=200, agent_sft_steps=2, expert_iteration=replace(FULL.expert_iteration, sampling=Sampling(0.8, 4)),
    rounds=1, task_shares=1, round_steps=1, grpo_steps=4,
    grpo=replace(FULL.grpo, samples_per_prompt=4, prompts_per_step=2, steps_per_generation=2), upper_bound_steps=1,
    reward_model=RewardModelSettings(attempts=40, members=2), temperatures=(0.2, 0.6),
    validation_samples=1, held_out_samples=2,
)  # fmt: skip

PROGRAM = """
import os, signal, sys, time
from contextlib import contextmanager
from pathlib import Path
from regrade.policy_training.demo.running import run_demo
from tests.policy_training.demo.test_pipeline import SETTINGS

out, model, jobs, last = sys.argv[1:]

@contextmanager
def stage(title):
    def tell(done, total):
        if title == last and done >= 1:
            os.kill(os.getpid(), signal.SIGKILL)
    print("+", title, flush=True)
    yield tell
    print("-", title, flush=True)

run_demo(Path(out), SETTINGS, 3, stage, model=model, jobs=int(jobs))
"""


def run(out: Path, model: Path, cache: Path, jobs: int, last: str = "") -> tuple[int, list[str]]:
    """Exit status, and `+ title` for each stage that was entered, `- title` for each that was left. The process that
    shows them kills itself in the stage `last`; its lanes end before this returns, as they hold its output."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), str(model), str(jobs), last], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "REGRADE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}, check=False,
        cwd=Path(__file__).resolve().parents[3],
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def most_at_once(lines: list[str]) -> int:
    """The largest number of stages that were open at a time."""
    return max(accumulate(1 if line.startswith("+") else -1 for line in lines))


def rows(run: Run) -> list[tuple[str, str, float, int]]:
    return [
        (path.stem, row["task"], row["temperature"], row["sample"])
        for path in sorted(run.evaluation("sft").parent.glob("*.jsonl"))
        for row in map(json.loads, path.read_text().splitlines())
    ]


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_stopped(undecided_folder: Path, tmp_path: Path, packages_cache: Path) -> None:
    out, cache = tmp_path / "demo", packages_cache
    status, first = run(out, undecided_folder, cache, jobs=2, last="GRPO")
    assert status == -signal.SIGKILL
    assert most_at_once(first) == 2
    before = dict(Run.open(out).manifest.phases)
    done = {name for name, phase in before.items() if phase.done}
    assert {"sft", "traces demonstrations", "agent-sft", "expert iteration"} <= done
    assert not {"grpo", "control"} & done, "no process of it goes on"

    status, second = run(out, undecided_folder, cache, jobs=2)
    assert status == 0
    assert "+ SFT" not in second
    assert "+ GRPO" in second
    manifest = Run.open(out).manifest
    assert manifest.phases["sft"] == before["sft"]
    assert all(phase.done for phase in manifest.phases.values())
    of_rl = sum(manifest.phases[name].seconds for name in ("expert iteration", "grpo"))
    assert manifest.phases["control"].seconds >= of_rl
    assert list(manifest.policies)[:5] == ["agent-sft", "control", "sft", "rl", "sft-all"], "whichever was judged first"
    found = rows(Run.open(out))
    assert len(found) == len(set(found)) == 4 * 5 * 2 + 5 + 2 * 2  # policies x tasks x attempts, controls
    assert Run.open(out).training()["grpo"][0]["turns"] > 1, "it plays whole episodes"
    assert not (out / "locks").exists()
