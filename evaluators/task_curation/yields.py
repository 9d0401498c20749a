"""The yield of a search for tasks: how many candidates were tried, what became of them, and the time that they took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Yield:
    """The candidates of one kind."""

    tried: int = 0
    valid: int = 0
    seconds: float = 0.0
    """Of all their executions together, from the evidence: a run that reads it from the cache counts the same."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of candidates."""

    @property
    def seconds_per_task(self) -> float | None:
        """Execution time of all candidates for each valid task; None: there is none."""
        return self.seconds / self.valid if self.valid else None


class YieldReport:
    """Yields by source and kind."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Yield] = {}
        self.source = ""
        """The source that is searched now."""

    def of(self, kind: str) -> Yield:
        return self.rows.setdefault((self.source, kind), Yield())

    def tried(self, kind: str, seconds: float, reason: str = "") -> None:
        """A candidate ran for the first time; `reason`: why it is dropped."""
        row = self.of(kind)
        row.tried += 1
        row.seconds += seconds
        if reason:
            row.dropped[reason] += 1

    def confirmed(self, kind: str, seconds: float, reason: str = "") -> None:
        """A candidate that was tried ran again; without a reason to drop it, it is a valid task."""
        row = self.of(kind)
        row.seconds += seconds
        if reason:
            row.dropped[reason] += 1
        else:
            row.valid += 1

    def drop(self, kind: str, reason: str) -> None:
        """A valid task is left out after all."""
        row = self.of(kind)
        row.valid = max(0, row.valid - 1)  # a source of the user's own may count nothing
        row.dropped[reason] += 1

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "source": source,
                "kind": kind,
                "tried": row.tried,
                "valid": row.valid,
                "seconds": round(row.seconds, 3),
                "dropped": dict(sorted(row.dropped.items())),
            }
            for (source, kind), row in sorted(self.rows.items())
        ]

    def total(self, is_counted: Callable[[str], bool] = lambda _: True) -> Yield:
        """The sum over the kinds of the chosen sources."""
        total = Yield()
        for (source, _), row in self.rows.items():
            if is_counted(source):
                total.tried += row.tried
                total.valid += row.valid
                total.seconds += row.seconds
                total.dropped += row.dropped
        return total
