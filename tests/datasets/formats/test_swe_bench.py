"""Tasks of SWE-bench, SWE-smith and R2E rows, and the instances written of tasks, with real git repositories."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.applying import apply_patch
from regrade.datasets.errors import UserError
from regrade.datasets.formats.swe_bench_export import write_swe_bench
from regrade.datasets.formats.task_files import list_task_file, read_task_file
from regrade.datasets.graded.records import Findings
from regrade.datasets.graded.run_logs import outcome_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree

SHOP = "def total(prices):\n    return sum(prices[1:])\n\n\ndef count(prices):\n    return len(prices)\n"
FIXED = SHOP.replace("prices[1:]", "prices")
TESTS = """import pytest
from shop import count, total


def test_total():
    assert total([1, 2]) == 3


def test_count():
    assert count([1, 2]) == 2


@pytest.mark.parametrize("prices", [[], [1]], ids=["no item", "one"])
def test_counts(prices):
    assert count(prices) == len(prices)
"""
TOTAL, COUNT = "tests/test_shop.py::test_total", "tests/test_shop.py::test_count"
SPACED, ONE = "tests/test_shop.py::test_counts[no item]", "tests/test_shop.py::test_counts[one]"
REFERENCE = Patch.between({"shop.py": SHOP}, {"shop.py": FIXED})
TEST_PATCH = Patch.between({}, {"tests/test_shop.py": TESTS})


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with a clone of `acme/shop`, its first commit (with the bug and no tests) and its second (the fix)."""
    folder = tmp_path_factory.mktemp("clones")
    shop = folder / "acme__shop"
    shop.mkdir()
    git(shop, "init", "--quiet")
    (shop / "shop.py").write_text(SHOP)
    git(shop, "add", ".")
    git(shop, "commit", "--quiet", "-m", "Bug")
    first = git(shop, "rev-parse", "HEAD")
    (shop / "shop.py").write_text(FIXED)
    (shop / "later.py").write_text("SECRET = 1\n")
    git(shop, "add", ".")
    git(shop, "commit", "--quiet", "-m", "Fix")
    return folder, first, git(shop, "rev-parse", "HEAD")


@pytest.fixture
def row(clones: tuple[Path, str, str]) -> dict[str, Any]:
    return {
        "repo": "acme/shop",
        "instance_id": "acme__shop-1",
        "base_commit": clones[1],
        "patch": REFERENCE.text,
        "test_patch": TEST_PATCH.text,
        "problem_statement": "total() ignores the first price",
        "hints_text": "",
        "created_at": "2024-01-01",
        "version": "1.0",
        "FAIL_TO_PASS": json.dumps([TOTAL]),
        "PASS_TO_PASS": json.dumps([COUNT, ONE]),
        "environment_setup_commit": clones[1],
    }


Read = Callable[..., list[Task]]


@pytest.fixture
def read(tmp_path: Path, clones: tuple[Path, str, str]) -> Read:
    def function(*rows: Any, findings: Findings | None = None, suffix: str = ".jsonl") -> list[Task]:
        path = tmp_path / f"rows{suffix}"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in rows) if suffix == ".jsonl" else json.dumps(rows))
        return read_task_file(path, tmp_path / "cache", repositories=clones[0], findings=findings)

    return function


def test_a_row_becomes_a_task_at_its_commit_without_the_history_after_it(row: dict[str, Any], read: Read) -> None:
    (task,) = read(row)
    assert (task.id, task.repository, task.source) == ("acme__shop-1", "acme/shop", "swe-bench")
    assert task.base.paths() == ["shop.py", "tests/test_shop.py"]
    assert (task.base.read("shop.py"), task.base.read("tests/test_shop.py")) == (SHOP, TESTS)
    assert (task.fail_to_pass, task.pass_to_pass) == ((TOTAL,), (COUNT, ONE))
    assert task.reference == REFERENCE
    assert not (task.base.root / ".git").exists()
    as_lists = {**row, "FAIL_TO_PASS": [TOTAL], "PASS_TO_PASS": [COUNT, ONE]}
    assert read(as_lists, suffix=".json")[0].digest == task.digest


