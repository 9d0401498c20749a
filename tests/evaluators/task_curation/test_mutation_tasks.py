"""Building recipes: validation, by execution, of the mutants of a small package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.mutation.packages import Package, package
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.failure_excerpts import failures, parse
from regrade.evaluators.task_curation.mutation_tasks import Amounts, build
from regrade.rewards.evidence import TestOutcome, TestRun, TestStatus

LIBRARY = """
import random

def total(items):
    result = 0
    for item in items:
        result += item
    return result

def clamp(value, low, high):
    if value < low:
        return low
    return high if value > high else value

def untested(a, b):
    return a + b

def countdown(n):
    while n > 0:
        n -= 1
    return n

def on_import(a, b):
    return a - b

DIFFERENCE = on_import(3, 2)
"""
TESTS = """
import random
from inflection import clamp, countdown, total

def test_total():
    assert total([1, 2, 3]) == 6

def test_clamp_low():
    assert clamp(1, 2, 5) == 2

def test_clamp_high():
    assert clamp(9, 2, 5) == 5

def test_clamp_between():
    assert clamp(3, 2, 5) == 3

def test_countdown():
    assert countdown(3) == 0

def test_flaky():
    assert total([random.SystemRandom().random()]) < 0.5 ** 40

def test_nothing():
    pass
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Package:
    """A package of the test's own in the place of a pinned one, so that its recipes can be read."""
    root = tmp_path / "cache" / "sources" / package("inflection").folder
    (root / "inflection").mkdir(parents=True)
    (root / "inflection" / "__init__.py").write_text(LIBRARY)
    (root / "test_inflection.py").write_text(TESTS)
    return replace(package("inflection"), requirements=(), wall_seconds=3.0)


@pytest.mark.slow
def test_only_bugs_that_tests_notice_are_kept(tiny: Package, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    amounts = Amounts(least=6, a_function=3, attempts=4)
    said: list[str] = []

    def tell(what: str, _done: int, _total: int) -> None:
        said.append(what)

    with Scorer(cache=cache) as scorer:
        (path,) = build(scorer, tmp_path / "a", 0, [tiny], amounts, cache, tell)
        tasks = [replace(task, requirements=()) for task in load_tasks(path, cache=cache)]
        broken = scorer.gather([(task, Patch("")) for task in tasks], [TestRun])
        fixed = scorer.gather([(task, task.reference or Patch("")) for task in tasks], [TestRun])
    assert 4 <= len(tasks) <= 6
    assert {task.target.function for task in tasks if task.target} <= {"total", "clamp", "countdown"}
    for task, run, reference in zip(tasks, broken, fixed, strict=True):
        assert "test_inflection.py::test_flaky" not in task.fail_to_pass + task.pass_to_pass
        assert task.fail_to_pass
        assert task.pass_to_pass
        assert run.records[TestRun].fixed == ()
        assert run.records[TestRun].broken == ()
        assert reference.records[TestRun].resolved
        assert task.failure.startswith(">>> assert ")
    assert any("trying mutants" in what for what in said)
    with Scorer(cache=tmp_path / "cache") as scorer:
        (again,) = build(scorer, tmp_path / "b", 0, [tiny], amounts, cache)
    assert again.read_bytes() == path.read_bytes()


def test_what_a_failing_test_shows() -> None:
    failure, source = parse("tests/test_a.py:12: assert f(1) == 2\nassert 3 == 2\n +  where 3 = f(1)")
    assert (failure.file, failure.line, failure.error) == ("tests/test_a.py", 12, "assert 3 == 2")
    assert source == "assert f(1) == 2"
    assert parse("ImportError: no")[0].line == 0


def test_the_most_telling_failure_comes_first_and_unstable_ones_not_at_all() -> None:
    messages = {
        "t::address": "t.py:1: f()\nTypeError: <object at 0x7f12ab34>",
        "t::path": "t.py:2: f()\nOSError: '/tmp/x' is missing",
        "t::no_place": "KeyError: 'a b'",
        "t::open": "t.py:4: self.assertEqual(\nAssertionError: 1 != 2",
        "t::bare": "t.py:5: assert f()\nAssertionError",
        "t::good": "t.py:6: assert f() == 2\nassert 1 == 2",
    }
    outcomes = {test: TestOutcome(TestStatus.FAILED, message) for test, message in messages.items()}
    run = TestRun(outcomes=outcomes, fail_to_pass=tuple(outcomes), pass_to_pass=())
    found = failures(run, {test: number for number, test in enumerate(messages)})
    assert [failure.line for failure in found] == [6, 5, 4, 0]
