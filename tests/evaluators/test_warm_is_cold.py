"""The warm worker, with selection by reach and prepared sessions, says what a plain `python -m pytest` says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.mutations import mutants
from regrade.datasets.patches import Patch
from regrade.evaluators.baseline import baseline
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.scorer import Scorer
from regrade.rewards.evidence import TestRun, TestStatus

SOURCE = '''\
"""Text and numbers."""
import functools


def clip(value, low, high):
    if value < low:
        return low
    if value > high:
        return high
    return value


def chunks(items, size):
    found = []
    for start in range(0, len(items), size):
        found.append(items[start:start + size])
    return found


@functools.lru_cache(maxsize=None)
def fibonacci(number):
    if number < 2:
        return number
    return fibonacci(number - 1) + fibonacci(number - 2)


def title(text, joiner=" "):
    words = [word.capitalize() for word in text.split() if word]
    return joiner.join(words)


class Stack:
    def __init__(self, limit=3):
        self.items = []
        self.limit = limit

    def push(self, item):
        if len(self.items) >= self.limit:
            raise OverflowError("full")
        self.items.append(item)
        return len(self.items)

    def pop(self):
        if not self.items:
            return None
        return self.items.pop()


LIMIT = clip(7, 0, 5)
'''
TESTS = """\
import pytest
from numbers_and_text import LIMIT, Stack, chunks, clip, fibonacci, title

@pytest.mark.parametrize("value, expected", [(-1, 0), (0, 0), (3, 3), (5, 5), (6, 5)])
def test_clip(value, expected): assert clip(value, 0, 5) == expected
def test_limit(): assert LIMIT == 5
def test_chunks(): assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
def test_chunks_of_nothing(): assert chunks([], 2) == []
def test_fibonacci(): assert [fibonacci(number) for number in range(7)] == [0, 1, 1, 2, 3, 5, 8]
def test_fibonacci_again(): assert fibonacci(6) == 8
def test_title(): assert title("a bC") == "A Bc"
def test_joined(): assert title("a b", "-") == "A-B"
@pytest.fixture(scope="module")
def stack():
    made = Stack()
    made.push(1)
    return made
def test_push(stack): assert stack.push(2) == 2
def test_full():
    stack = Stack(1)
    stack.push(1)
    with pytest.raises(OverflowError): stack.push(2)
def test_pop():
    stack = Stack()
    stack.push(1)
    assert (stack.pop(), stack.pop()) == (1, None)
"""
LINE = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+)", re.MULTILINE)


def cold(tree, folder: Path) -> set[str]:
    """Ids of the tests that pass, by an interpreter of their own."""
    for path in tree.paths():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(tree.read(path))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"],
            cwd=folder, capture_output=True, text=True, timeout=20,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return set()
    return {test for status, test in LINE.findall(done.stdout) if status == "PASSED"}


@pytest.mark.slow
def test_mutants_get_the_same_verdict_warm_and_cold(write_files, task, tmp_path):
    base = write_files({"numbers_and_text.py": SOURCE, "tests/test_it.py": TESTS})
    found = baseline(base, task.suite, sandbox=choose(), runs=2)
    assert len(found.stable) == 15
    whole = replace(
        task, base=base, fail_to_pass=(), pass_to_pass=found.stable, limits=replace(task.limits, wall_seconds=5.0)
    )
    selected = replace(whole, suite=found.applied_to(task.suite))
    variants = list({mutant.source: mutant for mutant in mutants(SOURCE, "numbers_and_text.py", seed=0)}.values())[::2][
        :50
    ]
    assert len(variants) >= 30
    before = {"numbers_and_text.py": SOURCE}
    patches = [Patch.between(before, {"numbers_and_text.py": variant.source}) for variant in variants]
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        full = scorer.gather([(whole, patch) for patch in patches], [TestRun])
        reachable = scorer.gather([(selected, patch) for patch in patches], [TestRun])
    scopes = [evidence.records[TestRun].scope for evidence in reachable]
    assert scopes.count("reachable") > len(scopes) / 2
    for number, variant in enumerate(variants):
        run, part = full[number].records[TestRun], reachable[number].records[TestRun]
        assert part.broken == run.broken, variant
        if number % 3 == 0:  # the slow side
            passed = cold(base.with_files({"numbers_and_text.py": variant.source}), tmp_path / f"cold{number}")
            assert {test for test in found.stable if run.outcomes[test].status is TestStatus.PASSED} == passed, variant
