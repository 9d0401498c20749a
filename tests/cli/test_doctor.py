"""`regrade doctor TASKS`: one line per task, a summary, and exit codes for scripts."""

from __future__ import annotations

import json

import pytest

from regrade.cli.checkup import chosen_tasks


def lines(outcome):
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_healthy_tasks_of_a_file(regrade, tasks):
    outcome = regrade("doctor", tasks, "--runs", 2, "--mutants", 1)
    assert outcome.code == 0
    *each, summary = outcome.out.splitlines()
    assert [line.partition(":")[0] for line in each] == [f"good {name}" for name in ("add", "double", "half", "negate")]
    assert "2 runs agree; 6 of 6 exploits refused; 1 test executes the changed code" in each[0]
    assert summary.startswith("4 of 4 tasks are healthy; ")


def test_a_bad_task_exits_1_with_its_problems(regrade, tasks):
    entries = [json.loads(line) for line in tasks.read_text().splitlines()]
    entries[1]["reference"] = entries[1]["reference"].replace("+    return a * 2", "+    return a * 5")
    tasks.write_text("\n".join(map(json.dumps, entries)))
    outcome = regrade("doctor", tasks, "--json", "--runs", 1, "--mutants", 1)
    assert outcome.code == 1
    found = {line["id"]: line for line in lines(outcome)}
    assert [name for name, line in found.items() if not line["healthy"]] == ["double"]
    (problem,) = found["double"]["problems"]
    assert problem["kind"] == "task"
    assert "test_double" in problem["why"]
    assert found["add"]["reference"] > 0.9
    assert found["add"]["nothing"] == 0.0
    assert found["add"]["functions"] == ["calc.py::add"]
    assert found["add"]["network"] == {}
    assert set(found["add"]["cheats"].values()) <= {"fails", "seen"}


def test_a_repository_with_and_without_its_reference(regrade, repo, fix):
    asked = (
        "doctor",
        "--repo",
        repo,
        "--fail-to-pass",
        "tests/test_calc.py::test_add",
        "--json",
        "--runs",
        1,
        "--mutants",
        2,
    )
    (fixed,) = lines(regrade(*asked, "--reference", fix))
    assert (fixed["healthy"], fixed["resolved"]) == (True, True)
    assert fixed["guards"] == 1
    assert fixed["mutants"] == 2
    (bare,) = lines(regrade(*asked))
    assert bare["healthy"]
    assert bare["reference"] is None


def test_a_limit_draws_tasks_by_the_seed(tasks):
    def drawn(seed):
        return [task.id for task in chosen_tasks([str(tasks)], None, 2, seed, "process")]

    assert drawn(1) == drawn(1)
    assert len(drawn(1)) == 2
    assert len({tuple(drawn(seed)) for seed in range(9)}) > 1
    assert len(chosen_tasks([str(tasks)], None, 9, 0, "process")) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no/such:task"], ["no/such:task", "regrade tasks list"]),
        (["missing.jsonl"], ["no task file", "missing.jsonl"]),
        (["--repo", ".", "builtin"], ["--repo", "builtin"]),
        (["builtin", "--reference", "fix.diff"], ["--reference", "--repo"]),
        (["--fail-to-pass", "tests/test_calc.py"], ["--fail-to-pass", "--repo"]),
        (["--repo", "nowhere"], ["nowhere", "no folder"]),
        (["no/such:task", "--split", "validation"], ["--split"]),
    ],
)
def test_a_task_that_cannot_be_examined_is_one_line(regrade, arguments, words):
    assert regrade("doctor", *arguments).is_refusal(*words)


def test_a_folder_without_recipes_gets_advice_for_a_repository(regrade, repo):
    assert regrade("doctor", repo).is_refusal("contains no recipes", f"--repo {repo}")


def test_a_reference_that_does_not_apply_is_a_user_error(regrade, repo, fix):
    fix.write_text(fix.read_text().replace("a - b", "a ^ b"))
    asked = ("--fail-to-pass", "tests/test_calc.py::test_add", "--reference", fix)
    assert regrade("doctor", "--repo", repo, *asked).is_refusal("does not apply")
