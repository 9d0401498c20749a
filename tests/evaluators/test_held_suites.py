"""A candidate that is forked from the collected suite says what one from the start says."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators import held_suites
from regrade.evaluators.local import local_task
from regrade.evaluators.scorer import Scorer
from regrade.evaluators.workers import Worker
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


@pytest.fixture
def replies(monkeypatch):
    """How many candidates were forked from a collected suite, and how many could not be."""
    counted: Counter[str] = Counter()
    run_held, hold = Worker.run_held, Worker.hold

    def counting(self, tree, request, *others):
        reply = run_held(self, tree, request, *others)
        held = "held" if request.changes else "unchanged"
        counted["from the start" if reply is None else held] += 1
        return reply

    def holding(self, *arguments):
        problem = hold(self, *arguments)
        counted[problem or "collected"] += 1
        return problem

    monkeypatch.setattr(Worker, "run_held", counting)
    monkeypatch.setattr(Worker, "hold", holding)
    monkeypatch.setattr(held_suites, "WORTH_IT", 1)
    return counted


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


@pytest.mark.parametrize(("sandbox", "unfit", "edits"), [("bubblewrap", 2, [*EDITS]), ("process", 0, [*EDITS][:5])])
@pytest.mark.filterwarnings("ignore:the plain process")
def test_a_changed_body_is_put_in_place_wherever_the_function_is(tmp_path, replies, sandbox, unfit, edits):
    task = repository(tmp_path)
    patches = [
        Patch.between({"subject.py": SUBJECT}, {"subject.py": SUBJECT.replace(*EDITS[edit], 1)}) for edit in edits
    ]
    held = outcomes(task, patches, tmp_path / "held", full=False, sandbox=sandbox)
    cold = outcomes(task, patches, tmp_path / "cold", full=True, sandbox=sandbox, cold=True)
    for name, one, other in zip(edits, held, cold, strict=True):
        ran = {test: outcome for test, outcome in one.outcomes.items() if outcome.status.value != "unreached"}
        assert ran == {test: other.outcomes[test] for test in ran}, name
        assert one.end == other.end, name
    assert replies["collected"] == 1
    # From the start: a body that needs its cell no more, and one that is no generator any more.
    assert (replies["held"], replies["from the start"]) == (len(edits) - 1 - unfit, unfit)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "a thread"),
        ("import tempfile\nFOLDER = tempfile.mkdtemp()", "temporary folders"),
        ("import socket\nSOCKET = socket.socket()", "opened on import"),
        ("open('written_on_import', 'w').close()", "files were written"),
        ("import mmap\nMEMORY = mmap.mmap(-1, 8)", "memory was shared"),
        ("import multiprocessing\nCOUNT = multiprocessing.Value('i', 0)", "memory was shared"),
    ],
)
def test_what_forks_would_share_is_not_held(tmp_path, replies, line, why):
    subject = f"{SUBJECT}\n\n{line}\n"
    reach = repository(tmp_path).suite.reach  # such a suite may not even be measured
    shutil.rmtree(tmp_path / "repo")
    task = repository(tmp_path, subject)
    task = replace(task, suite=replace(task.suite, reach=reach))
    patch = Patch.between({"subject.py": subject}, {"subject.py": subject.replace("a + 1", "a - 1", 1)})
    (run,) = outcomes(task, [patch], tmp_path / "held", full=False)
    assert "test_subject.py::test_plain" in run.broken
    assert replies["held"] == 0
    assert any(why in problem for problem in replies), replies


def test_a_suite_is_held_again_after_a_candidate_that_had_to_be_stopped(tmp_path, replies):
    task = repository(tmp_path)
    bodies = ["while True: pass", "return a - 1", "return a - 2"]
    patches = [
        Patch.between({"subject.py": SUBJECT}, {"subject.py": SUBJECT.replace("return a + 1", b, 1)}) for b in bodies
    ]
    runs = outcomes(task, patches, tmp_path / "held", full=False)
    assert [run.end.value for run in runs] == ["timeout", "completed", "completed"]
    assert all("test_subject.py::test_plain" in run.broken for run in runs)
    assert replies["collected"] == 2
    assert replies["held"] == 3


def test_code_that_is_loaded_by_another_path_as_well_is_not_replaced_by_halves(tmp_path, replies):
    tests = TESTS.replace(
        "import subject", "import importlib.util, os, subject\n"
        "spec = importlib.util.spec_from_file_location('twin', os.path.join(os.path.dirname(__file__), '.', 'subject.py'))\n"
        "twin = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(twin)", 1
    ) + "def test_twin(): assert twin.plain(1) == 2\n"  # fmt: skip
    task = repository(tmp_path, tests=tests)
    patch = Patch.between({"subject.py": SUBJECT}, {"subject.py": SUBJECT.replace("a + 1", "a - 1", 1)})
    (run,) = outcomes(task, [patch], tmp_path / "held", full=False)
    assert {"test_subject.py::test_plain", "test_subject.py::test_twin"} <= set(run.broken)
    assert replies["held"] == 0


def test_what_fails_in_every_fork_is_told_by_a_process_from_the_start(tmp_path, replies):  # noqa: ARG001 (held at once)
    tests = TESTS.replace(
        "import subject",
        "import os, resource, subject\nPROCESS, LIMIT = os.getpid(), resource.getrlimit(resource.RLIMIT_CPU)",
        1,
    )
    tests += "def test_process(): assert os.getpid() == PROCESS and subject.plain(1)\n"
    tests += "def test_limit(): assert resource.getrlimit(resource.RLIMIT_CPU) == LIMIT and subject.plain(1)\n"
    task = repository(tmp_path, tests=tests)
    patches = [
        Patch.between({"subject.py": SUBJECT}, {"subject.py": SUBJECT.replace("a + 1", f"a + {n} - {n} + 1", 1)})
        for n in range(3)
    ]
    runs = outcomes(task, patches, tmp_path / "held", full=False)
    assert not any(run.broken for run in runs)


def test_a_suite_is_not_held_for_longer_than_it_may_run(tmp_path, replies, monkeypatch):
    monkeypatch.setattr(held_suites, "OLDEST_SECONDS", 0.0)
    task = repository(tmp_path)
    task = replace(task, suite=replace(task.suite, seconds={"test_subject.py": 0.0, "": 0.0}))
    patches = [
        Patch.between({"subject.py": SUBJECT}, {"subject.py": SUBJECT.replace("a + 1", f"a - {n}", 1)})
        for n in range(3)
    ]
    runs = outcomes(task, patches, tmp_path / "held", full=False)
    assert all("test_subject.py::test_plain" in run.broken for run in runs)
    assert replies["collected"] == 3
