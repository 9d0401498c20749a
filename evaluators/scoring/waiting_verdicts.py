"""Says how many verdicts wait in memory because their evidence can't be stored, and when it is."""

from __future__ import annotations

import threading
import warnings

from regrade.datasets.caches import full_disk
from regrade.datasets.plurals import counted

UnstoredVerdict = tuple[str, str]
"""Digests of a task and of a patch."""


class WaitingVerdicts:
    """The verdicts whose evidence the store holds in memory, for example while the disk is full.

    Warns at the first one, and again each time their number has grown tenfold.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: set[UnstoredVerdict] = set()
        self._next = 1

    def add(self, verdict: UnstoredVerdict, error: Exception) -> None:
        """The evidence of a verdict can't be stored now."""
        with self._lock:
            self._verdicts.add(verdict)
            count = len(self._verdicts)
            if count < self._next:
                return
            self._next = 10 * count
        why = (
            f"evidence can't be stored ({error}): that of {counted(count, 'verdict')} waits in memory, and is lost if "
            "this process is killed"
        )
        warnings.warn("; ".join(filter(None, (why, full_disk(error)))), stacklevel=2)

    def stored(self, records_left: int) -> None:
        """The store could write: tell how much was written if none of the waiting records is left."""
        if records_left or not self._verdicts:
            return
        with self._lock:
            count, self._next = len(self._verdicts), 1
            self._verdicts.clear()
        if count:
            warnings.warn(
                f"the evidence that waited in memory is stored now: that of {counted(count, 'verdict')}", stacklevel=2
            )

    def close(self, records_left: int) -> None:
        """The store is closed: tell what became of the waiting records."""
        self.stored(records_left)
        with self._lock:
            count = len(self._verdicts)
            self._verdicts.clear()
        if count:
            warnings.warn(
                f"the evidence of {counted(count, 'verdict')} was not stored, and is gathered again in the next run",
                stacklevel=2,
            )
