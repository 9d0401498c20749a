"""What the reply of a worker says: how an execution ended, and the outcome of each test."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping

from regrade.evaluators.execution.hanging_tests import running_test
from regrade.evaluators.execution.records import (
    CollectRecord,
    ConfigurationRecord,
    DoneRecord,
    ElsewhereRecord,
    LeftRecord,
    ReplacedRecord,
    StartedRecord,
    TestRecord,
)
from regrade.evaluators.execution.worker import Reply
from regrade.rewards.evidence import End, TestOutcome, TestStatus

LONGEST_DETAIL = 500
FINISHED = (0, 1, 5)
"""Exit statuses of a completed pytest session: all passed, some failed, no tests."""
PASSED = TestOutcome(TestStatus.PASSED)
MISSING = TestOutcome(TestStatus.MISSING)
UNREACHED = TestOutcome(TestStatus.UNREACHED)
_STATUS = {status.value: status for status in TestStatus if status not in (TestStatus.MISSING, TestStatus.UNREACHED)}


def ending(reply: Reply, wall_seconds: float) -> tuple[End, str]:
    """How an execution ended, and the reason as text."""
    last = reply.records[-1] if reply.records else None
    if void := why_void(reply):
        return End.CRASHED, clipped(void)
    if reply.stopped == "timeout":
        test = running_test(reply)
        limit = max(wall_seconds, reply.raised_limit)
        reason = _timeout_reason(limit, reply.seconds - sum(reply.hanging.values()))
        is_early = bool(reply.of(ConfigurationRecord)) and not reply.of(StartedRecord)
        place = f", in {test}" if test else ", while tests were collected" if is_early else ""
        return End.TIMEOUT, clipped(reason + place)
    if reply.stopped == "memory":
        return End.MEMORY, "its processes used more memory than allowed"
    if reply.stopped == "tests":
        reason = f"{len(reply.hanging)} tests ran for longer than their limits, at last {[*reply.hanging][-1]}"
        return End.TIMEOUT, clipped(f"{reason}; the tests after it were not run")
    if reply.stopped:
        return End.CRASHED, f"stopped: it used more {reply.stopped} than allowed"
    if isinstance(last, DoneRecord) and last.status in FINISHED and reply.status == last.status:
        return End.COMPLETED, ""
    if isinstance(last, LeftRecord):
        return End.CRASHED, clipped(f"the test session ended with {last.error}")
    if reply.status < 0:
        return End.CRASHED, f"killed by signal {-reply.status} ({_signal_name(-reply.status)})"
    if isinstance(last, DoneRecord):
        return End.CRASHED, clipped(f"pytest stopped with status {last.status}: {reply.output.strip()}")
    return End.CRASHED, f"the process exited with status {reply.status} before it reported a result"


def why_void(reply: Reply) -> str:
    """Why the outcomes of the tests are no evidence, whatever they are; empty: they are."""
    if reply.rewritten:
        return f"it changed the protected file {reply.rewritten[0]} while the tests ran"
    if reply.tampered:
        return f"while the tests ran, {reply.tampered[0]}"
    return imported_copies(reply) or replaced_modules(reply)


def imported_copies(reply: Reply) -> str:
    """Which modules of the repository were imported from elsewhere, so that another copy of them was tested; empty:
    none. At the base the environment causes that; after a patch, the patch does: it removed or bypassed the module."""
    return _modules(reply.of(ElsewhereRecord), "not from the repository")


def replaced_modules(reply: Reply) -> str:
    """Which modules that the tests import were replaced, so that they may judge nothing; empty: none."""
    return _modules(reply.of(ReplacedRecord), "not from where the tests import it without the patch")


def _modules(records: Iterable[ElsewhereRecord | ReplacedRecord], where: str) -> str:
    modules = [module for record in records for module in record.modules]
    if not modules:
        return ""
    name, file = modules[0]
    others = f" (and {len(modules) - 1} more modules)" if modules[1:] else ""
    return f"{name} was imported from {file}, {where}{others}"


def _timeout_reason(limit: float, passed: float) -> str:
    """More time than the limit may have passed: see `inside/watching.py` and `slow_machine.py`."""
    reason = f"stopped at the limit of {limit:g} s"
    if passed < 1.1 * limit + 1.0:
        return reason
    return f"{reason}, {passed:.0f} s after its start: what a busy machine took away does not count"


def stopped_tests(reply: Reply) -> frozenset[str]:
    """The tests that ran for too long, and the one that ran at the end of the time limit."""
    last = running_test(reply) if reply.stopped == "timeout" else ""
    return frozenset(reply.hanging) | ({last} if last else frozenset())


def statuses(reply: Reply) -> dict[str, TestOutcome]:
    """Test id -> outcome, as far as reported. Several for one id are forged: the worst counts."""
    outcomes: dict[str, TestOutcome] = {}
    for record in reply.of(TestRecord):
        if record.status in _STATUS:
            # Without seconds, which differ between runs: equal runs give equal evidence.
            has_passed = record.status == "passed"
            if not has_passed or record.id not in outcomes:
                outcomes[record.id] = PASSED if has_passed else TestOutcome(_STATUS[record.status], str(record.message))
    return outcomes


def collection_errors(reply: Reply) -> dict[str, str]:
    """Node that was not collected -> error."""
    return {record.node: str(record.message) for record in reply.of(CollectRecord)}


def unreported(test: str, uncollected: Mapping[str, str]) -> TestOutcome:
    node = test
    while node:
        if node in uncollected:
            return TestOutcome(TestStatus.ERROR, uncollected[node])
        node = node.rpartition("::")[0]
    return MISSING


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def clipped(text: str) -> str:
    return text if len(text) <= LONGEST_DETAIL else f"{text[: LONGEST_DETAIL // 2]} ... {text[-LONGEST_DETAIL // 2 :]}"
