"""Recipes: to JSON and back, to tasks and back, and what is said when they are wrong."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.applying import apply_patch
from regrade.datasets.catalogue import entry_of
from regrade.datasets.errors import UserError
from regrade.datasets.mutation.mutants import mutants
from regrade.datasets.mutation.packages import PACKAGES, package
from regrade.datasets.mutation.rebuilding import planting_patch, reference_patch, task_id
from regrade.datasets.mutation.recipe_format import (
    Failure,
    PackageRecipes,
    TaskRecipe,
    WrongFix,
    from_ranges,
    read_recipes,
    recipe_files,
    to_ranges,
    write_recipes,
)
from regrade.datasets.mutation.splits import SPLITS, split_of
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import BUILTIN, READY_MADE, list_tasks, load_task, load_tasks, load_wrong_fixes
from regrade.datasets.tasks import Shown, Tree

SOURCE = "def less(a, b):\n    return a < b\n\n\ndef last(items):\n    return items[-1]\n"
TESTS = "from inflection import last, less\n\ndef test_less():\n    assert less(1, 2)\n"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in which the package inflection has two functions."""
    root = tmp_path / "cache" / "sources" / package("inflection").folder
    (root / "inflection").mkdir(parents=True)
    (root / "inflection" / "__init__.py").write_text(SOURCE)
    (root / "test_inflection.py").write_text(TESTS)
    return tmp_path / "cache"


def _recipes() -> PackageRecipes:
    file = "inflection/__init__.py"
    chosen = {mutant.kind: mutant for mutant in mutants(SOURCE, file, seed=0) if mutant.function == "less"}
    mutant = chosen["comparison-operator"]
    task = TaskRecipe(
        file=file, function="less", kind=mutant.kind, place=mutant.place, line=mutant.line, digest=mutant.digest, fail_to_pass=(1,),
        failure=Failure("test_inflection.py", 4, "assert False"),
    )  # fmt: skip
    tests = ("test_inflection.py::test_last", "test_inflection.py::test_less")
    return PackageRecipes(
        package=package("inflection"), seed=0, tests=tests, reach={f"{file}::less": (1,)}, imported=(), tasks=(task,)
    )


@given(st.sets(st.integers(0, 3000)))
def test_ranges_come_back(indexes: set[int]) -> None:
    assert from_ranges(to_ranges(indexes)) == tuple(sorted(indexes))


