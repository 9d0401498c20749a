"""Tests that never end: each is stopped at its own limit, fails by that, and the other tests run on without it.

The limit is enforced from outside the candidate's process, which could ignore any alarm of its own. After a stop, the
rest runs in a fresh sandbox on a fresh copy of the tree.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import replace

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Limits, Task, Tree
from regrade.evaluators.execution.records import FixturesRecord, Record, StartedRecord, TestRecord
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Reply, Request, Worker

logger = logging.getLogger(__name__)
SHORTEST_LIMIT, SLACK = 10.0, 5.0
"""Time limit of a test under a patch: `SLACK` times its time at the base, and at least `SHORTEST_LIMIT` seconds."""
BASE_LIMIT, BASE_SHARE = 60.0, 0.1
"""Time limit of a test at the base, where its time is unknown: this share of the limit of the whole run, and at least
`BASE_LIMIT` seconds."""
SLOW_SECONDS = 1.0
"""The times of faster tests are not kept: they have the shortest limit."""
MOST_STOPPED = 3
"""Number of tests that a patch may make hang; at the next one, the run is over."""
STOPPED = 0.0
"""In `TestSuite.slow`: the test was stopped at its limit."""


def run_past_hanging_tests(
    worker: Worker, tree: Tree, request: Request, preparation: Preparation = UNPREPARED, *, most: int | None = None
) -> Reply:
    """Run the tests; a test that exceeds its limit counts as failed, and the rest runs without it.

    The file of such a test runs again from its start: its other tests may need each other.

    Args:
        most: number of tests that may be stopped; the time limit of the run applies to the time outside of them. None:
            any number, within the time limit.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    records: list[Record] = []
    stopped: dict[str, float] = {}
    seconds = cpu_seconds = 0.0
    left = request.limits.wall_seconds
    while True:
        skip = request.skip | stopped.keys() | {record.id for record in records if isinstance(record, TestRecord)}
        finished = len(skip) - len(request.skip)
        rest = replace(request, limits=replace(request.limits, wall_seconds=left), skip=skip, finished=finished)
        reply = worker.run(tree, rest, preparation)
        seconds, cpu_seconds = seconds + reply.seconds, cpu_seconds + reply.cpu_seconds
        test = running_test(reply) if reply.stopped == "test" else ""
        if not test:
            break
        limits = request.test_limits or {}
        stopped[test] = limits.get(test, limits.get("", 0.0))
        logger.info("test stopped at its limit of %g s: %s", stopped[test], test)
        left -= reply.seconds - (stopped[test] if most is not None else 0.0)
        if left <= 0 or (most is not None and len(stopped) > most):
            reply = replace(reply, stopped="timeout" if left <= 0 else "tests")
            break
        records = [
            *(
                record
                for record in records
                if not isinstance(record, TestRecord) or file_of(record.id) != file_of(test)
            ),
            *_of_other_files(reply, file_of(test)),
        ]
    failures = (TestRecord(test, "failed", STOPPED, f"stopped after {limit:g} s") for test, limit in stopped.items())
    return replace(
        reply,
        records=(*records, *failures, *reply.records),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        hanging=stopped,
    )


def _of_other_files(reply: Reply, file: str) -> Iterable[Record]:
    """The results that a run without the tests of the other files leaves out."""
    for record in reply.records:
        if isinstance(record, FixturesRecord) or (isinstance(record, TestRecord) and file_of(record.id) != file):
            yield record


def running_test(reply: Reply) -> str:
    """The test that was started last and has not ended; empty: none."""
    for record in reversed(reply.records):
        if isinstance(record, StartedRecord):
            return record.id
        if isinstance(record, TestRecord):
            return ""
    return ""


def slow_tests(replies: Iterable[Reply]) -> dict[str, float]:
    """See `TestSuite.slow`: the longest time in any of the runs."""
    slow: dict[str, float] = {}
    shared = 0.0
    for reply in replies:
        shared = max(shared, sum(record.seconds for record in reply.of(FixturesRecord)))
        for record in reply.of(TestRecord):
            if record.id in reply.hanging or slow.get(record.id) == STOPPED:
                slow[record.id] = STOPPED
            elif record.seconds > SLOW_SECONDS:
                slow[record.id] = max(slow.get(record.id, 0.0), round(float(record.seconds), 3))
    return {**slow, "": round(shared, 3)}


def limits_at_base(limits: Limits, measured: Collection[Reply]) -> dict[str, float]:
    """The limit of each test at the base, before and after a first run."""
    if limits.test_seconds is None and not measured:
        seconds = max(BASE_LIMIT, BASE_SHARE * limits.wall_seconds)
    else:
        slow = slow_tests(measured)
        longest = slow.pop("") + max(slow.values(), default=0.0)
        seconds = max(limits.test_seconds or SHORTEST_LIMIT, SLACK * longest)
    return {"": min(seconds, limits.wall_seconds)}


def limits_of_tests(task: Task) -> dict[str, float] | None:
    """The limit of each test under a patch (see `Request.test_limits`); None: unknown."""
    slow, shortest = task.suite.slow, task.limits.test_seconds
    if slow is None:
        return None if shortest is None else {"": shortest}
    shared = slow.get("", 0.0)
    longest = max((seconds for test, seconds in slow.items() if test), default=0.0)
    # The time that a failing test takes once it passes is unknown.
    failing = (*task.fail_to_pass, *task.unnamed)
    seconds = {**slow, **dict.fromkeys(failing, longest), "": SLOW_SECONDS if shortest is None else 0.0}
    return {
        test: min(task.limits.wall_seconds, max(shortest or SHORTEST_LIMIT, SLACK * (shared + took)))
        for test, took in seconds.items()
    }


def time_limits(task: Task) -> str:
    """The time limits of a patch, as a sentence."""
    limits = limits_of_tests(task)
    whole = f"time limits of a patch: {task.limits.wall_seconds:g} s for all tests"
    if limits is None:
        return f"{whole}, none for a single test"
    longer = sum(seconds > limits[""] for test, seconds in limits.items() if test)
    slower = f" (up to {max(limits.values()):g} s for {longer} of them)" if longer else ""
    return f"{whole}, {limits['']:g} s for each{slower}"


def hanging_at_base(task: Task) -> frozenset[str]:
    """The tests that were stopped at the base."""
    return frozenset(test for test, seconds in (task.suite.slow or {}).items() if test and seconds == STOPPED)
