"""Traits of tasks, independent of any policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task
from regrade.evaluators.analysis.slices import difficulty, distance, slices, traits_of, varying_traits
from regrade.evaluators.storage.run import Run

FILES = {
    "shop/__init__.py": "",
    "shop/orders.py": "from shop import prices\n",
    "shop/prices.py": "from shop import rates\n",
    "shop/rates.py": "import shop.table\n",
    "shop/table.py": "import shop.deep\n",
    "shop/deep.py": "X = 1\n",
    "shop/lonely.py": "X = 1\n",
    "tests/test_orders.py": "import shop.orders\n",
    "tests/test_rates.py": "import shop.rates\n",
}


def changing(*paths: str, lines: int = 1) -> Patch:
    after = {path: "".join(f"Y = {n}\n" for n in range(lines)) for path in paths}
    return Patch.between({path: FILES[path] for path in paths}, after)


@pytest.fixture
def task(write_files) -> Task:
    return Task(
        id="t",
        repository="shop",
        base=write_files(FILES),
        instruction="",
        fail_to_pass=("tests/test_orders.py::t",),
        pass_to_pass=(),
    )


@pytest.mark.parametrize(
    ("paths", "tests", "expected"),
    [
        (["shop/orders.py"], ["tests/test_orders.py"], "1"),
        (["shop/prices.py"], ["tests/test_orders.py"], "2"),
        (["shop/rates.py"], ["tests/test_orders.py"], "3 or more"),
        (["shop/deep.py"], ["tests/test_orders.py"], "3 or more"),
        (["shop/rates.py"], ["tests/test_orders.py", "tests/test_rates.py"], "1"),
        (["shop/prices.py", "shop/orders.py"], ["tests/test_orders.py"], "1"),
        (["shop/lonely.py"], ["tests/test_orders.py"], "unknown"),
        (["tests/test_orders.py"], ["tests/test_orders.py"], "0"),
        (["shop/orders.py"], ["tests/missing.py"], "unknown"),
    ],
)
def test_distance_is_the_shortest_way_of_imports(task: Task, paths, tests, expected: str) -> None:
    asked = replace(task, reference=changing(*paths), fail_to_pass=tuple(f"{path}::t" for path in tests))
    assert distance(asked) == expected


def test_distance_without_a_reference_goes_to_the_target(task: Task) -> None:
    assert distance(task) == "unknown"
    assert distance(replace(task, target=Target("shop/prices.py", "f", 1, 1))) == "2"


def test_difficulty_is_the_field_of_the_task_else_the_size_of_its_reference(task: Task) -> None:
    assert difficulty(task) == "unknown"
    one = replace(task, reference=changing("shop/deep.py"))
    assert difficulty(replace(one, difficulty="15 min - 1 hour")) == "15 min - 1 hour"
    assert difficulty(one) == "one line"
    for lines, words in [(5, "up to 10"), (30, "up to 30"), (31, "more than 30")]:
        sized = replace(one, target=Target("shop/deep.py", "f", 1, lines))
        assert difficulty(sized) == f"one line, function of {words} lines"
    assert difficulty(replace(task, reference=changing("shop/deep.py", lines=9))) == "up to 10 lines"
    assert difficulty(replace(task, reference=changing("shop/deep.py", lines=10))) == "more than 10 lines"
    assert difficulty(replace(task, reference=changing("shop/deep.py", "shop/rates.py"))) == "several files"
    assert difficulty(replace(task, reference=Patch("no diff"))) == "unknown"


def test_a_run_stores_traits_and_those_of_unchanged_tasks_are_reused(task: Task, tmp_path) -> None:
    run = Run(tmp_path / "run")
    first = replace(task, reference=changing("shop/orders.py"), source="mined")
    run.record_tasks([first], traits_of([first], run.tasks()))
    assert run.tasks()["t"]["source"] == "mined"
    known = {"t": {**run.tasks()["t"], "distance": "remembered"}}
    assert traits_of([first], known)["t"]["distance"] == "remembered"
    assert traits_of([replace(first, pass_to_pass=("x",))], known)["t"]["distance"] == "1"
    other = replace(task, id="u", repository="other")
    run.record_tasks([other], traits_of([other], run.tasks()))
    assert list(run.tasks()) == ["t", "u"], "those of another evaluation stay"


def test_slices_share_out_the_rows_in_order(task: Task) -> None:
    del task
    rows = pd.DataFrame({"task": ["a", "b", "c", "d", "a"], "repository": ["r", "r", "s", "s", "r"], "n": range(5)})
    tasks: Mapping[str, Mapping[str, str]] = {
        "a": {"distance": "3 or more", "source": "x"}, "b": {"distance": "1", "source": "x"}, "c": {"distance": "2", "source": "x"},
        "d": {"source": "x"},
    }  # fmt: skip
    found = slices(rows, tasks, "distance")
    assert {value: part["n"].tolist() for value, part in found.items()} == {
        "1": [1], "2": [2], "3 or more": [0, 4], "unknown": [3]
    }  # fmt: skip
    assert list(found) == ["1", "2", "3 or more", "unknown"]
    assert list(varying_traits(rows, tasks)) == ["repository", "distance"]