def test_recipes_come_back_from_the_same_bytes(tmp_path: Path) -> None:
    recipes = _recipes()
    first, second = write_recipes(recipes, tmp_path / "a"), write_recipes(recipes, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert read_recipes(first) == recipes
    packed = tmp_path / "inflection.json.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    assert read_recipes(packed) == recipes


def test_a_recipe_says_what_is_shown_and_which_wrong_fix_is_known(cache: Path, tmp_path: Path) -> None:
    recipes = _recipes()
    (plain,) = recipes.tasks
    every = mutants(SOURCE, plain.file, seed=0)
    other = next(each for each in every if each.function == "less" and each.place != plain.place)
    wrong = WrongFix(line=other.line, kind=other.kind, place=other.place, breaks=(0,))
    task = replace(plain, shown="test_inflection.py", wrong_fix=wrong)
    path = write_recipes(replace(recipes, tasks=(task,)), tmp_path)
    assert read_recipes(path).tasks == (task,)
    (loaded,) = load_tasks(path, cache=cache)
    assert loaded.id == f"{task_id(recipes.package, plain)}@test_inflection.py"
    assert loaded.shown == Shown(tests=("test_inflection.py",))
    ((name, patch),) = load_wrong_fixes(path, cache=cache).items()
    assert name == loaded.id
    assert apply_patch(loaded.base, patch).read(plain.file) == other.source
    assert load_wrong_fixes(write_recipes(recipes, tmp_path / "plain"), cache=cache) == {}

    text = path.read_text()
    for old, new, words in (
        ('"breaks":"0"', '"breaks":"7"', "wrong_fix: 'breaks' names test 7, but there are only 2"),
        ('"shown":"test_inflection.py"', '"shown":"test_none.py"', "'shown' is \"test_none.py\", which is no file"),
        (f'"place":"{other.place}"', '"place":"9:9:9"', "bug at inflection/__init__.py:9 cannot be rebuilt"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=re.escape(words)):
            load_wrong_fixes(path, cache=cache)


def test_no_third_party_code_is_stored(tmp_path: Path) -> None:
    text = write_recipes(_recipes(), tmp_path).read_text()
    assert "return" not in text
    assert "less(1, 2)" not in text


def test_a_task_is_rebuilt(cache: Path, tmp_path: Path) -> None:
    path = write_recipes(_recipes(), tmp_path / "recipes")
    (task,) = load_tasks(path, cache=cache)
    assert load_tasks(path.parent, cache=cache) == [task]
    assert task.base.read("inflection/__init__.py") == SOURCE.replace("a < b", "a > b")
    assert task.fail_to_pass == ("test_inflection.py::test_less",)
    assert task.pass_to_pass == ("test_inflection.py::test_last",)
    assert task.failure == ">>> assert less(1, 2)\nassert False"
    assert task.target is not None
    assert (task.target.function, task.target.first_line, task.target.last_line) == ("less", 1, 2)
    assert task.suite.reach == {"inflection/__init__.py::less": ("test_inflection.py::test_less",)}
    assert task.reference is not None
    mended = apply_patch(task.base, task.reference)
    assert mended.read("inflection/__init__.py") == SOURCE
    assert mended.digest == Tree(task.base.root).digest != task.base.digest


def test_one_task_is_loaded_by_its_id(cache: Path, tmp_path: Path) -> None:
    write_recipes(_recipes(), tmp_path / "recipes")
    everything = load_tasks(tmp_path / "recipes", cache=cache)
    assert [load_task(tmp_path / "recipes", task.id, cache=cache).digest for task in everything] == [
        task.digest for task in everything
    ]
    with pytest.raises(UserError, match=rf"no task 'inflection/nothing' among {len(everything)}, such as 'inflection"):
        load_task(tmp_path / "recipes", "inflection/nothing", cache=cache)


def test_altered_sources_are_noticed(cache: Path, tmp_path: Path) -> None:
    path = write_recipes(_recipes(), tmp_path / "recipes")
    library = cache / "sources" / package("inflection").folder / "inflection" / "__init__.py"
    library.write_text(SOURCE + "\n# changed\n")
    with pytest.raises(UserError, match="cannot be rebuilt"):
        load_tasks(path, cache=cache)
    library.unlink()
    with pytest.raises(
        UserError, match=r"inflection/__init__.py, named in the recipes, cannot be parsed: .*No such file"
    ):
        load_tasks(path, cache=cache)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 99}, "'format' is 99, this version reads 1"),
    "package": ({"package": "numpy"}, "no pinned package 'numpy'"),
    "version": ({"version": "0.1"}, 'made from inflection "0.1", but pinned is'),
    "tests": ({"tests": "all"}, "'tests' must be a list of strings"),
    "reach": ({"reach": {"f": "1-"}}, r"reach: 'f' must be ranges"),
    "index": ({"reach": {"f": "0-2"}}, "names test 2, but there are only 2"),
    "tasks": ({"tasks": [{}]}, r"tasks\[0\]: 'file' must be a string .*; the key is missing"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    path = tmp_path / "inflection.json"
    path.write_text(json.dumps(_recipes().to_json() | change))
    with pytest.raises(UserError, match=message) as caught:
        load_tasks(path)
    assert str(path) in str(caught.value) or name == "package"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["a = 1\n" * 9, "a = 1\n" * 8 + "b = 2", "a = 1", "\n\na = 1\n\n", "a\nb\nc\nd\n"])
def test_line_patches_are_those_of_difflib(source: str) -> None:
    text = f"def f(a, b):\n    return a < b\n{source}"
    other = f"{source.rstrip()}\ndef f(a, b):\n    return a < b"
    for pristine in (text, other):
        for mutant in list(mutants(pristine, "m.py", seed=1)):
            before, after = {"m.py": mutant.source}, {"m.py": pristine}
            assert reference_patch(mutant) == Patch.between(before, after)
            assert planting_patch(mutant) == Patch.between(after, before)


