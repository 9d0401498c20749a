"""Which tests judge a patch: files named by the user, deselected tests, import paths, tasks that name no tests."""

from __future__ import annotations

import json
import sys

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Shown, TestSuite
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.chosen_tests import also_collecting
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.evaluators.task_curation.measured_tasks import with_pass_to_pass
from regrade.rewards.evidence import TestRun

CODE = "def one():\n    return 2\n\n\ndef two():\n    return 2\n"
TESTS = "from code_ import one, two\ndef test_one(): assert one() == 1\ndef test_two(): assert two() == 2\n"
OWN = {
    "pyproject.toml": "[tool.pytest.ini_options]\ntestpaths = ['checks']\n",
    "checks/test_own.py": "def test_own(): pass\n",
}


def made(root, tmp_path, *ids, **options):
    return local_task(root, ids, cache=tmp_path / "cache", runs=1, tell=lambda _: None, **options)


@pytest.mark.parametrize("own", [{}, OWN], ids=["no other tests", "beside the configured tests"])
def test_the_file_of_a_fail_to_pass_test_is_collected_whatever_its_name(write_files, tmp_path, own):
    root = write_files({"code_.py": CODE, "tests.py": TESTS, "sub/tests.py": "raise SystemExit\n", **own}).root
    task = made(root, tmp_path, "tests.py::test_one")
    assert task.fail_to_pass == ("tests.py::test_one",)
    assert set(task.pass_to_pass) == {"tests.py::test_two", *(["checks/test_own.py::test_own"] if own else [])}
    fix = Patch.between({"code_.py": CODE}, {"code_.py": CODE.replace("2", "1", 1)})
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        run = scorer.gather([(task, fix)], [TestRun])[0].records[TestRun]
    assert run.resolved
    assert len(run.outcomes) == len(task.pass_to_pass) + 1


def test_without_any_test_the_error_names_the_option(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "tests.py": TESTS}).root
    with pytest.raises(UserError, match=r"no test was found: .*; name the files or folders .* with `tests=PATH`"):
        made(root, tmp_path)
    task = made(root, tmp_path, tests=["tests.py"])
    assert task.pass_to_pass == ("tests.py::test_two",)
    assert task.suite.protects("tests.py")


def test_deselected_tests_and_folders_are_left_out_and_import_paths_are_chosen(write_files, tmp_path):
    root = write_files({
        "lib/code_.py": CODE,
        "test_it.py": TESTS + "def test_three(): pass\n",
        "fuzz/test_slow.py": "raise SystemExit\n",
    }).root  # fmt: skip
    task = made(root, tmp_path, deselect=["fuzz", "test_it.py::test_three"], python_path=["lib"])
    assert task.pass_to_pass == ("test_it.py::test_two",)
    assert task.suite.python_path == ("lib",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"python_path": ["../elsewhere"]}, r"`python_path=.*inside it"),
        ({"python_path": ["/usr"]}, r"`python_path=.*inside it"),
        ({"python_path": ["test_it.py"]}, r"pass a folder"),
        ({"tests": ["missing.py"]}, r"`tests=\"missing.py\"`: .* no such file or folder"),
        ({"deselect": ["missing"]}, r"`deselect=\"missing\"`: .* no such file or folder"),
    ],
)
def test_a_path_outside_of_the_repository_is_refused(write_files, tmp_path, options, words):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS}).root
    with pytest.raises(UserError, match=words):
        made(root, tmp_path, **options)


def test_the_repositorys_own_choice_is_read_and_overridden(write_files, tmp_path):
    table = "[tool.regrade]\ntests = ['tests.py']\npython-path = ['lib']\n"
    root = write_files({"lib/code_.py": CODE, "tests.py": TESTS, "more.py": TESTS, "pyproject.toml": table}).root
    task = made(root, tmp_path)
    assert (task.pass_to_pass, task.suite.python_path) == (("tests.py::test_two",), ("lib",))
    assert made(root, tmp_path, tests=["more.py"]).pass_to_pass == ("more.py::test_two",)


