"""The user's own task files: what they may say, and what is said when they are wrong."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.task_entries import TaskEntry
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Limits, Shown, Target

GOOD = "def add(a, b):\n    return a + b\n"
BAD = GOOD.replace("+", "-")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    (root / "adding.py").write_text(GOOD)
    return root


def _entry(**more: Any) -> dict[str, Any]:
    return {"repository": "repo", "instruction": "mend it", "fail_to_pass": ["test_adding.py::test_add"], **more}


def _write(folder: Path, value: object, name: str = "tasks.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_every_key_is_read(tmp_path: Path, repository: Path) -> None:
    planted = Patch.between({"adding.py": GOOD}, {"adding.py": BAD})
    fix = Patch.between({"adding.py": BAD}, {"adding.py": GOOD})
    path = _write(
        tmp_path,
        _entry(
            id="one",
            base_patch=planted.text,
            reference=fix.text,
            pass_to_pass=["t::other"],
            failure=">>> add(1, 1)",
            target={"file": "adding.py", "function": "add", "first_line": 1, "last_line": 2},
            python_path=["src"],
            paths=["tests"],
            options=["-x"],
            requirements=["pytest==9.2.0"],
            limits={"wall_seconds": 5, "memory_mb": 100},
            shown={"tests": ["test_adding.py", "t::other"], "names_failing_tests": False},
        ),
    )
    (task,) = load_tasks(path)
    assert (task.id, task.repository, task.instruction) == ("one", "repo", "mend it")
    assert task.base.read("adding.py") == BAD
    assert (repository / "adding.py").read_text() == GOOD
    assert (task.fail_to_pass, task.pass_to_pass) == (("test_adding.py::test_add",), ("t::other",))
    assert task.reference == fix
    assert task.target == Target("adding.py", "add", 1, 2)
    assert (task.suite.python_path, task.suite.paths, task.suite.options) == (("src",), ("tests",), ("-x",))
    assert (task.requirements, task.failure) == (("pytest==9.2.0",), ">>> add(1, 1)")
    assert task.limits == Limits(wall_seconds=5, memory_mb=100)
    assert task.shown == Shown(tests=("test_adding.py", "t::other"), names_failing_tests=False)


@pytest.mark.usefixtures("repository")
def test_a_list_and_lines_hold_the_same_tasks(tmp_path: Path) -> None:
    entries = [_entry(id="a"), _entry(id="b")]
    lines = "\n\n".join(map(json.dumps, entries))
    assert load_tasks(_write(tmp_path, entries)) == load_tasks(_write(tmp_path, lines, "tasks.jsonl"))


@pytest.mark.usefixtures("repository")
def test_ids_default_to_file_and_line(tmp_path: Path) -> None:
    path = _write(tmp_path, f"{json.dumps(_entry())}\n\n{json.dumps(_entry())}\n", "tasks.jsonl")
    assert [task.id for task in load_tasks(path)] == ["tasks.jsonl:1", "tasks.jsonl:3"]


OTHER_BASE = Patch.between({"adding.py": "x\n"}, {"adding.py": "y\n"}).text
OUTSIDE = "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n"
NO_FILE = {"file": "no.py", "function": "f", "first_line": 1, "last_line": 1}
TOO_LONG = {"file": "adding.py", "function": "f", "first_line": 1, "last_line": 9}
WRONG: dict[str, tuple[object, str]] = {
    "not JSON": ('{\n"id": 1,,\n}', r"tasks\.json:2: not JSON"),
    "no object": ([3], "task 1: expected a JSON object, found 3"),
    "no task": ([], "contains no task"),
    "misspelt key": (_entry(fail_to_pas=[]), "unknown key 'fail_to_pas'"),
    "no instruction": (
        {"repository": "repo", "fail_to_pass": ["t"]},
        "'instruction' must be a string .*; the key is missing",
    ),
    "wrong type": (_entry(fail_to_pass="t"), "'fail_to_pass' must be a list of strings; found \"t\""),
    "nothing to mend": (_entry(fail_to_pass=[]), "'fail_to_pass' is empty"),
    "a test twice": (_entry(pass_to_pass=["test_adding.py::test_add"]), "leave it in one"),
    "no folder": (_entry(repository="elsewhere"), "'repository' is \"elsewhere\""),
    "two places": (_entry(package="toolz"), "either 'repository'"),
    "no package": ({"package": "numpy", "instruction": "x", "fail_to_pass": ["t"]}, "no pinned package 'numpy'"),
    "no patch": (_entry(reference="mend it"), "'reference' is not a patch"),
    "empty patch": (_entry(reference=""), "'reference' changes nothing"),
    "patch out of the repository": (_entry(base_patch=OUTSIDE), "leaves the repository"),
    "patch of another base": (_entry(base_patch=OTHER_BASE), "does not apply"),
    "wrong limit": (
        _entry(limits={"wall_seconds": 0}),
        r"limits: 'wall_seconds' must be a number above 0 and at most 1,000,000,000; found 0",
    ),
    "endless limit": (_entry(limits={"wall_seconds": math.inf}), "'wall_seconds' must be"),
    "limit that is no number": (_entry(limits={"wall_seconds": math.nan}), "found NaN"),
    "limit beyond floats": (_entry(limits={"wall_seconds": 10**400}), "'wall_seconds' must be"),
    "limit beyond memory": (_entry(limits={"memory_mb": 10**30}), "'memory_mb' must be an integer of at least 1 and"),
    "number too long": ('{"id": %s}' % ("9" * 5000), "too many digits"),
    "NUL": (_entry(repository="a\0b"), "'repository' must be a string without NUL"),
    "lone surrogate": (_entry(options=["\ud800"]), r"'options\[0\]' must be a string without"),
    "endless name": (_entry(repository="x" * 5000), "is not a folder"),
    "unknown limit": (_entry(limits={"seconds": 1}), "unknown key 'seconds'"),
    "unknown key of what is shown": (_entry(shown={"test": []}), "shown: unknown key 'test'"),
    "shown test of another type": (
        _entry(shown={"tests": "t"}),
        r"shown: 'tests' must be a list of strings; found \"t\"",
    ),
    "shown test that the task lacks": (
        _entry(pass_to_pass=["t::other"], shown={"tests": ["t", "t::another"]}),
        "task 1, shown: 'tests' names \"t::another\", which is no test of the task",
    ),
    "target elsewhere": (_entry(target=NO_FILE), "no file 'no.py'"),
    "target too long": (_entry(target=TOO_LONG), "lines 1 to 9"),
    "the same id": ([_entry(id="a"), _entry(id="a")], "'a' occurs twice"),
}


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_mistake_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    value, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        load_tasks(_write(tmp_path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("repository")
def test_a_missing_git_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, _entry(base_patch=Patch.between({"adding.py": GOOD}, {"adding.py": BAD}).text))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"'base_patch' needs git, which is not installed"):
        load_tasks(path)


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tasks\.jsonl:2: not JSON"):
        load_tasks(_write(tmp_path, "\n{oops}\n", "tasks.jsonl"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no task file or folder"):
        load_tasks(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="contains no recipes"):
        load_tasks(tmp_path)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_tasks(tmp_path / "binary.jsonl")
    (tmp_path / "cut.json.gz").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "corrupt.json.gz").write_bytes(gzip.compress(b"[]" * 50)[:12] + b"\xff" * 20)
    for name in ("cut.json.gz", "corrupt.json.gz"):
        with pytest.raises(UserError, match="cannot read"):
            load_tasks(tmp_path / name)


@pytest.mark.usefixtures("repository")
def test_splits_are_for_recipes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no splits"):
        load_tasks(_write(tmp_path, _entry()), split="validation")
    with pytest.raises(UserError, match="unknown split 'test'"):
        load_tasks(split="test")


def test_the_reference_page_lists_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "task-files.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(TaskEntry.__struct_fields__)
