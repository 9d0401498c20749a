"""Keys of stored evidence cover all measurements of a suite."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import TestSuite
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.scoring.task_digests import Digests
from regrade.rewards.evidence import TestRun

REACH = {"calculator.py::add": ("tests/test_calculator.py::test_add",)}
SECONDS = {"tests/test_calculator.py": 0.5, "": 1.0}
MEASURED = TestSuite(reach=REACH, imported=frozenset({"calculator.py::multiply"}), seconds=SECONDS)


@pytest.mark.parametrize("suite", [MEASURED, TestSuite(seconds=SECONDS)], ids=["reach and seconds", "seconds alone"])
def test_other_seconds_are_another_suite(suite):
    digests = Digests()
    others = [
        replace(suite, seconds=None),
        replace(suite, seconds={**SECONDS, "": 2.0}),
        replace(suite, reach={}),
        replace(suite, reach={**REACH, "calculator.py::square": ()}),
        replace(suite, imported=frozenset({"calculator.py::square"})),
    ]
    assert len({digests.of_reach(other) for other in (suite, *others)}) == 6
    again = replace(suite, seconds=dict(reversed(SECONDS.items())))
    assert Digests().of_reach(again) == digests.of_reach(again) == digests.of_reach(suite)


def test_nothing_measured_is_no_digest():
    assert Digests().of_reach(TestSuite()) == ""


def test_finding_the_digest_again_is_quick():
    digests, suite = Digests(), replace(MEASURED, reach={f"a.py::f{number}": ("t",) * 9 for number in range(20_000)})
    digests.of_reach(suite)
    began = time.perf_counter()
    for _ in range(1000):
        digests.of_reach(suite)
    assert time.perf_counter() - began < 0.1  # 0.1 ms each, of the millisecond that a hit may take


def test_evidence_gathered_under_other_limits_of_time_is_not_taken(task, tmp_path):
    tasks = [replace(task, suite=replace(task.suite, seconds=seconds)) for seconds in (None, SECONDS, dict(SECONDS))]
    with Scorer(workers=1, sandbox="process", cache=tmp_path / "cache") as scorer:
        counts = []
        for other in tasks:
            scorer.gather([(other, Patch(""))], [TestRun])
            counts.append(scorer.stats.executions)
    assert counts == [1, 2, 2]
