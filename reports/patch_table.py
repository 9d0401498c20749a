"""Several patches side by side: what each is worth, what it does, and why it is worth no more."""

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
from regrade.rewards.evidence import End, TestRun, TestStatus

REFUSED, UNSCORED, SCORED = "refused", "unscored", "scored"
FIXED, CLEAN, BREAKS, FIXED_AND_BREAKS, NOT_FIXED = "fixed", "breaks nothing", "breaks", "fixed but breaks", "not fixed"
STYLES = {FIXED: "green", CLEAN: "green", NOT_FIXED: "yellow", SCORED: "", REFUSED: "magenta", UNSCORED: "magenta"}
"""Of verdicts; any other is red."""
GAP = 2
"""Columns between two columns."""
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Judged:
    """A patch with what came of it."""

    patch: str
    breakdown: Breakdown | None
    """None: it was refused."""
    run: TestRun | None = None
    """None: it was refused, or the reward asked for no tests."""
    refusal: str = ""

    @property
    def value(self) -> float | None:
        return None if self.breakdown is None else self.breakdown.value

    @property
    def verdict(self) -> str:
        """In a word or two: what the tests say of it, where they ran."""
        if self.breakdown is None:
            return REFUSED
        if self.breakdown.value is None:
            return UNSCORED
        if self.run is None:
            return SCORED
        if self.run.end is not End.COMPLETED:
            return self.run.end.value
        is_fixed = bool(self.run.fail_to_pass) and len(self.run.fixed) == len(self.run.fail_to_pass)
        if self.run.broken:
            return FIXED_AND_BREAKS if is_fixed else BREAKS
        return FIXED if is_fixed else NOT_FIXED if self.run.fail_to_pass else CLEAN

    @property
    def cause(self) -> str:
        """Why it is worth no more: the breakdown's cause, else the first test that it breaks or leaves failing."""
        if self.breakdown is None:
            return self.refusal.removeprefix(f"patch {self.patch!r}").lstrip(" :")
        if self.breakdown.cause or self.run is None:
            return self.breakdown.cause or ""
        failing = (test for test in self.run.fail_to_pass if self.run.outcomes[test].status is not TestStatus.PASSED)
        first = next(iter((*self.run.broken, *failing)), None)
        return f"{first} {self.run.outcomes[first].status.value}" if first is not None else ""


def print_patches(judged: Sequence[Judged], console: Console) -> None:
    """One line a patch, in their order, and the totals. Causes are cut where the console ends, long names are not."""
    names = min(max(len(visible(each.patch)) for each in judged), console.width // 2)
    verdicts = max(len(each.verdict) for each in judged)
    others = names + len("value") + max(verdicts, len("verdict")) + len("broken") + 4 * GAP
    table = Table(box=None, pad_edge=False)
    table.add_column("patch", overflow="fold", width=max(names, len("patch")))
    table.add_column("value", justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("broken", justify="right")
    table.add_column("cause", no_wrap=True, overflow="ellipsis", max_width=max(1, console.width - others))
    for each in judged:
        table.add_row(
            Text(visible(each.patch)),
            NONE if each.value is None else f"{each.value:.3f}",
            Text(each.verdict, style=STYLES.get(each.verdict, "red")),
            NONE if each.run is None else str(len(each.run.broken)),
            Text(visible(" ".join(each.cause.split()))),
        )
    console.print(table)
    console.print(totals(judged), soft_wrap=True)


def totals(judged: Sequence[Judged]) -> str:
    """How many patches, how many of each verdict, and the mean value of those that were scored."""
    verdicts = Counter(each.verdict for each in judged)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    values = [each.value for each in judged if each.value is not None]
    mean = f"; mean value {fmean(values):.3f} of {len(values)} scored" if values else ""
    return f"{len(judged)} patches: {counts}{mean}"
