"""Splits: nothing is shared across them, copies included; further tasks move no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.leak_free_splits import SHARES, changed_functions, leak_free_splits
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task, Tree

LONG_BODY = "    total = 0\n    for item in items:\n        total += item * {factor}\n    return total\n"
MODULES = 40


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Modules of two functions each; `copy` is one function under two names."""
    for number in range(MODULES):
        text = (
            f"def f(items):\n{LONG_BODY.format(factor=number)}\n\ndef g(items):\n{LONG_BODY.format(factor=-number - 1)}"
        )
        (tmp_path / f"m{number}.py").write_text(text)
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text(
            f'def {name}(items: list):\n    """{name}"""\n{LONG_BODY.format(factor=99)}'
        )
    return Tree(tmp_path)


def task(tree: Tree, file: str, function: str) -> Task:
    return Task(
        id=f"{file}:{function}",
        repository="shop",
        base=tree,
        instruction="",
        fail_to_pass=("t",),
        pass_to_pass=(),
        target=Target(file, function, 1, 5),
    )


def test_a_unit_is_in_one_split_and_the_shares_are_about_right(tree: Tree) -> None:
    tasks = [task(tree, f"m{number}.py", name) for number in range(MODULES) for name in "fg"]
    by_module = leak_free_splits(tasks, "module", seed=3)
    assert by_module[::2] == by_module[1::2]
    assert len(set(by_module)) >= 3
    by_function = leak_free_splits(tasks, "function", seed=3)
    assert by_function[::2] != by_function[1::2]
    assert 0.3 < by_function.count("tests_only") / len(tasks) < 0.7
    assert set(leak_free_splits(tasks, "repository", seed=3)) <= SHARES.keys()
    assert len(set(leak_free_splits(tasks, "repository", seed=3))) == 1
    assert leak_free_splits(tasks, "module", seed=4) != by_module
    assert leak_free_splits(tasks[:10], "module", seed=3) == by_module[:10]


def test_copies_of_a_function_are_in_one_split(tree: Tree) -> None:
    pair = [task(tree, "one.py", "one"), task(tree, "other.py", "other")]
    assert all(len(set(leak_free_splits(pair, "function", seed))) == 1 for seed in range(20))
    apart = [task(tree, "m1.py", "f"), task(tree, "m2.py", "f")]
    assert any(len(set(leak_free_splits(apart, "function", seed))) == 2 for seed in range(20))


def test_a_commit_joins_all_that_it_changes(tree: Tree) -> None:
    before = {path: tree.read(path) for path in ("m1.py", "m2.py")}
    after = {"m1.py": before["m1.py"].replace("total = 0", "total = 1", 1), "m2.py": "import os\n" + before["m2.py"]}
    commit = replace(task(tree, "m1.py", "f"), target=None, reference=Patch.between(before, after))
    assert changed_functions(commit) == {("m1.py", "f"), ("m2.py", "")}
    tasks = [commit, task(tree, "m1.py", "f"), task(tree, "m2.py", "f")]
    assert all(len(set(leak_free_splits(tasks, "module", seed))) == 1 for seed in range(10))
    assert all(len(set(leak_free_splits(tasks[:2], "function", seed))) == 1 for seed in range(10))
