"""`regrade rank`: patches of one task by a reward model, without execution, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")

from regrade.datasets.tasks import Task
from tests.policy_training.conftest import tokenizer  # noqa: F401 (a fixture)
from tests.policy_training.reward_models.conftest import (  # noqa: F401 (fixtures)
    BREAKING,
    RIGHT,
    WRONG,
    attempts,
    base_folder,
    model_folder,
    patch_of,
    sums,
)  # fmt: skip


@pytest.fixture
def patches(sums: list[Task], tmp_path: Path) -> dict[str, Path]:  # noqa: F811
    """Name -> file of a patch for the first task."""
    files = {}
    for name, body in (("breaking", BREAKING), ("wrong", WRONG), ("right", RIGHT)):
        files[name] = tmp_path / f"{name}.diff"
        files[name].write_text(patch_of(sums[0], body).text)
    return files


def test_it_prints_the_likeliest_fix_first_and_runs_nothing(regrade, sums, model_folder, patches):  # noqa: F811
    asked = ("rank", *patches.values(), "--repo", sums[0].base.root, "--model", model_folder,
             "--instruction", sums[0].instruction, "--fail-to-pass", "test_0.py::test")  # fmt: skip
    rows = [json.loads(line) for line in regrade(*asked, "--json").out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["patch"] == str(patches["right"])
    assert [row["resolved"] for row in rows] == sorted((row["resolved"] for row in rows), reverse=True)
    assert [part["name"] for part in rows[0]["parts"]] == ["fixes", "breaks", "clean"]
    assert rows[0]["model"] == "judge"
    table = regrade(*asked).out
    assert table.index("right.diff") < table.index("wrong.diff")
    assert f"{rows[0]['resolved']:.2f} \N{PLUS-MINUS SIGN} {rows[0]['doubt']:.2f}" in table
    assert "predicted, not executed" in table


def test_refused_patches_are_named_and_the_others_ranked(regrade, sums, model_folder, patches, tmp_path):  # noqa: F811
    bad = tmp_path / "bad.diff"
    bad.write_text("no diff\n")
    asked = ("rank", bad, *patches.values(), "--repo", sums[0].base.root, "--model", model_folder)
    outcome = regrade(*asked, "--json")
    assert outcome.code == 2
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3, None]
    assert rows[-1]["status"] == "refused"
    assert "1 of 4 patches refused" in outcome.err


def test_a_task_file_brings_its_own_instruction(regrade, sums, model_folder, patches, tmp_path):  # noqa: F811
    file = tmp_path / "tasks.jsonl"
    task = {
        "id": "add-0", "instruction": sums[0].instruction, "repository": str(sums[0].base.root),
        "fail_to_pass": ["test_0.py::test"], "pass_to_pass": [],
    }  # fmt: skip
    file.write_text(json.dumps(task))
    asked = ("rank", *patches.values(), "--tasks", file, "--model", model_folder)
    assert len(regrade(*asked, "--json").out.splitlines()) == 3
    assert regrade(*asked, "--instruction", "x").is_refusal("apply to a repository")