def test_splits_are_made_by_package_and_function() -> None:
    held_out = [entry for entry in PACKAGES if entry.group == "held_out"]
    assert {split_of(entry, "f.py::f") for entry in held_out} == {"held_out"}
    counts: dict[str, int] = defaultdict(int)
    for number in range(2000):
        counts[split_of(package("toolz"), f"f.py::f{number}")] += 1
    assert counts.keys() == set(SPLITS) - {"held_out"}
    assert 0.21 < counts["demonstrations"] / 2000 < 0.27
    assert 0.04 < counts["validation"] / 2000 < 0.08


def test_the_shipped_recipes_are_sound() -> None:
    shipped = [read_recipes(path) for path in recipe_files(BUILTIN)]
    tasks = [(recipes, task) for recipes in shipped for task in recipes.tasks]
    assert len(tasks) >= 1500
    assert {recipes.package for recipes in shipped} == set(PACKAGES)
    assert len({task.kind for _, task in tasks}) >= 10
    per_function: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for recipes, task in tasks:
        per_function[recipes.package.name, task.file, task.function].append(task.kind)
        assert 0 < len(task.fail_to_pass) < len(recipes.tests)
    assert all(len(kinds) == len(set(kinds)) <= 5 for kinds in per_function.values())
    splits = defaultdict(int)
    for recipes, task in tasks:
        splits[split_of(recipes.package, f"{task.file}::{task.function}")] += 1
    assert splits["demonstrations"] >= 200
    assert splits["tests_only"] >= 1000
    assert splits["validation"] >= 80
    assert splits["held_out"] >= 400


def test_the_shipped_cross_module_recipes_are_sound() -> None:
    shipped = [read_recipes(path) for path in recipe_files(READY_MADE["cross-module"])]
    known = {recipes.package.name: recipes for recipes in map(read_recipes, recipe_files(BUILTIN))}
    tasks = [(recipes, task) for recipes in shipped for task in recipes.tasks]
    ids = [task_id(recipes.package, task) for recipes, task in tasks]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {entry.id for entry in list_tasks()}
    for recipes, task in tasks:
        assert recipes.tests == known[recipes.package.name].tests
        files = [file_of(test) for test in recipes.tests]
        assert task.wrong_fix is not None
        assert task.shown in {files[index] for index in task.fail_to_pass}
        assert task.wrong_fix.breaks
        assert task.shown not in {files[index] for index in task.wrong_fix.breaks}
        assert not set(task.wrong_fix.breaks) & set(task.fail_to_pass)
    splits = Counter(split_of(recipes.package, f"{task.file}::{task.function}") for recipes, task in tasks)
    assert splits["held_out"] >= 1
    assert splits["tests_only"] + splits["demonstrations"] >= 1


@pytest.mark.slow
def test_every_shipped_task_can_be_rebuilt() -> None:
    tasks = load_tasks()
    assert len({task.id for task in tasks}) == len(tasks) >= 1500
    assert sum(len(load_tasks(split=split)) for split in SPLITS) == len(tasks)
    for task in random.Random(0).sample(tasks, 100):
        assert task.reference is not None
        assert task.target is not None
        mended = apply_patch(task.base, task.reference)
        file = task.target.file
        pristine = Tree(task.base.root).read(file)
        assert mended.read(file) == pristine != task.base.read(file)
        first, last = task.target.first_line - 1, task.target.last_line
        assert task.base.read(file).split("\n")[:first] == pristine.split("\n")[:first]
        assert task.base.read(file).split("\n")[last:] == pristine.split("\n")[last:]
        assert task.failure.startswith(">>> ")
        assert len(task.failure) <= 240
        assert not set(task.fail_to_pass) & set(task.pass_to_pass)


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="5-3"):
        from_ranges("1,5-3")


def test_a_listed_task_is_the_loaded_one(cache: Path, tmp_path: Path) -> None:
    write_recipes(_recipes(), tmp_path / "recipes")
    (task,) = load_tasks(tmp_path / "recipes", cache=cache)
    assert list_tasks(tmp_path / "recipes") == [entry_of(task)]
