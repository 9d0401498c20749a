"""Datasets of preference pairs and SFT examples, loaded by Hugging Face's own library."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt, PatchOrigin
from regrade.policy_training.reward_models.shared_datasets import COLUMNS, SharedKind, write_shared_dataset


def attempt(task: str, number: int, reward: float, *, clean: bool = False) -> LabelledAttempt:
    text = Patch.between({"a.py": "x = 0\n"}, {"a.py": f"x = {number}\n"}).text
    return LabelledAttempt(
        task_id=task,
        repository="sums",
        function=f"a.py::{task}",
        file="a.py",
        instruction=f"Mend {task}.",
        failure="assert 0 == 1",
        fail_to_pass=("test_a.py::test",),
        patch=text,
        labels={Component.CLEAN: clean},
        reward=reward,
        origin=PatchOrigin.SAMPLED,
        policy="model",
    )


ATTEMPTS = [
    attempt(task, number, float(number == 1), clean=number == 1)
    for task in ("t1", "t2", "t3", "t4")
    for number in (1, 2)
]
CHEATS = [replace(attempt("t1", 9, 1.0, clean=True), origin=PatchOrigin.CHEAT)]


@pytest.mark.parametrize("kind", ["preferences", "sft"])
def test_hugging_face_loads_the_folder(tmp_path: Path, kind: SharedKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = write_shared_dataset([*ATTEMPTS, *CHEATS], tmp_path / "set", kind, held_out=0.25)
    assert made.rows == {"train": 3, "test": 1}
    library = pytest.importorskip("datasets.load")
    loaded = library.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == made.rows
    for rows in loaded.values():
        assert rows.column_names == list(COLUMNS[kind])
    (row,) = loaded["test"]
    right = row["chosen"] if kind == "preferences" else row["completion"]
    assert "+x = 1\n" in right
    assert row["prompt"].startswith(f"Mend {row['task_id']}.")
    assert "assert 0 == 1" in row["prompt"]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data" / "train.jsonl").read_text().splitlines()]


def test_a_cheat_is_no_example_and_wins_no_pair(tmp_path: Path) -> None:
    for kind in COLUMNS:
        write_shared_dataset([*ATTEMPTS, *CHEATS], tmp_path / kind, kind)
        assert "x = 9" not in json.dumps(rows_of(tmp_path / kind))
    assert {row["margin"] for row in rows_of(tmp_path / "preferences")} == {1.0}


def test_the_same_attempts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shared_dataset(ATTEMPTS, tmp_path / name / "set", "preferences", per_task=1)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two


def test_attempts_without_a_row_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no task has two attempts with different rewards"):
        write_shared_dataset(ATTEMPTS[:1], tmp_path / "set", "preferences")
    with pytest.raises(UserError, match="no attempt is a clean fix"):
        write_shared_dataset(ATTEMPTS[1:2], tmp_path / "set", "sft")
    assert not (tmp_path / "set").exists()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"contains 'notes.txt'"):
        write_shared_dataset(ATTEMPTS, tmp_path, "sft")
