"""Time, memory and disk limits of a candidate, enforced from outside it; removal of its leftover processes."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from regrade.evaluators.inside.children import Child
from regrade.evaluators.inside.running_test import RunningTest

DISK_MB = 512
"""Largest size of the working tree while a candidate runs."""
PATIENCE = 10
"""A candidate that waits for a core is stopped after this many times its wall limit at the latest."""
CHECK_SECONDS = 0.2
"""Interval of memory checks."""
ANNOUNCE_SECONDS = 0.9
"""Shortest interval between two announcements of the running test."""
STATE, PARENT, SESSION, TIMES = 0, 1, 3, slice(11, 15)
"""Fields of stat in proc(5), counted from the state; times are ticks of the process and of its reaped children."""


class Ending(NamedTuple):
    """How a child has_ended."""

    status: int
    """Exit status, or minus the number of a signal."""
    stopped: str
    """Why it was stopped: `timeout`, `test` (one test ran for too long), `memory`, `processes`, `disk`, `abandoned`
    (the requester is gone); or empty."""
    cpu_seconds: float
    """Of the child and of its reaped children."""


def watch(
    child: int,
    requests: int,
    request: dict[str, Any],
    running: RunningTest,
    announce: Callable[[], None],
    *,
    alone: bool,
) -> Ending:
    """Wait for the child, and stop it at a limit. A readable request channel means that the requester is gone.

    Args:
        announce: called about once a second while a requester wants to know what runs.
    """
    limits = request["limits"]
    clock = _Clock(child, request, running, alone=alone)
    disk_checked = announced = time.monotonic()
    stopped = ""
    with Child(child) as waiting:
        while not stopped:
            remaining = clock.remaining()
            has_ended, is_abandoned = waiting.wait(min(remaining, CHECK_SECONDS), requests)
            if has_ended:
                break
            if request["announce"] and time.monotonic() - announced > ANNOUNCE_SECONDS:
                running.look()
                announce()
                announced = time.monotonic()
            if is_abandoned:
                stopped = "abandoned"
            elif remaining <= 0:
                stopped = clock.exceeded()
            elif alone and (exceeded := _exceeded(limits)):
                stopped = exceeded
            elif time.monotonic() - disk_checked > 1.0:
                stopped = "disk" if _bytes_below(request["root"]) > DISK_MB << 20 else ""
                disk_checked = time.monotonic()
        if stopped:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    return Ending(os.waitstatus_to_exitcode(status), stopped, usage.ru_utime + usage.ru_stime)


class _Clock:
    """The time limits of a candidate: of all it does, and of each test.

    The time that it waited for a core of a busy machine does not count.
    """

    def __init__(self, child: int, request: dict[str, Any], running: RunningTest, *, alone: bool) -> None:
        self._child, self._alone = child, alone
        self._wall = float(request["limits"]["wall_seconds"])
        self._tests: dict[str, float] | None = request["test_limits"]
        self._running = running
        self._test = ("", 0.0)
        self._starved_before = 0.0
        self._started = time.monotonic()
        self._deadline = self._started + self._wall
        self._test_deadline = 0.0

    def remaining(self) -> float:
        """Seconds until a limit may be exceeded."""
        now = time.monotonic()
        if self._tests is None:
            return self._deadline - now
        self._running.look()
        if (self._running.id, self._running.since) != self._test:
            self._test = (self._running.id, self._running.since)
            self._starved_before = self._starved(now)
            self._test_deadline = self._running.since + self._limit()
        return (self._test_deadline if self._is_in_test else self._deadline) - now

    def exceeded(self) -> str:
        """The limit that is exceeded, `timeout` or `test`; empty: the candidate waited for a core, and gets more."""
        now = time.monotonic()
        if self._is_in_test:
            limit, starved = self._limit(), self._starved(now) - self._starved_before
            self._test_deadline = self._running.since + min(limit + max(0.0, starved), limit * PATIENCE)
            return "test" if self._test_deadline <= now + 0.01 else ""
        self._deadline = self._started + min(self._wall + self._starved(now), self._wall * PATIENCE)
        return "timeout" if self._deadline <= now + 0.01 else ""

    @property
    def _is_in_test(self) -> bool:
        """Does a test run that started within the limit of the run? Only the limit of that test counts then."""
        return self._tests is not None and bool(self._running.id) and self._running.since < self._deadline

    def _limit(self) -> float:
        """Seconds of the running test."""
        tests = self._tests or {}
        seconds: float = tests.get(self._running.id, tests.get("", self._wall))
        return seconds

    def _starved(self, now: float) -> float:
        return _starved_seconds(self._child, now - self._started, alone=self._alone)


def _starved_seconds(child: int, passed: float, *, alone: bool) -> float:
    """Seconds for which the child's main thread was ready to run without a core; 0 if the kernel does not report it.

    Waiting for its own threads and processes is excluded: the CPU time that they used together is subtracted.
    """
    try:
        waited = int(Path("/proc", str(child), "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
    return min(waited, max(0.0, passed - _seconds_used(child, alone=alone)))


def _seconds_used(child: int, *, alone: bool) -> float:
    """CPU seconds of the child and of its descendants, as far as they can be identified."""
    ticks = 0
    for process in _processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _fields(process)
            if process != os.getpid() and (alone or int(fields[SESSION]) == child):
                ticks += sum(map(int, fields[TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _fields(process: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on: the program name before it may contain any character."""
    return Path("/proc", str(process), "stat").read_text().rsplit(")", 1)[1].split()


def _exceeded(limits: dict[str, Any]) -> str:
    """The limit that all other processes of the pid namespace exceed together; or empty.

    Of memory, resident pages count; shared ones once per process. (gVisor does not enforce RLIMIT_NPROC.)
    """
    others = [process for process in _processes() if process != os.getpid()]
    pages = 0
    for process in others:
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages += int(Path("/proc", str(process), "statm").read_text().split()[1])
    if pages * resource.getpagesize() > limits["memory_mb"] << 20:
        return "memory"
    return "processes" if len(others) > limits["processes"] else ""


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - many small reads


def _bytes_below(folder: str) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{parent}/{name}").st_blocks * 512
    return total


def kill_rest(child: int, *, alone: bool) -> None:
    """Kill the processes that the candidate left running, and wait until they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while True:
        try:
            reaped, _ = os.waitpid(-1, os.WNOHANG)
            if reaped == 0 and not _kill_others(alone=alone):
                time.sleep(0.001)
        except ChildProcessError:
            return


def _kill_others(*, alone: bool) -> bool:
    """Kill every other process of the namespace, or the orphans of the candidate. Returns: wait no longer?"""
    if not (alone and os.getpid() == 1):  # only there: -1 signals every process that this user may signal
        return _kill_orphans()
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # again and again: gVisor misses processes that start meanwhile
    return False


def _kill_orphans() -> bool:
    """Kill the processes that were reparented to this one."""
    killed = False
    for process in _processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _fields(process)
            if int(fields[PARENT]) == os.getpid() and fields[STATE] != "Z":
                os.kill(process, signal.SIGKILL)
                killed = True
    return killed
