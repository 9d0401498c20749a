"""A plain process with limits: the last resort, and no security boundary."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from regrade.datasets.platforms import why_not_linux
from regrade.evaluators.sandboxes.base import Mount, Program
from regrade.evaluators.sandboxes.piped import PipedSession

KILLING_SECONDS = 5.0
"""Longest time to kill a program that keeps starting processes."""


class Process:
    """Runs the program as this user, with access to this machine's files and network. It only enforces limits."""

    name = "process"
    isolated = False
    alone = False

    def candidate_users(self) -> range:
        return range(0)

    def problem(self) -> str:
        return why_not_linux()

    def seen_at(self, mount: Mount) -> str:
        return str(mount.source)

    def start(self, program: Program) -> TreeSession:
        environment = {"PATH": os.environ.get("PATH", os.defpath), **program.environment}
        return TreeSession([str(program.python.absolute()), *program.arguments], environment)


class TreeSession(PipedSession):
    """Kills the program and its descendants: no namespace does that here."""

    def kill(self) -> None:
        if self._process.poll() is None:
            kill_tree(self._process.pid)


def kill_tree(root: int) -> None:
    """Kill a process and its descendants, in any session and process group.

    Complete if the process is a subreaper of its descendants, as the worker is (PR_SET_CHILD_SUBREAPER).
    """
    deadline = time.monotonic() + KILLING_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.kill(root, signal.SIGSTOP)  # so that it neither starts another process nor exits before its descendants
        while (processes := descendants(root)) and time.monotonic() < deadline:
            for process in processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.005)
        os.kill(root, signal.SIGKILL)


def descendants(root: int) -> set[int]:
    """Ids of the running descendants of a process."""
    children: dict[int, set[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), set()).add(int(status.parent.name))
    below: set[int] = set()
    waiting = {root}
    while waiting:
        waiting = {child for process in waiting for child in children.get(process, ())} - below
        below |= waiting
    return below
