"""Trackers get the numbers of the step log: the real packages, where they are installed."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.tracking import Tracker, check_trackers
from regrade.policy_training.training_plan import TrainingPlan

BLOCK = 32768
WHY = "needs the extra `track`"


def losses(out: Path, tracker: Tracker, model: Path, tasks: list[Task], scorer: Scorer) -> list[float]:
    """Of two steps, as the log has them."""
    plan = TrainingPlan(settings=SFTSettings(), model=str(model), budget=Budget(steps=2), track=[tracker])
    before = dict(os.environ)
    train(plan, tasks, scorer, out)
    assert {key for key in os.environ.keys() - before.keys() if key.startswith(("TENSORBOARD", "WANDB"))} == set()
    return [json.loads(line)["loss"] for line in (out / "training" / "sft.jsonl").read_text().splitlines()]


def test_tensorboard(undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=WHY)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged = losses(tmp_path, "tensorboard", undecided_folder, tasks, scorer)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, pytest.approx(logged[0])), (2, pytest.approx(logged[1]))
    ]  # fmt: skip


def records(data: bytes) -> Iterator[bytes]:
    """Of wandb's file, which is a log of LevelDB: blocks of parts with their length and kind, after seven bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_wandb_offline(undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason=WHY)
    from wandb.proto.wandb_internal_pb2 import Record

    logged = losses(tmp_path, "wandb", undecided_folder, tasks, scorer)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    found = []
    for data in records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        found += [json.loads(values["train/loss"])] if "train/loss" in values else []
    assert found == pytest.approx(logged)


def test_trackio(
    undecided_folder: Path, tasks: list[Task], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason=WHY)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "trackio" and hasattr(module, "TRACKIO_DIR"):  # read when it was imported
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    logged = losses(tmp_path / "my-run", "trackio", undecided_folder, tasks, scorer)
    (path,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select run_name, metrics from metrics order by id").fetchall()
    assert {name for name, _ in rows} == {"my-run"}
    assert [json.loads(text)["train/loss"] for _, text in rows[:2]] == pytest.approx(logged)


def test_a_missing_tracker_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="track is 'mlflow': choose tensorboard, trackio, wandb"):
        check_trackers(["mlflow"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        UserError, match="`track=wandb`: wandb is not installed: run `pip install wandb`, or leave it out"
    ):
        check_trackers(["wandb"])