def test_the_repositorys_own_goal_and_limits_are_read_and_overridden(write_files, tmp_path):
    table = "[tool.regrade]\nfail-to-pass = ['test_it.py::test_one']\ntime-limit = 1\ntest-timeout = 30\n"
    slow = "import time\ntime.sleep(1.5)\n"
    root = write_files({"code_.py": CODE, "test_it.py": slow + TESTS, "pyproject.toml": table}).root
    with pytest.raises(UserError, match="stopped at the limit of 1 s"):
        made(root, tmp_path)
    task = made(root, tmp_path, time_limit=60)
    assert (task.fail_to_pass, task.limits.test_seconds) == (("test_it.py::test_one",), 30)
    with pytest.raises(UserError, match="passes already"):
        made(root, tmp_path, "test_it.py::test_two", time_limit=60)
    assert made(root, tmp_path, time_limit=60, test_limit=20).limits.test_seconds == 20


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (f"{'k' * 500} = 1", r"unknown key 'k{56}\.\.\.; known keys"),
        ("time-limit = 0", r"'time-limit' must be a number .*of at least 1"),
        ("test-timeout = '5'", r"'test-timeout' must be a number"),
        ("fail-to-pass = 'all'", r"'fail-to-pass' must be a list of strings"),
        ("test = ['a']", r"pyproject.toml, \[tool.regrade\]: unknown key 'test'; known keys: deselect, "),
        ("tests = 'a'", r"\[tool.regrade\]: 'tests' must be a list of strings"),
        ("python-path = ['..']", r"`python_path=.*inside it"),
    ],
)
def test_a_wrong_table_is_refused(write_files, tmp_path, table, words):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS, "pyproject.toml": f"[tool.regrade]\n{table}\n"}).root
    with pytest.raises(UserError, match=words):
        made(root, tmp_path)


def test_all_stands_for_the_tests_that_fail_in_every_run(write_files, tmp_path):
    unstable = (
        "import os, pytest\n"
        "@pytest.mark.parametrize('x', [os.urandom(8).hex()])\ndef test_random(x): assert 0\n"
        "@pytest.mark.skip\ndef test_skipped(): assert 0\n"
        "@pytest.mark.xfail\ndef test_xfails(): assert 0\n"
    )
    root = write_files({"code_.py": CODE, "test_it.py": TESTS, "test_unstable.py": unstable}).root
    options = {"cache": tmp_path / "cache", "runs": 2, "tell": lambda _: None}
    assert local_task(root, ["all"], **options).fail_to_pass == ("test_it.py::test_one",)
    with pytest.raises(UserError, match=r"has another id in each run \(a random value"):
        local_task(root, ["test_unstable.py::test_random"], **options)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"python_path": ["../x"]}, "'python_path' contains \"../x\": set a path inside the repository"),
        ({"requirements": ["--index-url=x"]}, "'requirements' contains the pip option"),
        ({"repository": "/"}, "'repository' is the root of the file system"),
    ],
)
def test_a_task_file_that_leads_elsewhere_is_refused(write_files, tmp_path, keys, words):
    root = write_files({"code_.py": CODE}).root
    with pytest.raises(UserError) as refused:
        tasks_file(root, tmp_path, **keys)
    assert words in str(refused.value)


def test_a_doubled_key_is_refused(tmp_path):
    (tmp_path / "tasks.jsonl").write_text('{"id": "a", "instruction": "x", "id": "b"}')
    with pytest.raises(UserError, match=r'tasks.jsonl:1: the key "id" occurs twice'):
        load_tasks(tmp_path / "tasks.jsonl")


def tasks_file(root, tmp_path, **keys):
    entry = {"id": "t", "instruction": "fix one", "repository": str(root), "fail_to_pass": ["test_it.py::test_one"]}
    (tmp_path / "tasks.jsonl").write_text(json.dumps({**entry, **keys}) + "\n")
    return load_tasks(tmp_path / "tasks.jsonl")


