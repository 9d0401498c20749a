"""Keeping the clock and the memory count outside the candidate, and killing whatever it leaves running."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from regrade.evaluators.inside.children import Child

DISK_MB = 512
"""How much the working tree may hold while a candidate runs."""
PATIENCE = 10
"""A candidate that gets no core is stopped after this many times its wall limit at the latest."""
LOOK_SECONDS = 0.2
"""How often memory is looked at."""
STATE, PARENT, SESSION, TIMES = 0, 1, 3, slice(11, 15)
"""Fields of proc(5)'s stat, counted from the state; the times are ticks of itself and of the children it waited for."""


class Ending(NamedTuple):
    """How a child ended."""

    status: int
    """Exit status, or minus the number of a signal."""
    stopped: str
    """What it was stopped for: `timeout`, `memory`, `disk`, `abandoned` (nobody listens any more), or empty."""
    cpu_seconds: float
    """Of the child and of those of its children that it waited for."""


def watch(child: int, requests: int, request: dict[str, Any], *, alone: bool) -> Ending:
    """Wait for the child, and stop it at a limit. A request channel that says something meanwhile is at its end."""
    limits = request["limits"]
    started = looked = time.monotonic()
    deadline = started + limits["wall_seconds"]
    latest = started + limits["wall_seconds"] * PATIENCE
    stopped = ""
    with Child(child) as waiting:
        while not stopped:
            left = deadline - time.monotonic()
            ended, spoken_to = waiting.wait(min(left, LOOK_SECONDS), requests)
            if ended:
                break
            if spoken_to:
                stopped = "abandoned"
            elif left <= 0:
                # A busy machine is not the candidate's doing: the time that it waited for a core does not count.
                starved = _starved_seconds(child, time.monotonic() - started, alone=alone)
                deadline = min(started + limits["wall_seconds"] + starved, latest)
                stopped = "timeout" if deadline <= time.monotonic() + 0.01 else ""
            elif alone and _memory_used() > limits["memory_mb"] << 20:
                stopped = "memory"
            elif time.monotonic() - looked > 1.0:
                stopped = "disk" if _bytes_below(request["root"]) > DISK_MB << 20 else ""
                looked = time.monotonic()
        if stopped:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    return Ending(os.waitstatus_to_exitcode(status), stopped, usage.ru_utime + usage.ru_stime)


def _starved_seconds(child: int, passed: float, *, alone: bool) -> float:
    """Seconds for which the child's main thread was ready to run and had no core; 0 where the kernel does not say.

    What it waited for its own threads and processes was its own doing: together they had a core for as long as they
    used one.
    """
    try:
        waited = int(Path("/proc", str(child), "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
    return min(waited, max(0.0, passed - _seconds_used(child, alone=alone)))


def _seconds_used(child: int, *, alone: bool) -> float:
    """CPU seconds of the child and of all that it started, as far as they can be told from others."""
    ticks = 0
    for process in _processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _fields(process)
            if process != os.getpid() and (alone or int(fields[SESSION]) == child):
                ticks += sum(map(int, fields[TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _fields(process: int) -> list[str]:
    """Of /proc/PID/stat, from its state on: what stands before it may hold anything."""
    return Path("/proc", str(process), "stat").read_text().rsplit(")", 1)[1].split()


def _memory_used() -> int:
    """Resident bytes of all other processes of the pid namespace; what forks share counts once for each."""
    total = 0
    for process in _processes():
        if process != os.getpid():
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += int(Path("/proc", str(process), "statm").read_text().split()[1])
    return total * resource.getpagesize()


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
    """Kill whatever the candidate left running, and wait until it is gone."""
    if alone and os.getpid() == 1:  # never otherwise: this signals every process that it may
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    while True:
        try:
            gone, _ = os.waitpid(-1, 0 if alone else os.WNOHANG)
            if gone == 0 and not _kill_orphans():
                time.sleep(0.001)
        except ChildProcessError:
            return


def _kill_orphans() -> bool:
    """Kill the processes that were handed to this one when their parents died."""
    killed = False
    for process in _processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _fields(process)
            if int(fields[PARENT]) == os.getpid() and fields[STATE] != "Z":
                os.kill(process, signal.SIGKILL)
                killed = True
    return killed
