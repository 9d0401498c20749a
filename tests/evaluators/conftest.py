"""A small repository with a bug, tasks made of it, and one scorer for all tests that need no other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.scoring.scorer import Scorer

CALCULATOR = """\
import functools


def add(a, b):
    return a - b


def multiply(a, b):
    product = 0
    for _ in range(b):
        product += a
    return product


@functools.cache
def square(a):
    return multiply(a, a)


class Counter:
    step = 1

    def __init__(self):
        self.count = 0

    def advance(self):
        self.count += self.step
        return self.count


DOUBLED = [multiply(number, 2) for number in (1, 2)]
"""
TESTS = """\
import pytest
from calculator import DOUBLED, Counter, add, multiply, square


def test_add():
    assert add(1, 2) == 3


def test_add_nothing():
    assert add(1, 0) == 1


@pytest.mark.parametrize("number", [2, 3])
def test_square(number):
    assert square(number) == number * number


class TestCounter:
    def test_advance(self):
        assert Counter().advance() == 1


def test_doubled():
    assert DOUBLED == [2, 4]
"""
FAILING = "tests/test_calculator.py::test_add"
PASSING = (
    "tests/test_calculator.py::test_add_nothing",
    "tests/test_calculator.py::test_square[2]",
    "tests/test_calculator.py::test_square[3]",
    "tests/test_calculator.py::TestCounter::test_advance",
    "tests/test_calculator.py::test_doubled",
)
FILES = {"calculator.py": CALCULATOR, "tests/test_calculator.py": TESTS, "README": "A calculator.\n"}

WriteFiles = Callable[[Mapping[str, str]], Tree]
MakePatch = Callable[..., Patch]


@pytest.fixture
def write_files(tmp_path: Path) -> WriteFiles:
    """Make a repository of path -> text, each time another one: what a Tree stands on never changes."""
    numbers = itertools.count()

    def write(files: Mapping[str, str]) -> Tree:
        root = tmp_path / f"repository{next(numbers)}"
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return Tree(root)

    return write


@pytest.fixture
def task(write_files: WriteFiles) -> Task:
    """`add` subtracts; nothing was measured about reach."""
    return Task(
        id="calculator",
        repository="calculator",
        base=write_files(FILES),
        instruction="Make add add.",
        fail_to_pass=(FAILING,),
        pass_to_pass=PASSING,
        suite=TestSuite(),
        limits=Limits(wall_seconds=20.0, memory_mb=512, processes=32, file_mb=16),
    )


@pytest.fixture
def edit(task: Task) -> MakePatch:
    """The patch that replaces one text by another in a file of the task's base."""

    def make(old: str, new: str, path: str = "calculator.py") -> Patch:
        before = task.base.read(path)
        assert old in before
        return Patch.between({path: before}, {path: before.replace(old, new, 1)})

    return make


@pytest.fixture
def fix(edit: MakePatch) -> Patch:
    return edit("a - b", "a + b")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    """One scorer with one worker for a module of tests."""
    with Scorer(workers=1, cache=tmp_path_factory.mktemp("cache")) as made:
        yield made