def test_a_task_file_without_pass_to_pass_guards_the_tests_that_pass(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS}).root
    told = []
    tasks = tasks_file(root, tmp_path)
    with pytest.raises(UserError, match=r"task 't' names no PASS_TO_PASS tests: .*with_pass_to_pass"):
        Scorer(workers=1, cache=tmp_path / "cache").gather([(tasks[0], Patch(""))], [TestRun])
    (task,) = with_pass_to_pass(tasks, runs=1, cache=tmp_path / "cache", tell=told.append)
    assert task.pass_to_pass == ("test_it.py::test_two",)
    assert told == ["1 task without 'pass_to_pass': guarded by the tests that pass at the base (1 test), such as 't'"]
    steps = []
    again = with_pass_to_pass(tasks, runs=1, cache=tmp_path / "cache", progress=lambda *step: steps.append(step))
    assert (again, steps) == ([task], [])
    (part,) = with_pass_to_pass(
        tasks_file(root, tmp_path, shown={"tests": ["test_it.py"]}), runs=1, cache=tmp_path / "cache"
    )
    assert part.shown == Shown(tests=("test_it.py",))
    wrong = tasks_file(root, tmp_path, shown={"tests": ["test_it.py::test_two", "test_it.py::test_three"]})
    with pytest.raises(UserError, match=r"task 't', shown: 'tests' names \"test_it.py::test_three\", which is no test"):
        with_pass_to_pass(wrong, runs=1, cache=tmp_path / "cache")


MANY = "import pytest\nfrom code_ import *\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_one(n):\n    assert one() == 1\n"


def test_a_name_in_a_task_file_stands_for_its_failing_tests_as_on_the_command_line(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "test_it.py": MANY}).root
    (task,) = with_pass_to_pass(tasks_file(root, tmp_path), runs=1, cache=tmp_path / "cache")
    assert task.fail_to_pass == ("test_it.py::test_one[1]", "test_it.py::test_one[2]")
    # As after a random value in an id, too: every patch would count as not fixing it, in silence.
    wrong = tasks_file(root, tmp_path, fail_to_pass=["test_it.py::test_none"])
    with pytest.raises(UserError, match=r"task 't': the repository has no test 'test_it.py::test_none'"):
        with_pass_to_pass(wrong, runs=1, cache=tmp_path / "cache")


def test_a_task_file_uses_the_environment_of_its_repository(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS}).root
    assert tasks_file(root, tmp_path)[0].requirements == ()
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert tasks_file(root, tmp_path)[0].requirements == (str(root / ".venv" / "bin" / "python"),)
    assert tasks_file(root, tmp_path, requirements=[])[0].requirements == ()


@pytest.mark.slow
def test_an_older_pytest_collects_the_other_files_too(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS, "tests/test_more.py": "def test_more(): pass\n"}).root
    tasks = tasks_file(root, tmp_path, requirements=["pytest==8.3.4"])
    (task,) = with_pass_to_pass(tasks, runs=1, cache=tmp_path / "cache")
    assert task.pass_to_pass == ("test_it.py::test_two", "tests/test_more.py::test_more")


def test_an_empty_pass_to_pass_stays_empty_and_is_told(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS}).root
    told = []
    tasks = tasks_file(root, tmp_path, pass_to_pass=[])
    assert with_pass_to_pass(tasks, cache=tmp_path / "cache", tell=told.append) == tasks
    assert tasks[0].pass_to_pass == ()
    (note,) = told
    assert note.startswith("no test is guarded in 1 task, such as 't'")


def test_a_file_below_the_suites_paths_is_not_added_again(write_files):
    tree = write_files({"tests/a.py": TESTS})
    task = also_collecting(also_collecting(TestSuite(), tree, ["tests/a.py::t"]), tree, ["tests/a.py::t"])
    assert task.paths == ("", "tests/a.py")
