"""`regrade reward-model`: attempts that are executed once, a model of them, and its test on other repositories."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.labelled_attempts import Component, PatchOrigin, labelled_attempts
from regrade.evaluators.storage.rows import COLUMNS, FLAGS, NUMBERS
from regrade.evaluators.storage.run import Run


@pytest.mark.slow
def test_attempts_are_executed_once_and_are_an_evaluation(regrade, tasks: Path, tmp_path: Path) -> None:
    command = ("reward-model", "attempts", "--tasks", tasks, "--out", tmp_path / "run")
    done = regrade(*command)
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "run")
    found = labelled_attempts(Run.open(tmp_path / "run"))
    origins = {attempt.origin for attempt in found}
    assert origins == {*PatchOrigin} - {PatchOrigin.SAMPLED}
    by_origin = {origin: [a.labels for a in found if a.origin is origin] for origin in origins}
    assert all(labels[Component.CLEAN] for labels in by_origin[PatchOrigin.REFERENCE])
    assert not any(labels[Component.CLEAN] for labels in by_origin[PatchOrigin.CHEAT])
    assert not any(labels[Component.FIXES] for labels in by_origin[PatchOrigin.NO_OP])
    again = regrade(*command)
    assert "executed 0 in" in again.err
    assert regrade("rescore", tmp_path / "run", "--reward", "tests").code == 0
    refused = regrade("reward-model", "train", tmp_path / "run", "--out", tmp_path / "model")
    assert refused.is_refusal("too few clean fixes", "execute more attempts")
    assert not (tmp_path / "model").exists()


def written(folder: Path, repositories: tuple[str, ...], count: int = 700, *, clean: bool | None = None) -> Path:
    """A run with rows of a policy whose patches are clean fixes if they compare with `<=`, nine times in ten."""
    chance, run, rows = random.Random(len(repositories)), Run(folder), []
    for number in range(count):
        repository, task = chance.choice(repositories), chance.randrange(20)
        operator = chance.choice(["<=", ">"])
        patch = f"--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-if a != b:\n+if a {operator} b + {number}:\n"
        fixes = ((operator == "<=") != (chance.random() < 0.1)) if clean is None else clean
        row: dict[str, Any] = {
            **dict.fromkeys(COLUMNS, ""), **dict.fromkeys(NUMBERS, 0), **dict.fromkeys(FLAGS, True),
            "policy": "p", "task": f"{repository}/{task}", "repository": repository, "function": f"m.py::f{task}",
            "file": "m.py", "sample": number, "seed": 0, "task_digest": "d", "patch_digest": Patch(patch).digest,
            "reward_name": "tests", "patch": patch, "status": "scored", "empty": False, "broken_tests": [],
            "parts": [], "fix": int(fixes), "clean_fix": int(fixes), "reward": float(fixes),
        }  # fmt: skip
        rows.append(row)
    run.add_policy("p", "candidate")
    journal.append(run.evaluation("p"), rows)
    return folder


def test_a_static_model_is_trained_and_tested(regrade, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra `static`")
    run = written(tmp_path / "run", ("one", "two", "three", "new"))
    model = tmp_path / "model"
    trained = regrade("reward-model", "train", run, "--out", model, "--held-out", "new", "--json")
    assert trained.code == 0, trained.err
    figures = json.loads(trained.out)
    assert figures["auc"]["low"] > 0.75
    assert (model / "model_card.md").read_text().count("| small diff |") == 2
    other = written(tmp_path / "other", ("new", "one"))
    report = tmp_path / "report.md"
    tested = regrade("reward-model", "test", model, other, "--against", model, "--report", report)
    assert tested.code == 0, tested.err
    assert "attempts at repositories that a model was trained on are left out" in tested.err
    assert tested.out == report.read_text()
    assert "| model |" in tested.out
    seen = written(tmp_path / "seen", ("one",))
    assert regrade("reward-model", "test", model, seen).is_refusal("all attempts are at repositories", "one")


def test_what_teaches_nothing_is_one_line(regrade, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "model")
    empty = Run(tmp_path / "empty").folder
    assert regrade("reward-model", "train", empty, *out).is_refusal("no executed attempts")
    assert regrade("reward-model", "train", tmp_path / "none", *out).is_refusal("is not a run")
    for clean, what in ((True, "clean fixes alone"), (False, "no clean fix")):
        run = written(tmp_path / f"{clean}", ("one", "two"), 60, clean=clean)
        assert regrade("reward-model", "train", run, *out).is_refusal(what)
    assert regrade("reward-model", "train", run, *out, "--held-out", "one", "--held-out", "two").is_refusal(
        "no attempts"
    )
    assert regrade("reward-model", "test", tmp_path / "none", run).is_refusal("holds no reward model")
    assert not (tmp_path / "model").exists()
