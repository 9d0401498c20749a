"""Processes side by side: each part runs once, and no end of one leaves another behind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.process_identity import is_gone
from regrade.evaluators.evaluation.sweeps import Stage
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.run import Run
from regrade.policy_training.recipe.lanes import run_lanes
from tests.policy_training.recipe.lane_work import (
    NEEDS,
    Shown,
    lanes_of,
    rewrite_manifest,
    wait_until,
    warn_and_log,
    work_at_parts,
    work_until_ended,
)


def test_parts_run_side_by_side_and_once_each(tmp_path: Path) -> None:
    shown = Shown()
    run = Run(tmp_path / "run")
    run_lanes(partial(work_at_parts, tmp_path), 2, shown)
    done = journal.read(tmp_path / "log.jsonl")
    assert sorted(row["part"] for row in done) == sorted(NEEDS)
    assert done[-1]["part"] == "both"
    assert len({row["process"] for row in done} - {os.getpid()}) == 2
    assert {name for name, phase in run.manifest.phases.items() if phase.done} == set(NEEDS)
    assert set(run.manifest.notes) == {f"{part} has begun" for part in NEEDS}
    assert sorted(shown.lines, key=str) == sorted(
        [line for part in NEEDS for line in ((part, 1, 2), (part, None, None))], key=str
    )
    run.remove_locks()
    assert {path.name for path in run.folder.iterdir()} == {"manifest.json"}


def test_two_processes_lose_no_change_of_the_manifest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run_lanes(partial(rewrite_manifest, tmp_path), 2, Shown())
    assert len(run.manifest.notes) == 60


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("user error", UserError, "the input is wrong: give another one"),
        ("defect", RuntimeError, "UnsendableError: 1 and 2"),
    ],
)
def test_an_error_in_one_lane_ends_all(tmp_path: Path, how: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as failed:
        run_lanes(partial(work_until_ended, tmp_path, how), 2, Shown())
    assert str(failed.value) == message
    assert "in work_until_ended" in failed.value.__notes__[0]
    assert (tmp_path / "closed").exists(), "the other one has cleaned up"
    assert [is_gone(lane) for lane in lanes_of(tmp_path)] == [True, True]


def test_a_killed_lane_ends_all_with_one_error(tmp_path: Path) -> None:
    def kill(title: str) -> None:
        if title == "failing":
            failing = max(tmp_path.glob("*-*"), key=lambda path: path.stat().st_mtime_ns)
            os.kill(int(failing.name.partition("-")[0]), signal.SIGKILL)

    with pytest.raises(UserError) as killed:
        run_lanes(partial(work_until_ended, tmp_path, "killed"), 2, Shown(kill))
    assert str(killed.value) == (
        "a process of this run was killed by SIGKILL, while it was at 'failing': run the same command again to resume; "
        "if memory ran out, with `jobs=1`"
    )
    assert (tmp_path / "closed").exists()
    assert [is_gone(lane) for lane in lanes_of(tmp_path)] == [True, True]
    assert multiprocessing.active_children() == []


PROGRAM = """
import sys
from functools import partial
from pathlib import Path
from regrade.policy_training.recipe.lanes import run_lanes
from tests.policy_training.recipe.lane_work import Shown, work_until_ended

run_lanes(partial(work_until_ended, Path(sys.argv[1]), "interrupted"), 2, Shown())
"""


@pytest.mark.parametrize(("number", "is_clean"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_lanes_end_with_their_parent(tmp_path: Path, number: signal.Signals, is_clean: bool) -> None:
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=root, stderr=subprocess.PIPE, start_new_session=True
    ) as parent:
        wait_until(lambda: len(lanes_of(tmp_path)) == 2)
        os.kill(parent.pid, number) if number == signal.SIGKILL else os.killpg(parent.pid, number)
        _, errors = parent.communicate(timeout=300)  # lanes hold the pipe: all have ended
    assert parent.returncode == -number
    wait_until(lambda: all(map(is_gone, lanes_of(tmp_path))))  # init takes a moment to reap them
    assert (tmp_path / "closed").exists() == is_clean
    assert errors.decode().count("Traceback") == is_clean, "that of the parent alone"


def test_warnings_and_logs_are_the_parents(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="regrade"), pytest.warns(UserWarning, match="1.0 of 2 cores"):
        run_lanes(warn_and_log, 2, Shown())
    assert [record.getMessage() for record in caplog.records] == ["3 workers"] * 2


def test_one_lane_is_this_process() -> None:
    def work(stage: Stage) -> None:
        with stage("here") as report:
            report(os.getpid(), 0)

    shown = Shown()
    run_lanes(work, 1, shown)
    assert shown.lines == [("here", os.getpid(), 0), ("here", None, None)]
