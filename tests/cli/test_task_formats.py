"""`regrade tasks export`, `regrade tasks import` and `regrade export`: messages, notes, and what a failure leaves."""

from __future__ import annotations

import json
import subprocess

import pytest

TASK = {
    "id": "calc/1",
    "instruction": "add() subtracts",
    "fail_to_pass": ["tests/test_calc.py::test_add"],
    "pass_to_pass": ["tests/test_calc.py::test_double"],
    "requirements": ["pytest==9.0.0"],
}


@pytest.fixture
def own(repo, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([{**TASK, "repository": str(repo)}]))
    return path


@pytest.mark.parametrize("form", ["swe-bench", "harbor"])
def test_an_exported_folder_is_a_source_of_tasks(regrade, own, tmp_path, form):
    outcome = regrade("tasks", "export", own, "--format", form, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "1 " in outcome.out
    listed = json.loads(regrade("tasks", "list", tmp_path / "out", "--json").out)
    assert (listed["fail_to_pass"], listed["pass_to_pass"]) == (1, 1)
    assert listed["id"].startswith("calc-1-")
    again = regrade("tasks", "export", tmp_path / "out", "--format", form, "--out", tmp_path / "again")
    assert again.code == 0, again.err


def test_instances_become_a_task_set_and_a_note_names_what_was_left_out(regrade, repo, tmp_path):
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Base"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    row = {
        "instance_id": "acme__calc-1",
        "repo": "acme/calc",
        "base_commit": head,
        "problem_statement": "add() subtracts",
        "FAIL_TO_PASS": TASK["fail_to_pass"],
        "PASS_TO_PASS": [*TASK["pass_to_pass"], "[100%]"],
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "map.json").write_text(json.dumps({"acme/calc": str(repo)}))
    options = ("--repositories", tmp_path / "map.json", "--out", tmp_path / "set")
    outcome = regrade("tasks", "import", tmp_path / "rows.jsonl", *options)
    assert outcome.code == 0, outcome.err
    assert "[100%]" in outcome.err
    assert "1 task; next, regrade tasks validate" in outcome.out
    listed = json.loads(regrade("tasks", "list", tmp_path / "set", "--json").out)
    assert (listed["id"], listed["repository"], listed["pass_to_pass"]) == ("acme__calc-1", "acme/calc", 1)
    unknown = regrade("tasks", "import", tmp_path / "rows.jsonl", *options, "--instance", "acme__calc-2")
    assert unknown.is_refusal("acme__calc-2", "acme__calc-1")


def test_a_failed_import_or_export_writes_nothing(regrade, own, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instance_id": "a", "repo": "acme/calc", "base_')
    assert regrade("tasks", "import", rows, "--out", tmp_path / "set").is_refusal("rows.jsonl:1", "not JSON")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 half")
    half = regrade("tasks", "import", tmp_path / "rows.parquet", "--out", tmp_path / "set")
    assert half.is_refusal("rows.parquet", "complete Parquet file")
    assert not (tmp_path / "set").exists()
    outcome = regrade("tasks", "export", own, "--format", "harbor", "--out", own.parent)
    assert outcome.is_refusal("no Harbor task")
    outcome = regrade("export", tmp_path / "run", "--format", "swe-bench", "--out", tmp_path / "out")
    assert outcome.is_refusal("is not a run")
    assert not (tmp_path / "out").exists()
