"""Cross-module tasks of a small package: what is shown, and the wrong fix that only another module's tests notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.packages import Package, package
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import list_tasks, load_task, load_tasks, load_wrong_fixes
from regrade.datasets.tasks import Shown
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.cross_module_tasks import build_cross_module
from regrade.rewards.evidence import TestRun

OWN, USER = "toolz/tests/test_amounts.py", "toolz/tests/test_prices.py"
FILES = {
    "toolz/__init__.py": "",
    "toolz/amounts.py": """
def clamp(value, low, high):
    if value < low:
        return low
    return high if value > high else value

def alone(a, b):
    return a - b
""",
    "toolz/prices.py": """
from toolz.amounts import clamp

def reduced(price, percent):
    return price - clamp(percent, 0, 100) * price // 100
""",
    OWN: """
from toolz.amounts import alone, clamp

def test_low():
    assert clamp(1, 2, 5) == 2

def test_between():
    assert clamp(3, 2, 5) == 3

def test_alone():
    assert alone(3, 2) == 1
""",
    USER: """
from toolz.prices import reduced

def test_reduced():
    assert reduced(200, 10) == 180

def test_free():
    assert reduced(200, 150) == 0

def test_nothing():
    pass
""",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Path]:
    """A package of the test's own in the place of a pinned one, and the cache that holds it."""
    cache = tmp_path_factory.mktemp("cache")
    root = cache / "sources" / package("toolz").folder
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return replace(package("toolz"), requirements=(), wall_seconds=3.0), cache


@pytest.mark.slow
def test_a_wrong_fix_passes_the_shown_tests_and_breaks_those_of_another_module(
    tiny: tuple[Package, Path], tmp_path: Path
) -> None:
    chosen, cache = tiny
    with Scorer(cache=cache, workers=1) as scorer:
        (path,) = build_cross_module(scorer, tmp_path / "a", 0, [chosen], cache=cache)
        tasks = [replace(task, requirements=()) for task in load_tasks(path, cache=cache)]
        wrong = load_wrong_fixes(path, cache=cache)
        patches = [
            (task, patch) for task in tasks for patch in (Patch(""), task.reference or Patch(""), wrong[task.id])
        ]
        runs = [evidence.records[TestRun] for evidence in scorer.gather(patches, [TestRun])]
        (again,) = build_cross_module(scorer, tmp_path / "b", 0, [chosen], cache=cache)
        alone = replace(chosen, subject=("toolz/prices.py",))
        with pytest.raises(UserError, match="no bug of toolz has a wrong fix"):
            build_cross_module(scorer, tmp_path / "c", 0, [alone], cache=cache)
    assert again.read_bytes() == path.read_bytes()
    assert tasks
    assert set(wrong) == {task.id for task in tasks}
    for task, unpatched, patched, wrongly in zip(tasks, runs[::3], runs[1::3], runs[2::3], strict=True):
        assert task.target is not None
        assert task.target.function == "clamp"
        assert task.shown in (Shown(tests=(OWN,)), Shown(tests=(USER,)))
        shown = {test for test in task.tests if file_of(test) in (task.shown.tests or ())}
        assert shown & set(task.fail_to_pass)
        assert task.failure.startswith(">>> assert ")
        assert not unpatched.fixed
        assert patched.resolved
        assert shown & set(task.fail_to_pass) <= set(wrongly.fixed)
        assert wrongly.broken
        assert not shown & set(wrongly.broken)
        assert set(wrongly.broken) & {f"{USER}::test_reduced", f"{USER}::test_free"}
    one = next(task for task in tasks if task.shown.tests == (OWN,))
    assert f"@{OWN}" in one.id
    assert load_task(path, one.id, cache=cache).digest
    assert [entry.id for entry in list_tasks(path)] == [task.id for task in tasks]

    with pytest.raises(
        UserError, match=r"no task file or folder of recipes at nowhere: .* one of: builtin, cross-module"
    ):
        load_wrong_fixes("nowhere")
    task_file = tmp_path / "tasks.jsonl"
    task_file.write_text("{}")
    with pytest.raises(UserError, match="is a task file, which has no wrong fixes"):
        load_wrong_fixes(task_file)
