"""`regrade explain --hunks`: attribution of a score to the hunks of a patch or of a recorded attempt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_task
from regrade.datasets.tasks import Task
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import COLUMNS
from regrade.evaluators.storage.run import Run

FIX = ("a - b", "a + b")
BREAKS = ("-a", "a")


@pytest.fixture
def task(tasks: Path) -> Task:
    """The task to fix `add`."""
    return load_task(str(tasks), "add")


@pytest.fixture
def two_hunks(task: Task, tmp_path: Path) -> Path:
    """A patch that fixes `add`, breaks `negate` and adds a file."""
    before = {"calc.py": task.base.read("calc.py")}
    text = before["calc.py"].replace(*FIX).replace(*BREAKS)
    path = tmp_path / "two.diff"
    path.write_text(Patch.between(before, {"calc.py": text, "notes.txt": "add adds\n"}).text)
    return path


def explained(regrade: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    outcome = regrade("explain", *arguments, "--hunks", "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.slow
def test_a_patch_is_explained_hunk_by_hunk(regrade, tasks, two_hunks):
    asked = (two_hunks, "--tasks", tasks, "--task", "add")
    found = explained(regrade, *asked)
    plain = json.loads(regrade("explain", *asked, "--assured", "in-process", "--json").out)
    assert {key: found[key] for key in plain} == plain, "the explanation without hunks stays as it is"
    hunks = found["hunks"]
    assert [each["hunks"][0]["name"] for each in hunks["groups"]] == ["calc.py:2", "calc.py:14", "notes.txt (new file)"]
    assert math.fsum(each["value"] for each in hunks["groups"]) == pytest.approx(hunks["difference"], abs=1e-9)
    assert hunks["difference"] == pytest.approx(found["value"] - hunks["nothing"])
    mends, breaks, brings = hunks["groups"]
    assert mends["without"]["no_longer_fixed"] == ["tests/test_calc.py::test_add"]
    assert breaks["without"]["no_longer_broken"] == ["tests/test_calc.py::test_negate"]
    assert abs(brings["value"]) < 0.01
    assert (hunks["method"], hunks["smallest_passing"]["hunks"]) == ("exact", ["calc.py:2"])
    assert hunks["cost"]["subsets"] == 8
    text = regrade("explain", *asked, "--hunks").out
    assert "Without it, 1 test is not fixed: tests/test_calc.py::test_add" in text
    assert "Smallest passing part: 1 of 3 hunks, calc.py:2 (proven smallest" in text
    assert "8 subsets, 8 of them from the store" in text
    assert "not the model's intent" in text
    page = regrade("explain", *asked, "--hunks", "--html").out
    assert page.startswith("<section")
    assert "+    return a + b" in page
    assert page.count('<div class="hunk">') == 3


def row_of(task: Task, patch: str) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, "") | {
        "policy": "p", "task": task.id, "repository": "library", "task_digest": task.digest, "patch": patch, "temperature": 0.0, "sample": 0,
        "seed": 0, "empty": not patch, "well_formed": True, "applied": True, "status": "scored", "reward": 0.5, "fix": 1, "fail_to_pass": 1,
        "fixed": 1, "guarded": 3, "broken": 0, "newly_skipped": 0, "broke": 0, "clean_fix": 1, "tampering": 0, "tokens": 1,
        "generation_seconds": 0.0, "execution_seconds": 0.0, "changed_lines": 2, "broken_tests": [], "parts": [],
    }  # fmt: skip


def test_a_recorded_attempt_is_explained_hunk_by_hunk(regrade, tasks, task, two_hunks, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row_of(task, two_hunks.read_text())) + "\n")
    found = explained(regrade, rows, "add", "--tasks", tasks)
    assert found["value"] == 0.5, "the recorded value"
    assert len(found["hunks"]["groups"]) == 3
    rows.write_text(json.dumps({**row_of(task, ""), "task_digest": "of another"}) + "\n")
    assert regrade("explain", rows, "--tasks", tasks, "--hunks").is_refusal("'add' has other files or tests", "--tasks")
    rows.write_text(json.dumps(row_of(task, Patch.between({"calc.py": "x\n"}, {"calc.py": "y\n"}).text)) + "\n")
    assert regrade("explain", rows, "--tasks", tasks, "--hunks").is_refusal("does not apply", "calc.py")
    rows.write_text(json.dumps(row_of(task, "")) + "\n")
    assert explained(regrade, rows, "--tasks", tasks)["hunks"]["groups"] == []


@pytest.mark.slow
def test_the_report_shows_the_attribution_of_an_attempt(regrade, tasks, task, two_hunks, tmp_path):
    folder = tmp_path / "run"
    run = Run(folder)
    run.add_policy("p", "candidate")
    patch = Patch(two_hunks.read_text())
    journal.append(run.evaluation("p"), [row_of(task, patch.text) | {"patch_digest": patch.digest}])
    assert regrade("report", folder).code == 0
    assert "Value of each hunk" not in (folder / "report.html").read_text()
    explained(regrade, folder, "add", "--tasks", tasks)
    assert regrade("report", folder).code == 0
    page = (folder / "report.html").read_text()
    assert page.count("Value of each hunk") == 1
    assert "The reward is &#39;default&#39;." in page
    assert "Without it, 1 test is not broken: tests/test_calc.py::test_negate" in page
    (folder / "hunks.jsonl").write_text('{"task": "add"}\n')
    assert regrade("report", folder).is_refusal("hunks.jsonl, row 1: damaged", "delete that row")


def test_patches_without_an_attribution(regrade, tasks, tmp_path):
    asked = ("--tasks", tasks, "--task", "add", "--hunks")
    (tmp_path / "empty.diff").write_text("")
    outcome = regrade("explain", tmp_path / "empty.diff", *asked)
    assert outcome.code == 0
    assert "is empty" in outcome.err
    assert "The patch has no hunks" in outcome.out
    (tmp_path / "stale.diff").write_text(Patch.between({"calc.py": "x\n"}, {"calc.py": "y\n"}).text)
    assert regrade("explain", tmp_path / "stale.diff", *asked).is_refusal("stale.diff", "does not apply", "calc.py:1")
    (tmp_path / "text.diff").write_text("no diff\n")
    assert regrade("explain", tmp_path / "text.diff", *asked).is_refusal("text.diff", "unified diff")
    assert regrade("explain", tmp_path / "empty.diff", "--fine", *asked[:-1]).is_refusal("--fine needs --hunks")
    outcome = regrade("explain", tmp_path / "empty.diff", *asked, "--fine", "--budget", "7")
    assert outcome.code == 2
    assert "--budget" in outcome.err


def test_the_note_about_finer_hunks_names_the_option(regrade, tasks, task, tmp_path):
    before = {"calc.py": task.base.read("calc.py")}
    text = before["calc.py"].replace(*FIX).replace("a * 2", "2 * a")
    path = tmp_path / "near.diff"
    path.write_text(Patch.between(before, {"calc.py": text}).text)
    found = explained(regrade, path, "--tasks", tasks, "--task", "add", "--reward", "tests")
    assert any("with 2 changes: --fine splits it" in note for note in found["hunks"]["notes"])
