"""The same random numbers at the base and under a patch, also for tests of Hypothesis."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regrade.datasets.tasks import Limits, TestSuite
from regrade.evaluators.execution.replies import statuses
from regrade.evaluators.execution.worker import Preparation, Request, Worker
from regrade.evaluators.sandboxes import choose

pytest.importorskip("hypothesis")
LIMITS = Limits(wall_seconds=60.0)
DRAWS = """
from hypothesis import given, settings, strategies as st

SEEN = []


@given(st.integers(), st.floats())
def test_draws(number, other):
    SEEN.append((number, other))


{more}
def test_shows():
    raise AssertionError(f"{{len(SEEN)}} {{hash(repr(SEEN))}}")
"""
PROFILE = """
from hypothesis import settings

settings.register_profile("own", max_examples=7)
settings.load_profile("own")
"""
SETTINGS = """
import time

from hypothesis import given, settings, strategies as st


@given(st.integers())
def test_slow_examples(number):
    time.sleep(0.25)


def test_settings():
    assert settings.default.max_examples == {examples}
    assert settings.default.database is None
"""
SHOWS = "test_draws.py::test_shows"


@pytest.fixture
def worker(tmp_path):
    scratch = tmp_path / "worker"
    scratch.mkdir(mode=0o755)
    with Worker(choose(), Path(sys.executable), scratch, limits=LIMITS) as made:
        yield made


def outcomes(worker, tree, preparation=None, **options):
    request = Request(suite=TestSuite(), limits=LIMITS, **options)
    return statuses(worker.run(tree, request, preparation or Preparation("")))


def test_hypothesis_draws_the_same_in_every_process(worker, write_files):
    tree = write_files({"test_draws.py": DRAWS.format(more="")})
    cold = outcomes(worker, tree, cold=True)
    forked = outcomes(worker, tree)
    early = outcomes(worker, tree, Preparation("", modules=("hypothesis",)))
    assert cold["test_draws.py::test_draws"].status.value == "passed"
    assert cold[SHOWS].message == forked[SHOWS].message == early[SHOWS].message
    assert "AssertionError: 100 " in cold[SHOWS].message


def test_a_test_draws_the_same_whichever_ran_before_it(worker, write_files):
    more = "@given(st.text())\ndef test_between(text):\n    pass\n\n\n"
    tree = write_files({"test_draws.py": DRAWS.format(more=more)})
    alone = frozenset({"test_draws.py::test_draws", SHOWS})
    assert outcomes(worker, tree)[SHOWS] == outcomes(worker, tree, select=alone)[SHOWS]


def test_a_profile_of_the_repository_is_kept_and_draws_the_same(worker, write_files):
    tree = write_files({"conftest.py": PROFILE, "test_draws.py": DRAWS.format(more="")})
    first, second = outcomes(worker, tree)[SHOWS], outcomes(worker, tree, cold=True)[SHOWS]
    assert "AssertionError: 7 " in first.message
    assert first.message == second.message


@pytest.mark.parametrize(("conftest", "examples"), [(PROFILE, 7), (PROFILE.replace("7", "3"), 3)])
def test_a_busy_machine_exceeds_no_deadline_and_no_database_supplies_examples(worker, write_files, conftest, examples):
    """The default deadline of an example is 0.2 seconds."""
    found = outcomes(worker, write_files({"conftest.py": conftest, "test_it.py": SETTINGS.format(examples=examples)}))
    assert {outcome.status.value for outcome in found.values()} == {"passed"}, found


def test_a_deadline_that_a_test_sets_itself_is_kept(worker, write_files):
    text = SETTINGS.format(examples=100).replace("@given", "@settings(deadline=20)\n@given", 1).replace("0.25", "0.03")
    found = outcomes(worker, write_files({"test_it.py": text}))
    assert found["test_it.py::test_slow_examples"].status.value == "failed"


def test_a_module_of_the_repository_called_hypothesis_is_left_alone(worker, write_files):
    tree = write_files(
        {
            "hypothesis.py": "core = None\nVALUE = 1\n",
            "test_it.py": "import hypothesis\ndef test_it(): assert hypothesis.VALUE == 1\n",
        }
    )
    assert outcomes(worker, tree)["test_it.py::test_it"].status.value == "passed"
