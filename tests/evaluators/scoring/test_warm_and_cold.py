"""A candidate that is forked from a warm worker, and runs the tests that its change can reach, says what one in a fresh
interpreter says that runs them all: one of the scorer's, and a plain `python -m pytest`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from regrade.datasets.mutation.mutants import mutants
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards.evidence import TestRun, TestStatus

SUBJECT = '''\
import contextlib
import functools


def plain(a):
    """Doc."""
    return a + 1


@functools.lru_cache
def cached(a):
    return a * 2


class Base:
    def name(self):
        return "base"


class Thing(Base):
    def name(self):
        return super().name() + "!"

    @property
    def size(self):
        return self._size

    @size.setter
    def size(self, value):
        self._size = value

    @classmethod
    def made(cls):
        return cls()

    def __hidden(self):
        return 5

    def shown(self):
        return self.__hidden()


@contextlib.contextmanager
def around():
    yield 3


def items():
    yield 1
    yield 2


if True:
    def conditional():
        return "yes"

ALIAS = plain
TABLE = {"plain": plain}


def fails(a):
    assert a


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
import inspect

import pytest
import subject
from subject import ALIAS, LIMIT, TABLE, Stack, Thing, around, cached, chunks, clip, conditional, fibonacci, items
from subject import plain, title


def test_plain(): assert plain(1) == 2
def test_alias(): assert ALIAS(1) == 2
def test_table(): assert TABLE["plain"](1) == 2
def test_cached(): assert cached(2) == 4
def test_super(): assert Thing().name() == "base!"
def test_property():
    thing = Thing()
    thing.size = 3
    assert thing.size == 3
def test_made(): assert type(Thing.made()) is Thing
def test_mangled(): assert Thing().shown() == 5
def test_around():
    with around() as three:
        assert three == 3
def test_items(): assert list(items()) == [1, 2]
def test_conditional(): assert conditional() == "yes"
def test_source(): assert "yield 3" in inspect.getsource(subject.around.__wrapped__)
def test_fails():
    with pytest.raises(AssertionError) as error:
        subject.fails(0)
    assert error.traceback[-1].lineno + 1 == inspect.getsource(subject).splitlines().index("    assert a") + 1
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
EDITS = {
    "nothing": ("def plain(a):", "def plain(a):"),
    "plain": ("return a + 1", "return a - 1"),
    "longer": ("return a + 1", "a += 1\n    a += 0\n    return a"),
    "cached": ("return a * 2", "return a * 3"),
    "super": ('super().name() + "!"', 'super().name() + "?"'),
    "no super": ('super().name() + "!"', '"base" + "!"'),
    "getter": ("return self._size", "return self._size + 1"),
    "setter": ("self._size = value", "self._size = value + 1"),
    "classmethod": ("return cls()", "return Base()"),
    "mangled": ("return 5", "return 6"),
    "caller of the mangled": ("return self.__hidden()", "return self.__hidden() + 1"),
    "context manager": ("yield 3", "yield 4"),
    "generator": ("    yield 1\n    yield 2", "    yield 1"),
    "no generator any more": ("    yield 1\n    yield 2", "    return [1, 2]"),
    "conditional": ('return "yes"', 'return "no"'),
    "raises": ("return a + 1", "return 1 / 0"),
    "exits": ("return a + 1", "raise SystemExit"),
    "a global of its own": ("return a + 1", "global STATE\n    STATE = a\n    return STATE + 1"),
}


LINE = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+)", re.MULTILINE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A task of the subject: what each of its tests executes is known."""
    folder = tmp_path_factory.mktemp("measured")
    repo = folder / "repo"
    repo.mkdir()
    (repo / "subject.py").write_text(SUBJECT)
    (repo / "test_subject.py").write_text(TESTS)
    task = local_task(repo, runs=1, cache=folder / "cache", tell=lambda _: None)
    assert len(task.pass_to_pass) == 28
    return task


def patch_to(source):
    return Patch.between({"subject.py": SUBJECT}, {"subject.py": source})


def runs_of(task, patches, cache, *, reachable, **options):
    with Scorer(workers=1, cache=cache, **options) as scorer:
        found = scorer.gather([(task, patch) for patch in patches], [TestRun], reachable=reachable)
    return [evidence.records[TestRun] for evidence in found]


def passes_of_pytest(source, folder):
    """Ids of the tests that pass, by an interpreter of their own that knows nothing of this project."""
    folder.mkdir()
    (folder / "subject.py").write_text(source)
    (folder / "test_subject.py").write_text(TESTS)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"],
            cwd=folder, capture_output=True, text=True, timeout=20,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return set()
    return {test for status, test in LINE.findall(done.stdout) if status == "PASSED"}


@pytest.mark.parametrize(("sandbox", "edits"), [("bubblewrap", [*EDITS]), ("process", [*EDITS][:5])])
@pytest.mark.filterwarnings("ignore:the plain process")
def test_what_a_fork_says_of_a_changed_body_is_what_a_fresh_interpreter_says(measured, tmp_path, sandbox, edits):
    patches = [patch_to(SUBJECT.replace(*EDITS[edit], 1)) for edit in edits]
    warm = runs_of(measured, patches, tmp_path / "warm", reachable=True, sandbox=sandbox)
    cold = runs_of(measured, patches, tmp_path / "cold", reachable=False, sandbox=sandbox, cold=True)
    for name, one, other in zip(edits, warm, cold, strict=True):
        ran = {test: outcome for test, outcome in one.outcomes.items() if outcome.status is not TestStatus.UNREACHED}
        assert ran == {test: other.outcomes[test] for test in ran}, name
        assert (one.broken, one.end) == (other.broken, other.end), name


@pytest.mark.slow
def test_mutants_get_the_same_verdict_from_a_selection_from_the_whole_suite_and_from_pytest(measured, tmp_path):
    selected = replace(measured, limits=Limits(wall_seconds=5.0))
    unmeasured = replace(measured.suite, reach=None, imported=frozenset(), companions={}, seconds=None)
    whole = replace(selected, suite=unmeasured)
    sources = list(dict.fromkeys(mutant.source for mutant in mutants(SUBJECT, "subject.py", seed=0)))[::3][:40]
    assert len(sources) >= 30
    patches = [patch_to(source) for source in sources]
    parts = runs_of(selected, patches, tmp_path / "cache", reachable=True)
    wholes = runs_of(whole, patches, tmp_path / "cache", reachable=True)
    assert [run.scope for run in wholes] == ["full"] * len(sources)
    assert [run.scope for run in parts].count("reachable") > len(sources) / 2
    for number, (source, part, run) in enumerate(zip(sources, parts, wholes, strict=True)):
        assert part.broken == run.broken, source
        if number % 4 == 0:  # the slow side
            passed = {test for test, outcome in run.outcomes.items() if outcome.status is TestStatus.PASSED}
            assert passed == passes_of_pytest(source, tmp_path / f"plain{number}"), source
