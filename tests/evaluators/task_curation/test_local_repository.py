"""A task of any local repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.execution import warm_start
from regrade.evaluators.execution.run_tests import wall_seconds
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards.evidence import TestRun


@pytest.fixture
def repository(task) -> Path:
    return task.base.root


def make(repository, *ids, cache, **options):
    told = []
    made = local_task(repository, ids, cache=cache, runs=1, tell=told.append, **options)
    return made, told


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("measured")


@pytest.fixture
def cache(repository, task, measured, tmp_path) -> Path:
    """A cache of the test's own, in which the tests of the repository are measured: once for all tests."""
    if not any(measured.iterdir()):
        make(repository, *task.fail_to_pass, cache=measured)
    return shutil.copytree(measured, tmp_path / "cache")


def test_the_passing_tests_are_guarded_and_the_named_ones_wanted(repository, task, fix, cache):
    made, told = make(repository, *task.fail_to_pass, cache=cache)
    assert (made.fail_to_pass, made.pass_to_pass) == (task.fail_to_pass, task.pass_to_pass)
    assert made.failure == "tests/test_calculator.py:6: assert add(1, 2) == 3\nassert -1 == 3\n +  where -1 = add(1, 2)"
    assert made.suite.reach is not None
    assert told == []
    with Scorer(workers=1, cache=cache) as scorer:
        assert scorer.gather([(made, fix)], [TestRun])[0].records[TestRun].resolved


@pytest.mark.usefixtures("own_preparations")
def test_the_first_patch_finds_what_the_runs_at_the_base_prepared(repository, task, fix, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(warm_start, "_fill", None)  # which starts a worker that collects the tests
    made, _ = make(repository, *task.fail_to_pass, cache=cache)
    (prepared,) = (cache / "bytecode").glob("*/*/preparation.json")
    assert "tests/test_calculator.py" in made.suite.test_files
    compiled = {path.name.partition(".")[0] for path in (prepared.parent / "repo").rglob("*.pyc")}
    assert compiled == {"calculator", "test_calculator"}
    with Scorer(workers=1, cache=cache) as scorer:
        assert scorer.gather([(made, fix)], [TestRun])[0].records[TestRun].resolved
        preparation = scorer._worker_pool.preparation(made)
    assert preparation.bytecode == preparation.session == prepared.parent.name


def test_nothing_runs_again_when_nothing_changed(repository, task, tmp_path):
    seen = []
    options = {"cache": tmp_path / "cache", "progress": lambda done, total: seen.append((done, total))}
    first, _ = make(repository, *task.fail_to_pass, **options)
    runs = len(seen)
    again, _ = make(repository, *task.fail_to_pass, **options)
    assert (len(seen), again) == (runs, first)
    (repository / "README").write_text("Changed.\n")
    make(repository, *task.fail_to_pass, **options)
    assert len(seen) == 2 * runs


@pytest.mark.parametrize(
    "damaged",
    [
        lambda text: text.replace("test_add_nothing", "test_add_anything"),
        lambda text: text.partition('"content": ')[2][:-1],  # as it was written before it had a digest
        lambda text: text[:-1],
    ],
    ids=["changed", "old", "cut"],
)
def test_what_was_kept_and_is_damaged_is_measured_again(repository, task, cache, damaged):
    seen = []
    options = {"cache": cache, "progress": lambda done, total: seen.append((done, total))}
    first, _ = make(repository, *task.fail_to_pass, **options)
    assert seen == []
    (kept,) = (cache / "baselines").glob("*.json")
    text = kept.read_text()
    kept.write_text(damaged(text))
    assert kept.read_text() != text
    again = make(repository, *task.fail_to_pass, **options)[0]
    assert replace(again, limits=first.limits) == first, "the limits follow how busy the machine was"
    assert seen
    runs = len(seen)
    make(repository, *task.fail_to_pass, **options)
    assert len(seen) == runs


def test_an_environment_whose_interpreter_is_gone_is_told(repository, task, cache):
    (repository / ".venv" / "bin").mkdir(parents=True)
    (repository / ".venv" / "bin" / "python3").symlink_to("/opt/gone/python3.9")
    (repository / ".venv" / "bin" / "python").symlink_to("python3")
    made, (told,) = make(repository, *task.fail_to_pass, cache=cache)
    assert made.requirements == ()
    assert told.startswith(".venv/bin/python is a link to the missing '/opt/gone/python3.9'")
    assert f"-m venv --clear {repository / '.venv'})" in told


def test_a_baseline_that_can_not_be_stored_is_used_all_the_same(repository, task, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "baselines").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"can't be stored, and is measured again next time"):
        made, _ = make(repository, *task.fail_to_pass, cache=tmp_path / "cache")
    assert made.pass_to_pass == task.pass_to_pass