def test_no_program_that_a_clone_names_runs_when_its_files_are_exported(
    row: dict[str, Any], clones: tuple[Path, str, str], read: Read, tmp_path: Path
) -> None:
    shop, mark = clones[0] / "acme__shop", tmp_path / "ran"
    program = f"touch {mark}; cat"
    (shop / ".git" / "info").mkdir(exist_ok=True)
    (shop / ".git" / "info" / "attributes").write_text("*.py filter=own\n")
    git(shop, "config", "filter.own.smudge", program)
    git(shop, "config", "core.fsmonitor", program)
    git(shop, "config", "remote.origin.url", "ssh://example.org/shop")
    git(shop, "config", "remote.origin.promisor", "true")
    git(shop, "config", "core.sshCommand", program)
    assert read(row)[0].base.read("shop.py") == SHOP
    with pytest.raises(UserError, match="lacks the commit"):
        read({**row, "base_commit": "1" * 40})
    assert not mark.exists()


def test_a_row_without_pass_to_pass_is_to_be_measured_and_an_empty_list_guards_nothing(
    row: dict[str, Any], read: Read
) -> None:
    (missing,) = read({key: value for key, value in row.items() if key != "PASS_TO_PASS"})
    (empty,) = read({**row, "PASS_TO_PASS": "[]"})
    assert missing.is_unmeasured
    assert not empty.is_unmeasured
    assert empty.pass_to_pass == ()


def test_a_smith_row_plants_its_patch_and_the_reverse_is_the_reference(
    read: Read, clones: tuple[Path, str, str]
) -> None:
    bug = Patch.between({"shop.py": FIXED}, {"shop.py": SHOP})
    smith = {
        "repo": f"swesmith/acme__shop.{clones[2][:8]}",
        "instance_id": f"acme__shop.{clones[2][:8]}.lm_rewrite__1",
        "image_name": "jyangballin/swesmith.x86_64.acme",
        "patch": bug.text,
        "FAIL_TO_PASS": [TOTAL],
        "PASS_TO_PASS": [COUNT],
    }
    (task,) = read(smith)
    assert (task.source, task.repository) == ("swe-smith", "acme/shop")
    assert task.base.read("shop.py") == SHOP
    assert task.reference is not None
    assert apply_patch(task.base, task.reference).read("shop.py") == FIXED


