"""The table of several patches: value, verdict, number of broken tests, and cause of a low value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.datasets.visible_text import visible
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.evidence import End, Integrity, TestRun, TestStatus

REFUSED, UNSCORED, SCORED = "refused", "unscored", "scored"
FIXED, CLEAN, BREAKS, FIXED_AND_BREAKS, NOT_FIXED = "fixed", "breaks nothing", "breaks", "fixed but breaks", "not fixed"
TAMPERS = "tampers"
STYLES = {FIXED: "green", CLEAN: "green", NOT_FIXED: "yellow", SCORED: "", REFUSED: "magenta", UNSCORED: "magenta"}
"""Styles of verdicts; any other verdict is red."""
GAP = 2
"""Blanks between two columns."""
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class PatchRow:
    """A patch with its breakdown, its test run and its verdict."""

    patch: str
    breakdown: Breakdown | None
    """None: the patch was refused."""
    run: TestRun | None = None
    """None: the patch was refused, or the reward needs no tests."""
    refusal: str = ""
    integrity: Integrity | None = None
    """None: as for `run`."""

    @property
    def value(self) -> float | None:
        return None if self.breakdown is None else self.breakdown.value

    @property
    def verdict(self) -> str:
        """The outcome of the tests if they ran, else `refused`, `unscored` or `scored`."""
        if self.breakdown is None:
            return REFUSED
        if self.breakdown.value is None:
            return UNSCORED
        if self.run is None:
            return SCORED
        if self.run.end is not End.COMPLETED:
            return self.run.end.value
        if self._tampering:
            return TAMPERS
        is_fixed = bool(self.run.fail_to_pass) and len(self.run.fixed) == len(self.run.fail_to_pass)
        if self.run.broken:
            return FIXED_AND_BREAKS if is_fixed else BREAKS
        return FIXED if is_fixed else NOT_FIXED if self.run.fail_to_pass else CLEAN

    @property
    def _tampering(self) -> str:
        """The first conclusive sign of tampering, with which the outcome of the tests says nothing; empty: none."""
        signs = self.integrity.signs if self.integrity is not None else ()
        return next((f"{sign.kind} in {sign.file}:{sign.line}: {sign.detail}" for sign in signs if sign.conclusive), "")

    @property
    def cause(self) -> str:
        """The cause of a low value: tampering, the breakdown's cause, else the first broken or still failing test."""
        if self.breakdown is None:
            return self.refusal.removeprefix(f"patch {self.patch!r}").lstrip(" :")
        if self._tampering or self.breakdown.cause or self.run is None:
            return self._tampering or self.breakdown.cause or ""
        failing = (test for test in self.run.fail_to_pass if self.run.outcomes[test].status is not TestStatus.PASSED)
        first = next(iter((*self.run.broken, *failing)), None)
        return f"{first} {self.run.outcomes[first].status.value}" if first is not None else ""


def print_patches(patches: Sequence[PatchRow], console: Console) -> None:
    """Print one line per patch, in order, and the totals. Only causes are cut at the width of the console."""
    names = min(max(len(visible(row.patch)) for row in patches), console.width // 2)
    verdicts = max(len(row.verdict) for row in patches)
    taken = names + len("value") + max(verdicts, len("verdict")) + len("broken") + 4 * GAP
    table = Table(box=None, pad_edge=False)
    table.add_column("patch", overflow="fold", width=max(names, len("patch")))
    table.add_column("value", justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("broken", justify="right")
    table.add_column("cause", no_wrap=True, overflow="ellipsis", max_width=max(1, console.width - taken))
    for row in patches:
        table.add_row(
            Text(visible(row.patch)),
            NONE if row.value is None else f"{row.value:.3f}",
            Text(row.verdict, style=STYLES.get(row.verdict, "red")),
            NONE if row.run is None else str(len(row.run.broken)),
            Text(visible(" ".join(row.cause.split()))),
        )
    console.print(table)
    console.print(totals(patches), soft_wrap=True)


def totals(patches: Sequence[PatchRow]) -> str:
    """The number of patches, of each verdict, and the mean value of the scored patches."""
    verdicts = Counter(row.verdict for row in patches)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    values = [row.value for row in patches if row.value is not None]
    mean = f"; mean value {fmean(values):.3f} of {len(values)} scored" if values else ""
    return f"{len(patches)} patches: {counts}{mean}"