def test_a_file_or_class_stands_for_its_failing_tests(repository, task, cache):
    made, _ = make(repository, "tests/test_calculator.py", cache=cache)
    assert made.fail_to_pass == task.fail_to_pass


def test_a_test_that_passes_already_is_a_mistake(repository, task, cache):
    with pytest.raises(UserError, match=r"test_add_nothing' passes already"):
        make(repository, task.pass_to_pass[0], cache=cache)


def test_without_any_test_that_passes_there_is_nothing_to_judge_by(write_files, tmp_path):
    tree = write_files({"subject.py": "x = 1\n", "test_it.py": "import subject\ndef test_x(): assert subject.x == 2\n"})
    with pytest.raises(UserError, match=r"none of the 1 tests of the repository passes .* `fail_to_pass=TEST`"):
        make(tree.root, cache=tmp_path / "cache")
    made, _ = make(tree.root, "test_it.py", cache=tmp_path / "cache")
    assert (made.fail_to_pass, made.pass_to_pass) == (("test_it.py::test_x",), ())


def test_pipes_and_sockets_are_no_part_of_the_tree(write_files):
    tree = write_files({"subject.py": "x = 1\n"})
    os.mkfifo(tree.root / "pipe")
    assert tree.paths() == ["subject.py"]
    assert tree.digest == type(tree)(tree.root).digest


def test_a_cache_that_can_not_be_made_is_told_before_anything_runs(repository, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot use the cache folder .*REGRADE_CACHE"):
        make(repository, cache=tmp_path / "file" / "cache")


def test_a_src_layout_and_a_plugin_less_configuration_are_found(write_files, tmp_path):
    tree = write_files({
        "src/package/__init__.py": "x = 1\n",
        "tests/test_it.py": "import package\ndef test_it(): assert package.x == 1\n",
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--cov=package -n auto'\n",
    })  # fmt: skip
    made, _ = make(tree.root, cache=tmp_path / "cache")
    assert made.suite.python_path == ("src", ".")
    assert made.suite.options[-2:] == ("-o", "addopts=")
    assert made.pass_to_pass == ("tests/test_it.py::test_it",)


def test_configured_options_that_pytest_does_not_know_are_tried_once(write_files, tmp_path):
    tree = write_files(
        {
            "test_it.py": "import subject\ndef test_it(): assert subject.x == 1\n",
            "subject.py": "x = 1\n",
            "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--no-such-option'\n",
        }
    )
    seen = []
    options = {"cache": tmp_path / "cache", "progress": lambda done, total: seen.append((done, total))}
    first, _ = make(tree.root, **options)
    assert seen
    seen.clear()
    again, _ = make(tree.root, **options)
    assert seen == []
    assert again.suite == first.suite
    assert again.pass_to_pass == ("test_it.py::test_it",)


def test_a_virtual_environment_of_the_repository_is_used_and_not_copied(repository, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(repository / ".venv")], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(repository / "other")], check=True)
    with pytest.raises(UserError, match=r"\.venv/bin/python' can't import pytest"):
        make(repository, cache=tmp_path / "cache")
    made, _ = make(repository, cache=tmp_path / "cache", python=Path(sys.executable))
    assert made.requirements == (sys.executable,)
    assert not [path for path in made.base.paths() if path.startswith(("other/", ".venv/"))]


