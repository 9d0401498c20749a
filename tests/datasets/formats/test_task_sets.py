"""The folder of a task set: what is written is read again, and what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.task_sets import TASKS, SetTask, write_task_set
from regrade.datasets.patches import Patch
from regrade.datasets.sources import list_tasks, load_tasks, load_wrong_fixes
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree

GOOD = "def add(a, b):\n    return a + b\n"
BAD = GOOD.replace("+", "-")
TESTS = ("test_adding.py::test_add", "test_adding.py::test_nothing", "test_other.py::test[é]")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    root = tmp_path / "cache" / "shop-1"
    root.mkdir(parents=True)
    (root / "adding.py").write_text(GOOD)
    (root / "old.py").write_text("1\n")
    suite = TestSuite(
        python_path=("src", "."),
        options=("-p", "x"),
        test_files=("test_adding.py", "test_other.py"),
        doctests=(("a::b", "c"),),
        configuration="",
        reach={"adding.py::add": (TESTS[0], TESTS[2], "test_other.py::test_unstable")},
        imported=frozenset({"b.py::g", "a.py::f"}),
        companions={TESTS[1]: ""},
        seconds={"": 0.5, "test_adding.py": 1.5},
        slow={TESTS[0]: 2.0},
    )
    return Task(
        id="shop/1",
        repository="shop",
        base=Tree(root).with_files({"adding.py": BAD}).without(["old.py"]),
        instruction="Fix it",
        fail_to_pass=TESTS[:1],
        pass_to_pass=TESTS[1:],
        suite=suite,
        requirements=("pytest==9.2.0",),
        limits=Limits(wall_seconds=7.5, test_seconds=3.0),
        source="mutation",
        kind="arithmetic-operator",
        target=Target("adding.py", "add", 1, 2),
        failure=">>> assert",
        reference=Patch.between({"adding.py": BAD}, {"adding.py": GOOD}),
        shown=Shown(tests=("test_adding.py",)),
    )


def write(folder: Path, task: Task) -> Path:
    wrong = Patch.between({"adding.py": BAD}, {"adding.py": GOOD.replace("+", "*")})
    other = replace(task, id="shop/2", fail_to_pass=TESTS[:2], pass_to_pass=TESTS[2:], unnamed=("t::u",))
    members = [SetTask(task, ("t::flaky",), "validation", wrong, {"guards": 2}), SetTask(other, (), "held_out")]
    write_task_set(folder, members, "# Card\n", [])
    return folder


def test_what_is_written_is_read(tmp_path: Path, task: Task) -> None:
    folder = write(tmp_path / "set", task)
    first, second = load_tasks(folder)
    assert (first.digest, first.base.digest) == (task.digest, task.base.digest)
    expected = replace(task.suite, reach={"adding.py::add": (TESTS[0], TESTS[2])})
    assert first.suite == expected
    for name in ("reach", "imported", "companions", "seconds", "slow"):
        assert getattr(first.suite, name) == getattr(expected, name), name
    for name in (
        "id",
        "repository",
        "instruction",
        "limits",
        "source",
        "kind",
        "target",
        "failure",
        "shown",
        "reference",
    ):
        assert getattr(first, name) == getattr(task, name), name
    assert (second.fail_to_pass, second.pass_to_pass, second.unnamed) == (TESTS[:2], TESTS[2:], ("t::u",))
    assert first.suite is second.suite
    assert first.base.root.is_relative_to(folder)
    assert [entry.id for entry in list_tasks(folder, "held_out")] == ["shop/2"]
    assert list(load_wrong_fixes(folder)) == ["shop/1"]
    assert load_wrong_fixes(folder, "held_out") == {}
    assert (folder / "README.md").read_text() == "# Card\n"
    assert [path.name for path in (folder / "suites").iterdir()] == ["shop-1.json"]
    texts = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write(folder, task)  # in place of the earlier one
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == texts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "set"]


def edited_suite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "suites" / "shop-1.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return edit


def edited_task(**keys: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        lines = (folder / TASKS).read_text().splitlines()
        (folder / TASKS).write_text(json.dumps({**json.loads(lines[0]), **keys}))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "suites" / "shop-1.json").unlink(), r"shop-1\.json"),
        (lambda folder: (folder / "suites" / "shop-1.json").write_text("{"), r"shop-1\.json:1: not JSON"),
        (edited_suite(lambda value: value.update(format=9)), "'format' is 9, this version reads 1"),
        (edited_suite(lambda value: value.update(reach={"a": "5-2"})), "reach: 5-2 is an empty range"),
        (edited_suite(lambda value: value.update(reach={"a": "7"})), "reach: .*index out of range"),
        (edited_suite(lambda value: value.update(tests=3)), "'tests' must be a list of strings; found 3"),
        (edited_suite(lambda value: value["suite"].update(options=1)), "'options' must be a list of strings"),
        (edited_task(suite="../suites/shop-1.json"), "set a path below the folder of the task file"),
        (edited_task(options=["-x"]), "'suite' holds python_path, paths, options, requirements and image"),
        (edited_task(fail_to_pass=[]), "'fail_to_pass' is empty"),
        (edited_task(repository="repositories/nowhere"), "is not a folder"),
    ],
)
def test_damage_is_named(tmp_path: Path, task: Task, damage: Callable[[Path], object], message: str) -> None:
    folder = write(tmp_path / "set", task)
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_tasks(folder)
