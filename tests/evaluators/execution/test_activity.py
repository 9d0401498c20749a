"""What a display hears of a run: the running test and the finished tests, and nothing that a candidate can abuse."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.tasks import Limits, TestSuite
from regrade.evaluators.execution.activity import LONGEST_NAME, Activity, listener, reported_to
from regrade.evaluators.execution.hanging_tests import run_past_hanging_tests
from regrade.evaluators.execution.replies import statuses
from regrade.evaluators.execution.worker import Request, Worker
from regrade.evaluators.sandboxes import choose
from regrade.rewards.evidence import TestStatus

LIMITS = Limits(wall_seconds=40.0, file_mb=64)
FORGES = """\
import gc, json, time

def test_forges():
    (write,) = {item._write for item in gc.get_objects() if type(item).__name__ == "Recorder"}
    write(json.dumps(["collected", 10**40]))
    write(json.dumps(["collected", -5]))
    write(json.dumps(["started", "\\x1b[2J\\x1b[31m" + "A" * 10_000_000]))
    for item in (["a", "list"], None, 1e400, {"a": 1}):
        write(json.dumps(["started", item]))
    write('["started", ')
    for number in range(10_000):
        write(json.dumps(["started", f"\\x1b]0;title{number}\\x07\\u202e\\r\\n" + "B" * 300]))
    time.sleep(2.5)

def test_fails():
    assert False

def test_passes():
    pass
"""


@pytest.fixture
def heard() -> list[Activity]:
    return []


@pytest.fixture
def worker(tmp_path, heard):
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o755)
    with Worker(choose(), Path(sys.executable), scratch, limits=LIMITS, listener=heard.append) as made:
        yield made


def names(heard: list[Activity]) -> set[str]:
    return {activity.test for activity in heard}


def test_the_running_test_and_the_finished_tests_are_heard_while_they_run(worker, heard, write_files):
    code = "import time\ndef test_a(): time.sleep(2.5)\ndef test_b(): time.sleep(2.5)\ndef test_c(): pass\n"
    worker.run(write_files({"test_it.py": code}), Request(suite=TestSuite(), limits=LIMITS, phase="base run 1 of 3"))
    assert names(heard) == {"", "test_it.py::test_a", "test_it.py::test_b"}
    assert {(activity.done, activity.total) for activity in heard if activity.test.endswith("test_b")} == {(1, 3)}
    assert [activity.phase for activity in heard] == ["base run 1 of 3"] * (len(heard) - 1) + [""]


def test_a_run_without_a_phase_or_a_listener_sends_nothing(worker, heard, write_files):
    tree = write_files({"test_it.py": "import time\ndef test_a(): time.sleep(2)\n"})
    worker.run(tree, Request(suite=TestSuite(), limits=LIMITS))
    assert heard == []


def test_a_test_that_hangs_is_named_and_the_total_stays(worker, heard, write_files):
    tree = write_files(
        {
            "test_a.py": "def test_a(): pass\ndef test_a2(): pass\n",
            "test_b.py": "import time\ndef test_hangs(): time.sleep(500)\n",
            "test_c.py": "import time\ndef test_c(): time.sleep(2)\n",
        }
    )
    request = Request(suite=TestSuite(), limits=LIMITS, test_limits={"": 3.0}, phase="base run 1 of 3")
    reply = run_past_hanging_tests(worker, tree, request)
    assert reply.hanging == {"test_b.py::test_hangs": 3.0}
    assert "test_b.py::test_hangs" in names(heard)
    assert {activity.total for activity in heard if activity.test} == {4}
    assert {activity.done for activity in heard if activity.test == "test_c.py::test_c"} == {3}


def test_forged_lines_of_a_candidate_reach_no_terminal_and_no_verdict(worker, heard, write_files):
    began = time.monotonic()
    reply = worker.run(write_files({"test_it.py": FORGES}), Request(suite=TestSuite(), limits=LIMITS, phase="patch"))
    outcomes = {test: outcome.status for test, outcome in statuses(reply).items()}
    assert outcomes == {
        "test_it.py::test_forges": TestStatus.PASSED,
        "test_it.py::test_fails": TestStatus.FAILED,
        "test_it.py::test_passes": TestStatus.PASSED,
    }
    check_harmless(heard, time.monotonic() - began)
    assert any("B" in activity.test for activity in heard)  # it was heard


def test_a_flood_of_events_reaches_no_terminal_and_no_verdict(tmp_path, heard, write_files):
    """As if the candidate had taken over the program that sends the events."""
    sandbox = choose()
    event = {"event": "running", "test": "\x1b[2J\x07\u202e" + "A" * 10_000_000, "done": -3, "total": 10**15}
    flood = json.dumps(event).encode() + b"\n"
    flood += b"".join(json.dumps({**event, "test": f"\x1b[{n}m\n"}).encode() + b"\n" for n in range(20_000))

    class Flooding(type(sandbox)):
        def start(self, program):
            session = super().start(program)
            receive = session.receive

            def flooded(seconds):
                block = receive(seconds)
                return flood + block if block.startswith(b'{"event": "done"') else block

            session.receive = flooded
            return session

    (tmp_path / "scratch").mkdir(mode=0o755)
    tree = write_files({"test_it.py": "def test_fails(): assert False\ndef test_passes(): pass\n"})
    began = time.monotonic()
    with Worker(Flooding(), Path(sys.executable), tmp_path / "scratch", limits=LIMITS, listener=heard.append) as worker:
        reply = worker.run(tree, Request(suite=TestSuite(), limits=LIMITS, phase="patch"))
    assert {test: outcome.status.value for test, outcome in statuses(reply).items()} == {
        "test_it.py::test_fails": "failed",
        "test_it.py::test_passes": "passed",
    }
    check_harmless(heard, time.monotonic() - began)
    assert len(heard) > 2  # some were heard


def check_harmless(heard: list[Activity], seconds: float) -> None:
    assert all(activity.test.isprintable() for activity in heard)
    assert max(len(activity.test) for activity in heard) <= LONGEST_NAME * len("\\U0001f600")
    assert all(min(activity.done, activity.total) >= 0 for activity in heard)
    assert len(heard) <= 5 * seconds + 3


def test_scorers_and_measurements_report_to_the_listener_of_their_context(heard):
    assert listener() is None
    with reported_to(heard.append):
        report = listener()
        assert report is not None
        report(Activity(worker=1, phase="base run 1 of 3"))
    assert listener() is None
    assert heard == [replace(heard[0], phase="base run 1 of 3")]