def test_an_r2e_row_takes_its_tests_from_the_logs_before_and_after_the_commit(
    clones: tuple[Path, str, str], tmp_path: Path
) -> None:
    summary = "=== short test summary info ===\n{0} r2e_tests/test_1.py::test_total{1}\nPASSED r2e_tests/test_1.py::test_count\n"
    diffs = [
        {"header": {"file": {"path": "shop.py"}}, "old_file_content": SHOP, "new_file_content": FIXED},
        {"header": {"file": {"path": "tests/test_shop.py"}}, "old_file_content": "", "new_file_content": "x"},
    ]
    execution = {
        "repo_name": "shop",
        "new_commit_hash": clones[2],
        "test_file_codes": [TESTS],
        "test_file_names": ["test_1.py"],
        "old_commit_res_stdout": summary.format("\x1b[31mFAILED\x1b[0m", " - assert 2 == 3"),
        "new_commit_res_stdout": summary.format("PASSED", ""),
    }
    value = {
        "repo_name": "shop",
        "commit_hash": clones[2],
        "docker_image": "namanjain12/shop",
        "parsed_commit_content": json.dumps({"file_diffs": diffs}),
        "execution_result_content": json.dumps(execution),
        "problem_statement": "[ISSUE]\ntotal() is wrong\n[/ISSUE]",
    }
    (tmp_path / "map.json").write_text(json.dumps({"shop": str(clones[0] / "acme__shop")}))
    path = tmp_path / "r2e.json"
    path.write_text(json.dumps([value]))
    (task,) = read_task_file(path, tmp_path / "cache", repositories=tmp_path / "map.json")
    assert (task.source, task.instruction) == ("r2e", "total() is wrong")
    assert task.fail_to_pass == ("r2e_tests/test_1.py::test_total",)
    assert task.pass_to_pass == ("r2e_tests/test_1.py::test_count",)
    assert task.base.paths() == ["r2e_tests/test_1.py", "shop.py"]
    assert task.reference is not None
    assert apply_patch(task.base, task.reference).read("shop.py") == FIXED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FAIL_TO_PASS": f'["{TOTAL}"'}, "FAIL_TO_PASS:1: not JSON"),
        ({"FAIL_TO_PASS": 3}, "'FAIL_TO_PASS' must be a list of strings or a string; found 3"),
        ({"FAIL_TO_PASS": [3]}, "must be a string; found 3"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS is empty"),
        ({"PASS_TO_PASS": [COUNT, COUNT]}, "PASS_TO_PASS has .*listed twice"),
        ({"PASS_TO_PASS": ["tests/test_shop.py::test_counts[no"]}, "cut off"),
        ({"PASS_TO_PASS": ["[100%]"]}, "no test ids"),
        ({"PASS_TO_PASS": ["test_x (shop.tests.T)"]}, "name no file"),
        ({"PASS_TO_PASS": [TOTAL]}, "is in FAIL_TO_PASS and in PASS_TO_PASS"),
        ({"base_commit": None}, "'base_commit' is missing"),
        ({"base_commit": "main"}, 'the base commit is "main"'),
        ({"base_commit": "0" * 40}, "lacks the commit 0000"),
        ({"repo": "acme/other"}, "no clone of 'acme/other'"),
        ({"repo": "../acme"}, "no clone of '../acme'"),
        ({"patch": "I would fix total()"}, "'reference' is not a patch"),
        ({"test_patch": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"}, "does not apply"),
        ({"regrade": "{"}, "not JSON"),
        ({"regrade": {"id": "x"}}, "'regrade' contains 'id'"),
        ({"regrade": {"nonsense": 1}}, "unknown key 'nonsense'"),
    ],
)
def test_a_wrong_row_is_one_clear_line(row: dict[str, Any], read: Read, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(") if "(" in message else message) as caught:
        read({**row, **changes})
    assert "\n" not in str(caught.value)
    assert "rows.jsonl:1" in str(caught.value)


def test_findings_leave_odd_entries_out_and_name_them(row: dict[str, Any], read: Read) -> None:
    findings = Findings()
    odd = {**row, "PASS_TO_PASS": [COUNT, COUNT, "[100%]", "tests/test_shop.py::test_counts[no", "docstring of a test"]}
    lost = {**row, "instance_id": "acme__shop-2", "FAIL_TO_PASS": ["[100%]"]}
    by_name = {**row, "instance_id": "acme__shop-3", "FAIL_TO_PASS": ["test_total"]}
    tasks = read(odd, lost, by_name, findings=findings)
    assert [task.id for task in tasks] == ["acme__shop-1", "acme__shop-3"]
    assert tasks[0].pass_to_pass == (COUNT,)
    assert tasks[1].fail_to_pass == (TOTAL,)  # the test patch changes one file of tests
    assert sorted(findings.counts.values()) == [1, 1, 1, 1, 2]
    assert any("acme__shop-2" in line for line in findings.lines())


def test_rows_are_listed_without_their_repositories(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (entry,) = list_task_file(path)
    assert (entry.id, entry.repository, entry.fail_to_pass, entry.pass_to_pass) == ("acme__shop-1", "acme/shop", 1, 2)
    with pytest.raises(UserError, match="regrade tasks import"):
        load_tasks(path, cache=tmp_path / "cache")


def task_of(folder: Path, **changes: Any) -> Task:
    """A task with everything that a format may lose."""
    (folder / "tests").mkdir(parents=True, exist_ok=True)
    (folder / "shop.py").write_text(FIXED)
    (folder / "tests" / "test_shop.py").write_text(TESTS)
    program = folder / "run.sh"
    program.write_text("true\n")
    program.chmod(0o755)
    fields: dict[str, Any] = {
        "id": "shop/shop.py:total:slice:2:0",
        "repository": "shop",
        "base": Tree(folder).with_files({"shop.py": SHOP}),
        "instruction": "total() ignores the first price: é\n",
        "fail_to_pass": (TOTAL,),
        "pass_to_pass": (SPACED, ONE, COUNT),
        "suite": TestSuite(
            options=("-o", "addopts="), test_files=("tests/test_shop.py",), reach={"shop.py::total": (TOTAL,)}
        ),
        "requirements": ("pytest==9.0.0",),
        "limits": Limits(wall_seconds=33.0),
        "source": "mutation",
        "kind": "slice",
        "target": Target("shop.py", "total", 1, 2),
        "failure": "assert 2 == 3",
        "reference": REFERENCE,
        "shown": Shown(tests=(TOTAL,), names_failing_tests=False),
        "difficulty": "easy",
    }
    return Task(**{**fields, **changes})


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_written_instances_are_read_as_the_same_tasks_and_written_as_the_same_bytes(tmp_path: Path, form: Any) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    task = task_of(tmp_path / "shop")
    write_swe_bench(tmp_path / "one", [task], form)
    (again,) = load_tasks(tmp_path / "one", cache=tmp_path / "cache")
    assert again.digest == task.digest
    for name in (
        "repository",
        "instruction",
        "source",
        "kind",
        "target",
        "failure",
        "reference",
        "shown",
        "difficulty",
    ):
        assert getattr(again, name) == getattr(task, name), name
    assert again.suite.reach == task.suite.reach
    write_swe_bench(tmp_path / "two", [again], form)
    name = f"instances.{form}"
    assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_an_instance_has_the_fields_of_version_5_and_an_id_for_images(tmp_path: Path) -> None:
    made = write_swe_bench(tmp_path / "out", [task_of(tmp_path / "shop")])
    row = json.loads((tmp_path / "out" / "instances.jsonl").read_text())
    assert made.without_space == 1
    assert row["instance_id"].startswith("shop-shop.py-total-slice-2-0-")
    assert row["PASS_TO_PASS"] == [ONE, COUNT]  # its parser cuts ids at a space
    assert row["regrade"]["pass_to_pass"] == [SPACED, ONE, COUNT]
    assert (row["repo"], row["test_patch"], row["eval_type"]) == ("shop/shop", "", "pass_and_fail")
    history = git(tmp_path / "out" / "repositories" / "shop__shop.git", "rev-list", "--all")
    assert history == row["base_commit"]  # one commit, and no fix to find


def test_a_foreign_instance_keeps_its_test_patch_and_its_base(row: dict[str, Any], read: Read, tmp_path: Path) -> None:
    write_swe_bench(tmp_path / "out", read(row))
    written = json.loads((tmp_path / "out" / "instances.jsonl").read_text())
    assert (written["repo"], written["instance_id"]) == ("acme/shop", "acme__shop-1")
    assert (written["test_patch"], written["patch"]) == (TEST_PATCH.text, REFERENCE.text)


@pytest.mark.parametrize("is_fixed", [True, False])
def test_the_evaluation_script_runs_the_tests_of_the_base_whatever_the_patch_did_to_them(
    tmp_path: Path, is_fixed: bool
) -> None:
    write_swe_bench(tmp_path / "out", [task_of(tmp_path / "shop")])
    written = json.loads((tmp_path / "out" / "instances.jsonl").read_text())
    testbed = tmp_path / "testbed"
    git(
        tmp_path,
        "clone",
        "--quiet",
        "--branch",
        written["instance_id"],
        "out/repositories/shop__shop.git",
        str(testbed),
    )
    if is_fixed:
        (tmp_path / "fix.patch").write_text(written["patch"])
        git(testbed, "apply", str(tmp_path / "fix.patch"))
    (testbed / "tests" / "test_shop.py").write_text("def test_total(): pass\n")
    script = tmp_path / "eval.sh"
    script.write_text(written["eval_script"].replace("/testbed", str(testbed)))
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    statuses = outcome_of(done.stdout)
    assert statuses is not None, done.stdout
    assert statuses[TOTAL] == ("PASSED" if is_fixed else "FAILED")
    assert {statuses[test] for test in written["PASS_TO_PASS"]} == {"PASSED"}


def test_a_failed_export_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(tmp_path / "shop")
    write_swe_bench(tmp_path / "out", [task])
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        write_swe_bench(tmp_path / "out", [task])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert not list(tmp_path.glob(".out.*"))


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    task = task_of(tmp_path / "shop")
    with pytest.raises(UserError, match="run by cargo"):
        write_swe_bench(tmp_path / "out", [task_of(tmp_path / "shop", suite=TestSuite(runner="cargo"))])
    with pytest.raises(UserError, match="both become"):
        write_swe_bench(tmp_path / "out", [task_of(tmp_path / "shop", id="a"), task_of(tmp_path / "shop", id="A")])
    with pytest.raises(UserError, match="no task"):
        write_swe_bench(tmp_path / "out", [])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"contains 'notes.txt'"):
        write_swe_bench(tmp_path / "mine", [task])
    assert not (tmp_path / "out").exists()
