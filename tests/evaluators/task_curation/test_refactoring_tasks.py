"""Tasks to lower the complexity of a function, and the measured difficulty of tasks, from a tiny repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.built_repository import BuiltRepository, built_repository
from regrade.evaluators.task_curation.difficulty import DifficultyFacts
from regrade.evaluators.task_curation.task_set_building import BuiltSet, write_tasks
from regrade.evaluators.task_curation.task_sources import from_mutation
from regrade.rewards import refactoring

pytestmark = pytest.mark.slow
BRANCHES = """\
def cost(zone, weight, express):
    if zone == 0:
        if weight < 1:
            price = 2
        elif weight < 5:
            price = 4
        elif weight < 9:
            price = 7
        else:
            price = 11
    elif zone == 1:
        if weight < 1:
            price = 3
        elif weight < 5:
            price = 6
        elif weight < 9:
            price = 9
        else:
            price = 15
    else:
        price = 20
        if weight >= 5:
            price = 40
    if express:
        price = price * 2
    return price
"""
TABLE = """\
LIMITS = (1, 5, 9)
PRICES = ((2, 4, 7, 11), (3, 6, 9, 15), (20, 20, 40, 40))


def cost(zone, weight, express):
    step = sum(weight >= limit for limit in LIMITS)
    price = PRICES[min(zone, 2)][step]
    return price * 2 if express else price
"""
MOVED = (
    BRANCHES.replace("def cost(", "def _cost(")
    + "\n\ndef cost(zone, weight, express):\n    return _cost(zone, weight, express)\n"
)
UNGUARDED = BRANCHES.replace("def cost(", "def label(")


def _tests() -> str:
    scope: dict[str, Any] = {}
    exec(BRANCHES, scope)
    cases = [(*each, scope["cost"](*each)) for each in product((0, 1, 2), (0, 1, 4, 5, 8, 9), (False, True))]
    return (
        "import pytest\nfrom shop.cost import cost\nfrom shop.label import label\n\n"
        f"@pytest.mark.parametrize('case', {cases!r})\n"
        "def test_cost(case):\n    assert cost(*case[:3]) == case[3]\n\n"
        "@pytest.mark.parametrize('zone', [0, 1, 2])\ndef test_label(zone):\n    assert label(zone, 3, True)\n"
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltRepository]:
    root, cache = tmp_path_factory.mktemp("repositories") / "shop", tmp_path_factory.mktemp("cache")
    files = {
        "shop/__init__.py": "",
        "shop/cost.py": BRANCHES,
        "shop/label.py": UNGUARDED,
        "tests/test_cost.py": _tests(),
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    with Scorer(workers=1, cache=cache) as scorer:
        yield built_repository(root, scorer, runs=1, limit=1, python=sys.executable, cache=cache)


@pytest.fixture(scope="module")
def made(built: BuiltRepository, tmp_path_factory: pytest.TempPathFactory) -> BuiltSet:
    return write_tasks([built], tmp_path_factory.mktemp("out") / "set", sources=["refactors"])


@pytest.fixture(scope="module")
def task(made: BuiltSet) -> Task:
    (task,) = load_tasks(made.folder)
    return task


def test_only_a_complex_function_that_tests_guard_is_a_task(made: BuiltSet, task: Task) -> None:
    assert task.target is not None
    assert (task.target.file, task.target.function) == ("shop/cost.py", "cost")
    assert task.fail_to_pass == ()
    assert len(task.pass_to_pass) == 39
    assert task.reference is None
    assert "complexity of 11. Lower it to at most 8" in task.instruction
    assert task.digest == made.tasks[0].digest


def test_the_reward_pays_for_less_complexity_and_kept_tests(built: BuiltRepository, task: Task) -> None:
    def to(text: str) -> Patch:
        return Patch.between({"shop/cost.py": BRANCHES}, {"shop/cost.py": text})

    patches = [Patch(""), to(TABLE), to(MOVED), to(TABLE.replace("15", "16")), to(BRANCHES + "\n# simpler\n")]
    nothing, table, moved, broken, comment = built.scorer.score([(task, patch) for patch in patches], refactoring)
    assert [nothing.value, broken.value, comment.value] == [0.0, 0.0, 0.0]
    assert table.value == 1.0
    assert moved.value == 0.0, "the branches are in another function"


def test_unguarded_functions_are_left_out_for_a_reason(built: BuiltRepository, tmp_path: Path) -> None:
    from dataclasses import replace

    unlimited = replace(built, limit=None)
    found = write_tasks([unlimited], tmp_path / "set", sources=["refactors"])
    assert [each.target.function for each in found.tasks if each.target] == ["cost"]
    (row,) = found.yields.to_json()
    assert (row["tried"], row["valid"]) == (2, 1)
    assert row["dropped"] == {"its tests notice less than 75% of the bugs planted in it": 1}


def test_difficulty_is_measured(built: BuiltRepository) -> None:
    (task,) = from_mutation(built)
    facts = DifficultyFacts(built).of(task)
    assert facts["guards"] == (36 if facts["target_lines"] and task.target and task.target.function == "cost" else 3)
    assert facts["target_lines"] == 26
    assert facts["target_complexity"] == 11
    assert (facts["changed_files"], facts["distance"]) == (1, 1)
    draws = facts["wrong_fixes"]
    assert draws["drawn"] == 6
    assert 0 <= draws["passing"] + draws["unnoticed"] <= 6
    hidden = DifficultyFacts(built).of(task)
    assert hidden == facts, "the same draws again"
