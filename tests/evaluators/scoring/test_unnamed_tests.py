"""Tests that fail at the base and that nobody named: they run on every patch, and the verdict says what becomes of
them."""

from __future__ import annotations

import json

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.serialisation import decode, encode
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards import TestRun, default
from regrade.rewards import tests as outcome

CODE = "def one():\n    return 2\n\n\ndef two():\n    return 2\n\n\ndef three():\n    return 2\n"
TESTS = """import pytest
from code_ import one, three, two
def test_one(): assert one() == 1
def test_two(): assert two() == 2
def test_three(): assert three() == 3
@pytest.mark.skip
def test_skipped(): pass
@pytest.mark.xfail
def test_xfailed(): assert False
"""
ONE, THREE = "test_it.py::test_one", "test_it.py::test_three"
EMPTY = Patch("")


def patch(text: str) -> Patch:
    return Patch.between({"code_.py": CODE}, {"code_.py": text})


COMMENT = patch(CODE.replace("return 2", "return 2  # two", 1))
FIX_ONE = patch(CODE.replace("return 2", "return 1", 1))
FIX_BOTH = patch(
    CODE.replace("return 2", "return 1", 1).replace("def three():\n    return 2", "def three():\n    return 3")
)
BREAK = patch(CODE.replace("return 2", "return 1"))
"""It fixes `one` and breaks `two`."""


@pytest.fixture
def judged(write_files, tmp_path):
    root = write_files({"code_.py": CODE, "test_it.py": TESTS}).root

    def judge(*named, patches):
        task = local_task(root, named, cache=tmp_path / "cache", runs=2, tell=lambda _: None)
        with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
            evidence = scorer.gather([(task, patch) for patch in patches], default.needs)
        return task, [(item.records[TestRun], default.evaluate(item).value) for item in evidence]

    return judge


def test_without_a_goal_doing_nothing_is_worth_less_than_any_fix(judged):
    task, results = judged(patches=[EMPTY, COMMENT, FIX_ONE, FIX_BOTH, BREAK])
    assert task.unnamed == (ONE, THREE)
    runs, values = zip(*results, strict=True)
    assert [run.also_fixed for run in runs[:4]] == [(), (), (ONE,), (ONE, THREE)]
    empty, comment, one, both, broken = values
    assert broken < min(empty, comment)
    assert max(empty, comment) < one < both
    assert "fixes 1 of 2 failing tests that no FAIL_TO_PASS names: test_it.py::test_one" in outcome(runs[2]).why
    assert "fixes none of 2 failing tests that no FAIL_TO_PASS names" in outcome(runs[1]).why


def test_beside_a_goal_the_others_are_told_and_change_no_value(judged):
    task, results = judged(ONE, patches=[FIX_ONE, FIX_BOTH])
    assert task.unnamed == (THREE,)
    (one, _), (both, _) = results
    assert (outcome(one).value, outcome(both).value) == (1.0, 1.0)
    assert outcome(both).why.endswith(f"also fixes 1 of 1 failing test that no FAIL_TO_PASS names: {THREE}")
    assert outcome(one).why.endswith(f"does not fix 1 failing test that no FAIL_TO_PASS names: {THREE}")


def test_the_record_survives_storage_and_is_unchanged_without_such_tests(judged):
    task, [(run, _)] = judged(ONE, patches=[FIX_BOTH])
    assert decode(TestRun, encode(run), task).also_fixed == (THREE,)
    task, [(run, _)] = judged(ONE, THREE, patches=[FIX_BOTH])
    assert json.loads(encode(run)).keys() == {"letters", "words", "end", "detail", "scope", "seconds"}
