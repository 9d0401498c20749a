"""A disk that is full while a training writes: one line says so, the last whole state stays, and training goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.resuming import ResumePoints, _WriteStates
from regrade.policy_training.trainers.settings import SFTSettings, StabilitySettings
from regrade.policy_training.training_plan import TrainingPlan

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path, left: int) -> None:
    """Leave so many bytes on its disk."""
    free = os.statvfs(file.parent)
    file.write_bytes(b"x" * (free.f_bavail * free.f_frsize - left))


WHEN = {
    "state": (1, 60_000, "checkpoint-2: the state of the training cannot be written: No space left on device; the last "
              "one, of step 1, is kept. Free space there"),
    "optimizer of a state": (1, 260_000, "checkpoint-2: the state of the training cannot be written: No space left on "),
    "alarm": (2, 60_000, "step-3: the record of an alarm cannot be written: No space left on device; the states of its "),
    "checkpoint": (2, 60_000, "sft: the checkpoint cannot be written: No space left on device; the states of its "),
}  # fmt: skip
"""What cannot be written -> the step of the last state, the bytes that are free after it, and the error."""


@pytest.mark.parametrize("what", WHEN)
def test_a_full_disk_is_named_and_the_last_state_goes_on(
    undecided_folder: Path,
    tasks: list[Task],
    scorer: Scorer,
    tmp_path: Path,
    small: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch says nothing of a full disk: of the optimizer's file it finds that a position in it is unexpected."""
    last, left, said = WHEN[what]
    guard = StabilitySettings(patience=1, loss_factor=1.01 if what == "alarm" else 100.0, max_rollbacks=9)
    plan = TrainingPlan(
        settings=SFTSettings(batch_size=2, learning_rate=0.3), model=str(undecided_folder), budget=Budget(steps=3),
        stability=guard, resume=ResumePoints(every=last),
    )  # fmt: skip
    saved, filler = _WriteStates.on_save, small / "filler"

    def filled(self: _WriteStates, *arguments: Any, **others: Any) -> None:
        saved(self, *arguments, **others)
        fill(filler, left)

    monkeypatch.setattr(_WriteStates, "on_save", filled)
    with pytest.raises(UserError) as caught:
        train(plan, tasks, scorer, small / "run")
    monkeypatch.undo()
    assert f"/{said}" in str(caught.value)
    assert "\n" not in str(caught.value)
    folders = [path.name for path in (small / "run").rglob("*") if path.is_dir()]
    assert [name for name in folders if name.startswith((".", "checkpoint-"))] == [f"checkpoint-{last}"]
    filler.unlink()
    checkpoint = train(plan, tasks, scorer, small / "run")
    whole = train(replace(plan, resume=ResumePoints()), tasks, scorer, tmp_path / "whole")
    assert (checkpoint / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
