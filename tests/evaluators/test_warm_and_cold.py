"""A candidate that is forked from a warm worker says what one in a fresh interpreter says."""

from __future__ import annotations

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators.local import local_task
from regrade.evaluators.scorer import Scorer
from regrade.rewards.evidence import TestRun

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
'''
TESTS = """\
import inspect

import pytest
import subject
from subject import ALIAS, TABLE, Thing, around, cached, conditional, items, plain


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


def outcomes(task, patches, cache, *, full, **options):
    with Scorer(workers=1, cache=cache, **options) as scorer:
        found = scorer.gather([(task, patch) for patch in patches], [TestRun], full=full)
    return [evidence.records[TestRun] for evidence in found]


def repository(folder, subject=SUBJECT, tests=TESTS):
    repo = folder / "repo"
    repo.mkdir()
    (repo / "subject.py").write_text(subject)
    (repo / "test_subject.py").write_text(tests)
    return local_task(repo, runs=1, cache=folder / "cache", tell=lambda _: None)


@pytest.mark.parametrize(("sandbox", "edits"), [("bubblewrap", [*EDITS]), ("process", [*EDITS][:5])])
@pytest.mark.filterwarnings("ignore:the plain process")
def test_what_a_fork_says_of_a_changed_body_is_what_a_fresh_interpreter_says(tmp_path, sandbox, edits):
    task = repository(tmp_path)
    patches = [
        Patch.between({"subject.py": SUBJECT}, {"subject.py": SUBJECT.replace(*EDITS[edit], 1)}) for edit in edits
    ]
    warm = outcomes(task, patches, tmp_path / "warm", full=False, sandbox=sandbox)
    cold = outcomes(task, patches, tmp_path / "cold", full=True, sandbox=sandbox, cold=True)
    for name, one, other in zip(edits, warm, cold, strict=True):
        ran = {test: outcome for test, outcome in one.outcomes.items() if outcome.status.value != "unreached"}
        assert ran == {test: other.outcomes[test] for test in ran}, name
        assert one.broken == other.broken, name
        assert one.end == other.end, name
