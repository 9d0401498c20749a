"""A run as predictions, reports and a summary: what is written is read again by `regrade import`'s own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.predictions import read_predictions
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.exported_results import FILES, PredictionsForm, write_results
from regrade.evaluators.storage.graded_runs import read_graded
from regrade.evaluators.storage.run import Run
from regrade.rewards import default

SOURCE = "def total(prices):\n    return sum(prices) - 1\n\n\ndef cheapest(prices):\n    return min(prices)\n"
TESTS = "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n\n\ndef test_cheapest():\n    assert shop.cheapest([2, 1]) == 1\n"
TARGET, GUARD = "test_shop.py::test_total", "test_shop.py::test_cheapest"
RIGHT = SOURCE.replace("sum(prices) - 1", "sum(prices)")
PATCHES = {"a": RIGHT, "b": SOURCE.replace("min(prices)", "max(prices)"), "c": SOURCE}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real evaluation: a fix, a patch that breaks a test, an empty patch, and a lost attempt at a fourth task."""
    root = tmp_path_factory.mktemp("shop")
    (root / "shop.py").write_text(SOURCE)
    (root / "test_shop.py").write_text(TESTS)
    tasks = [
        Task(
            id=name,
            repository="shop",
            base=Tree(root),
            instruction=f"Mend {name}.",
            fail_to_pass=(TARGET,),
            pass_to_pass=(GUARD,),
        )
        for name in "abcd"
    ]

    def rollout(name: str, text: str, lost: str = "") -> Rollout:
        patch = Patch.between({"shop.py": SOURCE}, {"shop.py": text})
        return Rollout(task_id=name, policy="org/model", temperature=0.0, sample=0, seed=0, patch=patch, lost=lost)

    run = Run(tmp_path_factory.mktemp("runs") / "run")
    run.record_tasks(tasks)
    run.add_policy("org/model", "candidate")
    rollouts = [*(rollout(name, text) for name, text in PATCHES.items()), rollout("d", SOURCE, "the server died")]
    with Scorer(workers=1, cache=tmp_path_factory.mktemp("cache")) as scorer:
        evaluate(rollouts, tasks, scorer, default, run.evaluation("org/model"))
    return run


def content(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("form", ["jsonl", "list", "dict"])
def test_predictions_are_read_as_the_same_patches(run: Run, tmp_path: Path, form: PredictionsForm) -> None:
    (made,) = write_results(run, tmp_path / "out", form)
    (read,) = read_predictions([tmp_path / "out" / made.folder / FILES[form]]).models
    assert read.model == "org-model"
    assert {name: patch.text for name, patch in read.patches.items()} == {
        name: Patch.between({"shop.py": SOURCE}, {"shop.py": text}).text for name, text in PATCHES.items()
    }


def test_the_report_has_each_test_and_the_summary_counts_what_was_lost_apart(run: Run, tmp_path: Path) -> None:
    (made,) = write_results(run, tmp_path / "out")
    report = content(tmp_path / "out" / made.folder / "report.json")
    empty: dict[str, list[str]] = {"success": [], "failure": []}
    assert report["b"] == {
        "patch_is_None": False,
        "patch_exists": True,
        "patch_successfully_applied": True,
        "resolved": False,
        "infra_failure": False,
        "tests_status": {
            "FAIL_TO_PASS": {"success": [], "failure": [TARGET]},
            "PASS_TO_PASS": {"success": [], "failure": [GUARD]},
            "FAIL_TO_FAIL": empty,
            "PASS_TO_FAIL": empty,
        },
    }
    assert report["a"]["resolved"]
    assert (report["d"]["infra_failure"], report["d"]["infra_failure_reason"]) == (True, "the server died")
    summary = content(tmp_path / "out" / made.folder / "summary.json")
    assert summary["schema_version"] == 2
    lists = {key.removesuffix("_ids"): names for key, names in summary.items() if key.endswith("_ids")}
    assert lists == {
        "completed": ["a", "b"],
        "incomplete": ["d"],
        "empty_patch": ["c"],
        "submitted": ["a", "b", "c"],
        "resolved": ["a"],
        "unresolved": ["b"],
        "infra_failure": ["d"],
        "ambiguous_failure": [],
        "error": [],
    }
    assert (summary["total_instances"], summary["resolved_instances"]) == (4, 1)


def test_an_import_of_the_export_finds_the_same_outcomes(run: Run, tmp_path: Path) -> None:
    (made,) = write_results(run, tmp_path / "out")
    graded = read_graded([tmp_path / "out" / made.folder], policies=["again"])
    rows = {row["task"]: (row["fix"], row["broke"], row["clean_fix"]) for row in graded.rows["again"]}
    assert rows == {"a": (1, 0, 1), "b": (0, 1, 0), "c": (0, 0, 0), "d": (None, None, None)}


def test_the_same_run_gives_the_same_bytes_and_other_folders_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two", "two"):
        write_results(run, tmp_path / name)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.json*")} for name in ("one", "two")
    )
    assert one == two
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"contains 'notes.txt'"):
        write_results(run, tmp_path / "mine")
    with pytest.raises(UserError, match="no results"):
        write_results(Run(tmp_path / "empty"), tmp_path / "out")
