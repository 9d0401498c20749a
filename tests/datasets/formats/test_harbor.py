"""Harbor task folders: read back, graded by their own verifier for real, and accepted by Harbor's own loader."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.harbor_export import write_harbor
from regrade.datasets.patches import Patch
from regrade.datasets.sources import list_tasks, load_tasks
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree

HARBOR = "HARBOR_PYTHON"
"""Names an interpreter (Python 3.12 or newer) of an environment with the package `harbor`."""
SHOP = "def total(prices):\n    return sum(prices[1:])\n"
FIXED = SHOP.replace("prices[1:]", "prices")
TESTS = "from shop import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n\n\ndef test_none():\n    assert total([]) == 0\n"
TOTAL, NONE = "tests/test_shop.py::test_total", "tests/test_shop.py::test_none"


def task_at(folder: Path, **changes: Any) -> Task:
    (folder / "tests").mkdir(parents=True)
    (folder / "shop.py").write_text(FIXED)
    (folder / "tests" / "test_shop.py").write_text(TESTS)
    (folder / "tests" / "data.bin").write_bytes(b"\xff\x00")
    fields: dict[str, Any] = {
        "id": 'shop/shop.py "quoted" é',
        "repository": "shop",
        "base": Tree(folder).with_files({"shop.py": SHOP}),
        "instruction": "total() ignores the first price",
        "fail_to_pass": (TOTAL,),
        "pass_to_pass": (NONE,),
        "suite": TestSuite(test_files=("tests/test_shop.py",)),
        "requirements": ("pytest==9.0.0",),
        "limits": Limits(wall_seconds=20.0),
        "source": "mutation",
        "kind": "slice",
        "reference": Patch.between({"shop.py": SHOP}, {"shop.py": FIXED}),
    }
    return Task(**{**fields, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task]:
    folder = tmp_path_factory.mktemp("harbor")
    task = task_at(folder / "shop")
    write_harbor(folder / "tasks", [task])
    return folder / "tasks", task


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode) for path in files}


def test_folders_are_read_as_the_same_tasks_and_written_as_the_same_bytes(
    written: tuple[Path, Task], tmp_path: Path
) -> None:
    folder, task = written
    (again,) = load_tasks(folder)
    assert again.digest == task.digest
    for name in ("repository", "instruction", "source", "kind", "reference", "shown"):
        assert getattr(again, name) == getattr(task, name), name
    write_harbor(tmp_path / "again", [again])
    assert contents(tmp_path / "again") == contents(folder)
    assert [entry.id for entry in list_tasks(next(folder.iterdir()))] == [again.id]


def test_the_configuration_is_of_schema_1_4_and_no_file_of_the_environment_holds_the_fix(
    written: tuple[Path, Task],
) -> None:
    (folder,) = written[0].iterdir()
    configuration = tomllib.loads((folder / "task.toml").read_text())
    assert configuration["schema_version"] == "1.4"
    assert configuration["task"]["name"] == f"regrade/{folder.name}"
    seen = b"".join(content for name, (content, _) in contents(folder).items() if name.startswith(("env", "instr")))
    assert b"sum(prices[1:])" in seen
    assert b"sum(prices)" not in seen


def graded(folder: Path, tmp_path: Path, **files: str) -> dict[str, float] | None:
    """The reward of the verifier for the base with some files written; None: it wrote none."""
    repository, logs = tmp_path / "testbed", tmp_path / "logs"
    shutil.copytree(folder / "environment" / "repository", repository)
    for name, text in files.items():
        path = repository / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    command = [sys.executable, "-I", str(folder / "tests" / "verify.py"), str(repository), str(logs)]
    subprocess.run(command, capture_output=True, check=False)
    reward = logs / "reward.json"
    return json.loads(reward.read_text()) if reward.exists() else None


CHEAT = "import pytest\n\n\n@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n    report.outcome = 'passed'\n    return report\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"shop_py": FIXED}, {"reward": 1.0, "fixed_share": 1.0, "broken_tests": 0.0}),
        ({"shop_py": "def total(prices):\n    return 3\n"}, {"reward": 0.0, "fixed_share": 1.0, "broken_tests": 1.0}),
        (
            {"tests__test_shop_py": "def test_total(): pass\n", "conftest_py": CHEAT},
            {"reward": 0.0, "fixed_share": 0.0, "broken_tests": 0.0},
        ),
        ({"shop_py": "import os\nos._exit(0)\n"}, {"reward": 0.0, "fixed_share": 0.0, "broken_tests": 1.0}),
    ],
    ids=["reference", "breaks", "edits the tests and adds a conftest.py", "exits"],
)
def test_the_verifier_grades_by_the_tests_of_the_base(
    written: tuple[Path, Task], tmp_path: Path, files: dict[str, str], expected: dict[str, float]
) -> None:
    (folder,) = written[0].iterdir()
    assert graded(folder, tmp_path, **files) == expected


def test_an_infrastructure_failure_writes_no_reward(written: tuple[Path, Task], tmp_path: Path) -> None:
    (folder,) = written[0].iterdir()
    copy = tmp_path / "task"
    shutil.copytree(folder, copy)
    (copy / "tests" / "verifier.json").write_text('{"half')
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "reward.json").write_text('{"reward": 1}')
    assert graded(copy, tmp_path, shop_py=FIXED) is None


def test_the_solution_applies_the_reference(written: tuple[Path, Task], tmp_path: Path) -> None:
    (folder,) = written[0].iterdir()
    repository = tmp_path / "testbed"
    shutil.copytree(folder / "environment" / "repository", repository)
    script = tmp_path / "solve.sh"
    shutil.copy(folder / "solution" / "reference.patch", tmp_path)
    script.write_text((folder / "solution" / "solve.sh").read_text().replace("/testbed", str(repository)))
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    subprocess.run(["bash", str(script)], check=True)
    assert (repository / "shop.py").read_text() == FIXED


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("tests/task.json", None, "FAIL_TO_PASS and PASS_TO_PASS tests are unknown"),
        ("tests/suite.json", None, "has no tests/suite.json"),
        ("tests/task.json", '{"id": ', "not JSON"),
        ("tests/task.json", "[]", "expected a JSON object"),
        ("task.toml", "[task\n", "not TOML"),
        ("instruction.md", None, "cannot read"),
    ],
)
def test_an_incomplete_task_is_one_clear_line(
    written: tuple[Path, Task], tmp_path: Path, part: str, text: str | None, message: str
) -> None:
    shutil.copytree(written[0], tmp_path / "tasks")
    (folder,) = (tmp_path / "tasks").iterdir()
    if text is None:
        (folder / part).unlink()
    else:
        (folder / part).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_tasks(tmp_path / "tasks")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_nothing_is_overwritten_that_is_no_harbor_task(written: tuple[Path, Task], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"contains 'notes.txt'"):
        write_harbor(tmp_path, [written[1]])


@pytest.mark.slow
def test_harbors_own_loader_accepts_the_folders(written: tuple[Path, Task]) -> None:
    """`HARBOR_PYTHON=PYTHON make test TESTS=tests/datasets/formats/test_harbor.py`, after `PYTHON -m pip install
    harbor==0.26.0` in an environment of its own: Harbor needs Python 3.12, and other versions of packages."""
    python = os.environ.get(HARBOR)
    if not python:
        pytest.skip(f"${HARBOR} names no interpreter with the package harbor (Python 3.12 or newer)")
    program = (
        "import json, sys\n"
        "from harbor.models.task.task import Task\n"
        "task = Task(sys.argv[1])\n"
        "print(json.dumps([Task.is_valid_dir(sys.argv[1]), task.name, task.instruction, task.config.schema_version,\n"
        "    task.config.verifier.timeout_sec, task.config.environment.workdir, sorted(task.config.metadata),\n"
        "    str(task.paths.discovered_solve_path)]))\n"
    )
    (folder,) = written[0].iterdir()
    done = subprocess.run([python, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    instruction = (folder / "instruction.md").read_text()
    name, solution = f"regrade/{folder.name}", str(folder / "solution" / "solve.sh")
    metadata = ["kind", "repository", "source"]
    assert json.loads(done.stdout) == [True, name, instruction, "1.4", 600.0, "/testbed", metadata, solution]