def test_a_folder_of_the_product_is_no_environment_by_its_name(repository, task, tmp_path):
    (repository / "shop" / "venv").mkdir(parents=True)
    (repository / "shop" / "venv" / "kinds.py").write_text("KINDS = 3\n")
    made, _ = make(repository, *task.fail_to_pass, cache=tmp_path / "cache")
    assert "shop/venv/kinds.py" in made.base.paths()


def test_links_are_left_out_and_named(repository, task, cache):
    (repository / "linked.py").symlink_to("calculator.py")
    made, told = make(repository, *task.fail_to_pass, cache=cache)
    assert "linked.py" not in made.base.paths()
    assert any("linked.py is a link" in line for line in told)


def test_a_warning_about_a_plugin_that_is_an_error_punishes_no_patch(repository, task, fix, tmp_path):
    pytest.importorskip("anyio.pytest_plugin")
    (repository / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    made, _ = make(repository, *task.fail_to_pass, cache=tmp_path / "cache")
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        assert scorer.gather([(made, fix)], [TestRun])[0].records[TestRun].resolved


def test_a_folder_named_like_a_dependency_does_not_shadow_it(repository, task, fix, tmp_path):
    pytest.importorskip("numpy")
    (repository / "numpy").mkdir()
    (repository / "numpy" / "notes.txt").write_text("data\n")
    tests = repository / "tests" / "test_calculator.py"
    tests.write_text("import numpy as np\n" + tests.read_text() + "\ndef test_numpy():\n    assert np.add(1, 2) == 3\n")
    made, _ = make(repository, *task.fail_to_pass, cache=tmp_path / "cache")
    assert "tests/test_calculator.py::test_numpy" in made.pass_to_pass
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        assert scorer.gather([(made, fix)], [TestRun])[0].records[TestRun].resolved


def test_large_files_are_left_out_and_named(repository, tmp_path):
    with (repository / "data.bin").open("wb") as file:
        file.truncate(51 << 20)
    made, told = make(repository, cache=tmp_path / "cache")
    assert "data.bin" not in made.base.paths()
    assert "data.bin is larger than 50 MB" in told[0]


def test_a_repository_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"missing.* is no folder"):
        make(tmp_path / "missing", cache=tmp_path / "cache")


def test_tests_that_never_end_are_a_mistake_that_names_the_limit(tmp_path):
    (tmp_path / "test_it.py").write_text("import time\ndef test_it(): time.sleep(60)\n")
    with pytest.raises(UserError, match=r"stopped at the limit of 2 s.*; set a longer limit with `time_limit=SECONDS`"):
        local_task(tmp_path, runs=1, cache=tmp_path / "cache", time_limit=2.0)


def test_flaky_tests_are_named_and_not_used(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\ndef test_stable(): pass\n"
        "@pytest.mark.parametrize('seed', range(9))\n"
        "def test_flaky(seed): assert int.from_bytes(os.urandom(1), 'big') % 2\n"
    )
    told = []
    task = local_task(tmp_path, runs=4, cache=tmp_path / "cache", tell=told.append)
    (warning,) = [line for line in told if "pass in some runs only" in line]
    assert "'test_it.py::test_flaky[" in warning
    assert "test_it.py::test_stable" in task.pass_to_pass


def test_the_time_of_a_patch_is_that_of_the_tests_that_it_reaches(tmp_path):
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "test_quick.py").write_text("def test_quick(): pass\n")
    for name in ("one", "two"):
        (repo / f"test_{name}.py").write_text(f"import time\ndef test_{name}(): time.sleep(4)\n")
    task = local_task(repo, runs=1, cache=tmp_path / "cache")
    whole, quick, one = (
        wall_seconds(task, frozenset(tests))
        for tests in (task.pass_to_pass, {"test_quick.py::test_quick"}, {"test_one.py::test_one"})
    )
    assert whole == task.limits.wall_seconds >= 40
    assert 40 <= one <= whole
    # A busy machine makes all limits longer. That of the quick file has the time of the longest test, not of both.
    assert quick <= max(30, whole - 5 * 4 + 1)
