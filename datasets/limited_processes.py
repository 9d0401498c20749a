"""Runs a tool within limits of CPU time and memory, and tells an end by its input from one by the machine."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.platforms import why_not_linux

FROM_OUTSIDE = frozenset(
    getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)
"""Signals that no input of a tool causes: those of an operator, and of a machine out of memory."""
WALL_SECONDS = 600.0
"""A tool without an end after this time, and within its CPU time, hangs: its input cannot cause that."""
GRACE_SECONDS = 5
"""CPU seconds between SIGXCPU, which tells that the limit was reached, and the kernel's SIGKILL."""


class ToolStoppedError(OSError):
    """A tool was killed from outside, or hangs."""


def run_within(
    command: Sequence[str],
    *,
    folder: Path,
    given: bytes,
    cpu_seconds: int,
    memory_mb: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool that reads its whole standard input first. Beyond its CPU time it ends by SIGXCPU.

    Args:
        memory_mb: limit of its address space; None: that of this process.

    Raises:
        ToolStoppedError: it was killed from outside, or hangs.
        OSError: it did not start.
        UserError: this system has no such limits.
    """
    if problem := why_not_linux():
        raise UserError(problem)
    import resource

    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            with contextlib.suppress(ProcessLookupError):  # ended at once
                resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + GRACE_SECONDS))
                if memory_mb is not None:
                    resource.prlimit(process.pid, resource.RLIMIT_AS, (memory_mb << 20,) * 2)
            output, errors = process.communicate(given, timeout=WALL_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ToolStoppedError(f"{command[0]} did not end within {WALL_SECONDS:g} s") from error
        except BaseException:
            process.kill()
            raise
    if -process.returncode in FROM_OUTSIDE:
        raise ToolStoppedError(f"{command[0]} was killed by {signal.Signals(-process.returncode).name}")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
