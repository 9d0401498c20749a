"""Charts of shares with their intervals, and of a difference by parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from regrade.evaluators.analysis.metrics import Estimate
from regrade.reports.charts import ROW, name_rows
from regrade.reports.number_format import NO_BREAK, number, rate, signed
from regrade.reports.svg import INKS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picks = Mapping[tuple[str, str], Mapping[str, str]]
"""(row, part) -> filter of the tasks that a click shows, see `regrade.reports.svg.Canvas.tip`."""


def stacked_rates(
    name: str, description: str, bars: Mapping[str, Mapping[str, Estimate]], inks: Mapping[str, str], picks: Picks
) -> Markup:
    """Horizontal bars of shares, bar -> part -> share; tooltips show intervals, labels the number of attempts."""
    labels = [
        f"{bar} (n{NO_BREAK}={NO_BREAK}{max((part.n for part in parts.values()), default=0)})"
        for bar, parts in bars.items()
    ]
    with canvas(name, description, height=ROW * len(bars) + 44) as drawing:
        axes = drawing.axes
        for row, (bar, parts) in enumerate(bars.items()):
            start = 0.0
            for part, share in parts.items():
                if not share.value > 0:
                    continue
                tip = drawing.tip(f"{bar}, {part}: {rate(share)}, n = {share.n}", picks.get((bar, part)))
                ink, edge = INKS[inks[part]], INKS["surface"]
                axes.barh([row], [100 * share.value], left=[start], height=0.56, color=ink, edgecolor=edge, gid=tip)
                start += 100 * share.value
        name_rows(axes, labels)
        axes.set_xlabel("% of the attempts")
        axes.set_xlim(left=0)
    return drawing.svg


def grouped(
    name: str,
    description: str,
    rows: Mapping[str, Mapping[str, Estimate]],
    inks: Mapping[str, str],
    unit: str,
    picks: Picks | None = None,
) -> Markup:
    """Shares as points with intervals, grouped by row: row -> label -> share; `inks`: label -> ink."""
    height = max(ROW, 13 * len(inks) + 8)
    with canvas(name, description, height=height * len(rows) + 44) as drawing:
        axes = drawing.axes
        for row, (title, shares) in enumerate(rows.items()):
            for number_in_row, label in enumerate(inks):
                share = shares.get(label)
                if share is None or math.isnan(share.value):
                    continue
                y = row + (number_in_row - (len(inks) - 1) / 2) * 0.64 / max(1, len(inks))
                ends = [[100 * max(0.0, share.value - share.low)], [100 * max(0.0, share.high - share.value)]]
                tip = drawing.tip(f"{label}, {title}: {rate(share)}, n = {share.n}", (picks or {}).get((title, label)))
                axes.errorbar(
                    [100 * share.value],
                    [y],
                    xerr=None if math.isnan(share.low) else ends,
                    fmt="o",
                    markersize=6,
                    color=INKS[inks[label]],
                    elinewidth=2,
                    clip_on=False,
                    gid=tip,
                )
        name_rows(axes, list(rows))
        axes.tick_params(axis="y", pad=9)
        axes.set_xlim(left=0)
        axes.set_xlabel(unit)
    return drawing.svg


def over_steps(
    name: str, description: str, steps: Sequence[int], lines: Mapping[str, tuple[str, Sequence[Estimate]]]
) -> Markup:
    """Shares with intervals over training steps: line -> (ink, share at each step)."""
    with canvas(name, description, width=520, height=260) as drawing:
        axes = drawing.axes
        for label, (ink, shares) in lines.items():
            lows, highs = [100 * share.low for share in shares], [100 * share.high for share in shares]
            axes.fill_between(steps, lows, highs, color=INKS[ink], alpha=0.13, linewidth=0)
            axes.plot(steps, [100 * share.value for share in shares], color=INKS[ink])
            for step, share in zip(steps, shares, strict=True):
                tip = drawing.tip(f"step {step}, {label}: {rate(share)}, n = {share.n}")
                axes.plot([step], [100 * share.value], "o", markersize=7, color=INKS[ink], gid=tip)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("training steps")
        axes.set_ylabel("% of all attempts")
        axes.set_ylim(bottom=0)
    return drawing.svg


def waterfall(
    name: str, first: tuple[str, float], last: tuple[str, float], changes: Sequence[tuple[str, float, float, float]]
) -> Markup:
    """From one mean reward to another: (label, mean) of both, and (part, change, low, high) of each change."""
    labels = [first[0], *(change[0] for change in changes), last[0]]
    with canvas(
        name, f"Change of the mean reward from {first[0]} to {last[0]}, by part", height=ROW * len(labels) + 44
    ) as drawing:
        axes = drawing.axes
        end = [first[1]]
        for row, (label, mean) in ((0, first), (len(labels) - 1, last)):
            tip = drawing.tip(f"{label}: mean reward {number(mean)}")
            axes.barh([row], [mean], height=0.56, color=INKS["neutral"], gid=tip)
            _beside(axes, row, max(mean, 0.0), number(mean))
        for row, (label, change, low, high) in enumerate(changes, 1):
            ends = "" if math.isnan(low) else f" [{signed(low, 3)}, {signed(high, 3)}]"
            tip = drawing.tip(f"{label}: {signed(change, 3)}{ends}")
            ink = "neutral" if math.isnan(low) or low <= 0 <= high else "good" if change > 0 else "bad"
            axes.barh([row], [change], left=[end[-1]], height=0.56, color=INKS[ink], gid=tip)
            axes.plot([end[-1]] * 2, [row - 1.28, row + 0.28], color=INKS["axis"], linewidth=1)
            end.append(end[-1] + change)
            _beside(axes, row, max(end[-2:]), signed(change, 3))
        axes.plot([end[-1]] * 2, [len(labels) - 2.28, len(labels) - 0.72], color=INKS["axis"], linewidth=1)
        name_rows(axes, labels)
        axes.margins(x=0.2)
        axes.set_xlim(left=min(0.0, *end))
        axes.set_xlabel("mean reward")
    return drawing.svg


def _beside(axes: Axes, row: int, x: float, text: str) -> None:
    axes.annotate(text, (x, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=10)
