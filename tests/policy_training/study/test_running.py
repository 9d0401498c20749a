"""A study with a tiny model: killed in the midst of a cell, it goes on there, and its report has all parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.rollouts import Sampling
from regrade.evaluators.storage.run import Run
from regrade.policy_training.study.cells import cell_folder, cell_states, grid
from regrade.policy_training.study.settings import FULL, StudySettings
from regrade.reports.study_page import write_study_report
from regrade.reports.study_results import load_study

SETTINGS = StudySettings(
    agents=(False, True), demonstrations=(3, 6), tests_only=(3, 6), few=3, seeds=(0,),
    max_prompt_tokens=420, repositories=1, validation=4, held_out=5, sft_steps=4, check_every=2,
    expert_iteration=replace(FULL.expert_iteration, sampling=Sampling(0.8, 4)),
    rounds=1, task_shares=1, round_steps=1, grpo_steps=2, turns=4, test_runs=1, episode_tokens=200, agent_sft_steps=2,
    grpo=replace(FULL.grpo, samples_per_prompt=4, prompts_per_step=2, steps_per_generation=1),
    temperatures=(0.2,), validation_samples=1, held_out_samples=2,
)  # fmt: skip

PROGRAM = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from regrade.policy_training.study.running import run_study
from tests.policy_training.study.test_running import SETTINGS

out, model, last, *cells = sys.argv[1:]

@contextmanager
def stage(title):
    def tell(done, total):
        if title == last and done >= 2:
            os.kill(os.getpid(), signal.SIGKILL)
    print(title, flush=True)
    yield tell

run_study(Path(out), SETTINGS, stage, model=model, cells=cells)
"""


def run(out: Path, model: Path, cache: Path, *cells: str, last: str = "") -> tuple[int, list[str]]:
    """Exit status, and the titles of the stages that were entered. The process kills itself in the stage `last`."""
    return ended(started(out, model, cache, *cells, last=last))


def started(out: Path, model: Path, cache: Path, *cells: str, last: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), str(model), last, *cells], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "REGRADE_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[3],
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    titles, _ = process.communicate()
    return process.returncode, titles.splitlines()


@pytest.mark.slow
def test_a_killed_study_goes_on_where_it_stopped(undecided_folder: Path, tmp_path: Path, packages_cache: Path) -> None:
    out, cache = tmp_path / "study", packages_cache
    status, first = run(out, undecided_folder, cache, "control-d3-n6-s0", last="rl-d3-n6-s0: GRPO")
    assert status == -signal.SIGKILL
    assert [title.partition(":")[0] for title in first[1:]] == ["sft-d3-s0"] * 2 + ["rl-d3-n6-s0"] * 2
    before = Run.open(cell_folder(out, grid(SETTINGS)[1])).manifest.phases["expert iteration"]
    assert before.done

    some = ("sft-d6-*", "rl-d3-*", "control-d3-n6-*", "agent-rl-d3-n6-*")
    both = [started(out, undecided_folder, cache, *some) for _ in range(2)]
    titles = [[title for title in ended(process)[1] if ":" in title] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    shared = [{title.partition(":")[0] for title in mine} for mine in titles]
    assert all(shared), "each process ran some cells"
    assert not shared[0] & shared[1], "no cell was run by both"
    assert "rl-d3-n6-s0: GRPO" in (titles[0][0], titles[1][0])
    assert Run.open(cell_folder(out, grid(SETTINGS)[1])).manifest.phases["expert iteration"] == before
    states = {state.cell.name: state for state in cell_states(out, grid(SETTINGS))}
    assert {name for name, state in states.items() if not state.is_done} == {
        "rl-d6-n6-s0", "control-d6-n6-s0", "control-d3-n3-s0", "agent-control-d3-n6-s0", "agent-sft-d6-s0",
        "agent-rl-d6-n6-s0", "agent-control-d6-n6-s0", "agent-rl-d3-n3-s0", "agent-control-d3-n3-s0",
    }  # fmt: skip
    assert all(state.left is not None for state in states.values())
    assert not any(path.name == "expert-iteration" for path in out.rglob("checkpoints/*"))

    study = load_study(out)
    assert [len(gain.against) for gain in study.gains] == [2, 2, 1]
    agent = next(gain for gain in study.gains if gain.candidate.place.is_agent)
    assert set(agent.against) == {"sft", "once"}
    assert agent.candidate.figures["turns"].n == 5 * 2
    control = Run.open(cell_folder(out, grid(SETTINGS)[2])).manifest.phases["control"].seconds
    of_rl = Run.open(cell_folder(out, grid(SETTINGS)[1])).manifest.phases
    assert control >= of_rl["expert iteration"].seconds + of_rl["grpo"].seconds
    page = write_study_report(out).read_text()
    assert "One turn: over tested tasks" in page
    assert "rl-d3-n3-s0" in page
    assert len(json.loads((out / "study.json").read_text())["points"]) == 7
