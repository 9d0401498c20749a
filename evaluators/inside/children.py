"""Wait for a child process and for channels at once, also without pidfd (gVisor, Linux before 5.3)."""

from __future__ import annotations

import os
import select
import time
from types import TracebackType

POLL_SECONDS = 0.005


class Child:
    """A child of this process. The caller reaps it (`os.wait4`, `os.waitpid`)."""

    def __init__(self, process: int) -> None:
        self._process = process
        try:
            self._handle = os.pidfd_open(process)
        except OSError:
            self._handle = -1

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def wait(self, seconds: float, *channels: int) -> tuple[bool, bool]:
        """Wait at most `seconds`. Returns: has the child has_ended; is a channel readable?"""
        if self._handle >= 0:
            ready, _, _ = select.select([self._handle, *channels], [], [], max(0.0, seconds))
            return self._handle in ready, any(channel in ready for channel in channels)
        deadline = time.monotonic() + seconds
        while True:
            has_ended = os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(channels, [], [], 0.0 if has_ended else min(left, POLL_SECONDS))
            if has_ended or ready or left == 0.0:
                return has_ended, bool(ready)
