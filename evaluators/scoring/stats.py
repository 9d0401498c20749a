"""Counters of a scorer, shared by all of its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The counters of a scorer since its creation."""

    executions: int = 0
    """Number of candidate executions."""
    hits: int = 0
    """Jobs answered from the store or by an equal job."""
    cpu_seconds: float = 0.0
    """CPU time of the candidates, in seconds."""
    wall_seconds: float = 0.0
    """Wall time with at least one job in progress, in seconds."""
    retries: int = 0
    """Attempts that failed because of the infrastructure."""
    damaged: int = 0
    """Stored records that were damaged, and were gathered again."""
    unkept: int = 0
    """Records that the store failed to write at once: they are valid, and it retries with the next ones."""
    audited: int = 0
    """Executions of selected tests that the remaining tests followed, to measure the recall of test selection."""
    caught: int = 0
    """Number of tests broken by audited patches that were selected."""
    missed: tuple[str, ...] = ()
    """Broken tests that were not selected, as `task: test`."""

    @property
    def selection_recall(self) -> float | None:
        """The share of the broken tests that were selected; None if no audited patch broke a test."""
        broken = self.caught + len(self.missed)
        return self.caught / broken if broken else None


class Tally:
    """Thread-safe accumulator of the `Stats` of a scorer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._since = 0.0
        self.stats = Stats()

    def add(self, **amounts: Any) -> None:
        """Add amounts to fields of the stats."""
        with self._lock:
            sums = {name: getattr(self.stats, name) + amount for name, amount in amounts.items()}
            self.stats = replace(self.stats, **sums)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Measure the wall time of the block. Overlapping blocks of several threads count once."""
        with self._lock:
            self._active += 1
            if self._active == 1:
                self._since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                passed = 0.0 if self._active else time.monotonic() - self._since
            self.add(wall_seconds=passed)
