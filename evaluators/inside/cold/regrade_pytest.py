# As old as Python 3.6: no `from __future__ import annotations` (3.7).
"""A pytest plugin for the interpreters of images: the outcome of each test, by any version from pytest 3.6 on."""

from typing import Any

from regrade_records import Channel  # type: ignore[import-not-found]

RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "error": 4}
LONGEST_MESSAGE = 500
_channel = Channel()
_statuses: Any = {}


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        _channel.write("collect", report.nodeid, _message(report))


def pytest_runtest_logstart(nodeid: str) -> None:
    _channel.write("started", nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    status = _status(report)
    before = _statuses.get(report.nodeid, "passed")
    _statuses[report.nodeid] = status = status if RANK[status] > RANK[before] else before
    if report.when == "teardown" or (report.when == "setup" and status != "passed"):
        _channel.write("test", report.nodeid, status, 0.0, "" if status == "passed" else _message(report))
    elif report.failed:
        _channel.write("test", report.nodeid, status, 0.0, _message(report))


def pytest_sessionfinish(exitstatus: Any) -> None:
    _channel.write("finished", int(exitstatus))


def _status(report: Any) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "passed"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return "skipped" if report.skipped else "passed"


def _message(report: Any) -> str:
    crash = getattr(getattr(report, "longrepr", None), "reprcrash", None)
    if crash is not None:
        return str(crash.message)[:LONGEST_MESSAGE]
    return str(report.longrepr or "").strip().split("\n")[-1][:LONGEST_MESSAGE]
