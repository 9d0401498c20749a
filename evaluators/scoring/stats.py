"""What a scorer has done so far, counted by all of its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a scorer has done so far."""

    executions: int = 0
    """Candidates that were run."""
    hits: int = 0
    """Jobs answered from the store or by an equal job."""
    cpu_seconds: float = 0.0
    """CPU time of the candidates."""
    wall_seconds: float = 0.0
    """Wall time while it worked on at least one job, whichever way it was asked."""
    retries: int = 0
    """Attempts that the infrastructure failed."""
    damaged: int = 0
    """Records of the store that were not as they were written, and were gathered again."""
    unkept: int = 0
    """Records that the store could not take at once: they count, and it tries again with the next ones."""
    audited: int = 0
    """Executions of a selection of tests that were followed by the others, to see what they find."""
    caught: int = 0
    """Of the tests that audited patches break, those that were selected."""
    missed: tuple[str, ...] = ()
    """Those that were not, as `task: test`."""

    @property
    def selection_recall(self) -> float | None:
        """The share of the broken tests that the selection caught; None where no audited patch broke one."""
        broken = self.caught + len(self.missed)
        return self.caught / broken if broken else None


class Tally:
    """The `Stats` of a scorer, to which its threads add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work = 0
        self._since = 0.0
        self.stats = Stats()

    def add(self, **amounts: Any) -> None:
        """Add to fields of the stats."""
        with self._lock:
            sums = {name: getattr(self.stats, name) + amount for name, amount in amounts.items()}
            self.stats = replace(self.stats, **sums)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Something is worked on meanwhile. Of what is done at the same time, the wall time counts once."""
        with self._lock:
            self._at_work += 1
            if self._at_work == 1:
                self._since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                passed = 0.0 if self._at_work else time.monotonic() - self._since
            self.add(wall_seconds=passed)
