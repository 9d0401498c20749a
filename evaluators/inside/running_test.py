"""The test that a candidate is running, read from its result lines while it runs."""

from __future__ import annotations

import json
import os
import time

from regrade.evaluators.inside.sealing import unsealed_lines

STARTED, ENDED = '["started", ', '["test", '
TAIL = 1 << 16
"""Bytes at the end of the results that are searched for the last line."""


class RunningTest:
    """The last test that was started and has not ended, and when it was first seen."""

    def __init__(self, results: int, key: bytes) -> None:
        """
        Args:
            results: descriptor of the file that the candidate writes its lines to, sealed with the key.
        """
        self._results, self._key = results, key
        self._seen = 0
        self.id = ""
        """Empty: none."""
        self.since = 0.0

    def look(self) -> None:
        """Read the lines written since the last look.

        Lines without a valid seal are ignored: a candidate that writes some restarts no clock.
        """
        size = os.fstat(self._results).st_size
        if size == self._seen:
            return
        start = max(self._seen, size - TAIL)
        data = os.pread(self._results, size - start, start)
        self._seen = start + data.rfind(b"\n") + 1  # the last line may be there in part
        for line in reversed(unsealed_lines(data, self._key)):
            if line.startswith(STARTED):
                self.id, self.since = json.loads(line)[1], time.monotonic()
                return
            if line.startswith(ENDED):
                self.id = ""
                return
