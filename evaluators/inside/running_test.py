"""The test that a candidate is running, and how many are finished, read from its result lines while it runs."""

from __future__ import annotations

import json
import os
import time

from regrade.evaluators.inside.sealing import unsealed_lines

STARTED, ENDED, MEASURED, COLLECTED = '["started", ', '["test", ', '["reach", ', '["collected", '
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
        self._ended = self._measured = 0
        self.total = 0
        """Number of collected tests; 0: unknown."""
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
        started: str | None = None
        for line in unsealed_lines(data, self._key):
            if line.startswith(STARTED):
                started = line
            elif line.startswith(ENDED):
                started = ""
                self._ended += 1
            elif line.startswith(MEASURED):
                self._measured += 1
            elif line.startswith(COLLECTED):
                self.total = self.total or _number(line)
        if started is not None:
            self.id, self.since = _id(started), time.monotonic()

    @property
    def done(self) -> int:
        """Number of finished tests; less, if many end between two looks."""
        return self._measured or self._ended


def _id(line: str) -> str:
    """The test of a line; empty: the line is empty, or forged."""
    try:
        return str(json.loads(line)[1])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _number(line: str) -> int:
    try:
        return max(0, int(json.loads(line)[1]))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return 0
