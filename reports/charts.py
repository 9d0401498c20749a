"""The charts of the report, drawn from computed figures. Colours are names of `regrade.reports.svg.INKS`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from regrade.evaluators.analysis.comparison import Comparison, Difference
from regrade.evaluators.analysis.metrics import Estimate
from regrade.reports.number_format import duration, percent, rate, signed, temperature, told_apart
from regrade.reports.svg import INKS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 31
"""Height of one row of a chart, in CSS pixels."""
EFFECT = {"better": "good", "worse": "bad", "no difference shown": "neutral"}


@dataclass(frozen=True)
class Point:
    """One policy at one temperature."""

    temperature: float
    fix: Estimate
    breakage: Estimate
    clean_fix: Estimate
    is_best: bool


@dataclass(frozen=True)
class Series:
    """One policy at all its temperatures."""

    label: str
    ink: str
    points: Sequence[Point]
    pick: Mapping[str, str] = field(default_factory=dict)
    """Filter of the tasks for a click on its best point, see `Canvas.tip`; empty if no task shows its attempts."""


def forest(
    name: str, differences: Sequence[Difference], margin: float | None = None, reach: float | None = None
) -> Markup:
    """Paired differences of rates in points with intervals, one row per metric; the margin as a band around 0.

    The axis extends by the rate `reach` to either side: adjacent charts then share one scale, and a bound of a constant
    measure is cut off there, with an arrow. Empty without any.
    """
    if not differences:
        return Markup()
    labels = [one.label + (" ↓" if one.better == "lower" else "") for one in differences]
    with canvas(name, "Paired differences with 95 % intervals", height=ROW * len(labels) + 44) as drawing:
        axes = drawing.axes
        if reach:
            axes.set_xlim(-105 * reach, 105 * reach)
        if margin:
            axes.axvspan(-100 * margin, 100 * margin, color=INKS["band"], linewidth=0)
        axes.axvline(0, color=INKS["axis"], linewidth=1.2)
        for row, difference in enumerate(differences):
            ink = INKS[EFFECT[difference.verdict]]
            _whisker(axes, row, difference, ink, drawing.tip(f"{difference.label}: {_points(difference)}"))
            if reach:
                _arrows(axes, row, difference, reach, ink)
        name_rows(axes, labels)
        axes.set_xlabel("points, candidate minus baseline")
    return drawing.svg


def repositories(name: str, differences: Mapping[str, Difference]) -> Markup:
    """The difference of one metric within each repository, with its number of tasks; empty for fewer than two."""
    if len(differences) < 2:
        return Markup()
    labels = [f"{repository} ({difference.n_tasks})" for repository, difference in differences.items()]
    with canvas(name, "Difference by repository", height=ROW * len(labels) + 44) as drawing:
        drawing.axes.axvline(0, color=INKS["axis"], linewidth=1.2)
        for row, (repository, difference) in enumerate(differences.items()):
            ink = INKS[EFFECT[difference.verdict]]
            text = f"{repository}: {_points(difference)}, {difference.n_tasks} tasks"
            _whisker(drawing.axes, row, difference, ink, drawing.tip(text, {"repository": repository}))
        name_rows(drawing.axes, labels)
        drawing.axes.set_xlabel("points, candidate minus baseline")
    return drawing.svg


def trade_off(series: Sequence[Series]) -> Markup:
    """Fix rate against breakage, one line per policy over its temperatures; the best temperature is filled."""
    with canvas("trade-off", "Fix rate against breakage by temperature", height=290) as drawing:
        axes = drawing.axes
        for one in series:
            ink = INKS[one.ink]
            axes.plot([100 * p.breakage.value for p in one.points], [100 * p.fix.value for p in one.points], color=ink)
            for point in one.points:
                text = (
                    f"{one.label}, {temperature(point.temperature)}: fixed {rate(point.fix)}, "
                    f"breakage {rate(point.breakage)}"
                )
                pick = one.pick if point.is_best else {}
                axes.plot(
                    [100 * point.breakage.value],
                    [100 * point.fix.value],
                    "o",
                    markersize=9 if point.is_best else 6,
                    markerfacecolor=ink if point.is_best else INKS["surface"],
                    markeredgecolor=ink,
                    markeredgewidth=2,
                    clip_on=False,  # without breakage, a point lies on the axis
                    zorder=3,
                    gid=drawing.tip(text, pick),
                )
                if point in (one.points[0], one.points[-1]):  # labels of all points would overlap
                    axes.annotate(
                        "greedy" if point.temperature == 0 else f"{point.temperature:g}",
                        (100 * point.breakage.value, 100 * point.fix.value),
                        xytext=(7, 5),
                        textcoords="offset points",
                        fontsize=9.5,
                        color=INKS["muted"],
                    )
        axes.tick_params(pad=8)
        axes.set_xlabel("breakage, % of all attempts")
        axes.set_ylabel("fixed, % of all attempts")
        axes.set_xlim(0, max(5.0, 115 * max(p.breakage.value for one in series for p in one.points)))
        axes.set_ylim(0, max(5.0, 112 * max(p.fix.value for one in series for p in one.points)))
    return drawing.svg


def by_temperature(series: Sequence[Series]) -> Markup:
    """Clean fixes over temperature with intervals, one line per policy."""
    with canvas("by-temperature", "Clean fixes by temperature", height=290) as drawing:
        axes = drawing.axes
        for one in series:
            xs = [point.temperature for point in one.points]
            ys = [100 * point.clean_fix.value for point in one.points]
            lows, highs = ([100 * getattr(point.clean_fix, end) for point in one.points] for end in ("low", "high"))
            axes.fill_between(xs, lows, highs, color=INKS[one.ink], alpha=0.13, linewidth=0)
            axes.plot(xs, ys, color=INKS[one.ink])
            for point, x, y in zip(one.points, xs, ys, strict=True):
                text = f"{one.label}, {temperature(x)}: {rate(point.clean_fix)}"
                axes.plot(
                    [x], [y], "o", markersize=6, color=INKS[one.ink], clip_on=False, zorder=3, gid=drawing.tip(text)
                )
        ticks = sorted({point.temperature for one in series for point in one.points})
        axes.set_xticks(ticks, ["greedy" if tick == 0 else f"{tick:g}" for tick in ticks])
        axes.set_xlabel("temperature")
        axes.set_ylabel("clean fixes, %")
        axes.set_ylim(0, max(5.0, axes.get_ylim()[1]))
    return drawing.svg


def difference_by_temperature(name: str, comparisons: Mapping[float, Comparison], metric: str, ink: str) -> Markup:
    """The difference of one metric with both policies at the same temperature; empty for fewer than two."""
    if len(comparisons) < 2:
        return Markup()
    with canvas(name, "Difference at each temperature", height=215) as drawing:
        axes = drawing.axes
        axes.axhline(0, color=INKS["axis"], linewidth=1.2)
        differences = {
            t: comparison.metrics[metric] for t, comparison in comparisons.items() if metric in comparison.metrics
        }
        for x, difference in differences.items():
            ends = [[100 * (difference.difference - difference.low)], [100 * (difference.high - difference.difference)]]
            axes.errorbar(
                [x],
                [100 * difference.difference],
                yerr=ends,
                fmt="o",
                markersize=7,
                color=INKS[ink],
                elinewidth=2,
                gid=drawing.tip(f"{temperature(x)}: {_points(difference)}"),
            )
        axes.set_xticks(list(differences), ["greedy" if t == 0 else f"{t:g}" for t in differences])
        axes.margins(x=0.12)
        axes.set_xlabel("temperature of both")
        axes.set_ylabel("points")
    return drawing.svg


def stacked(
    name: str,
    description: str,
    bars: Mapping[str, Mapping[str, float]],
    inks: Mapping[str, str],
    *,
    unit: str = "",
    limit: float | None = None,
) -> Markup:
    """Stacked horizontal bars: bar -> part -> length; `inks`: part -> ink. Negative parts extend to the left of 0."""
    if not bars:
        return Markup()
    with canvas(name, description, height=ROW * len(bars) + 44) as drawing:
        axes = drawing.axes
        for row, (bar, parts) in enumerate(bars.items()):
            right = left = 0.0
            for part, length in parts.items():
                shown = percent(length, 0) if unit == "%" else f"{length:.3f}"
                start = right if length >= 0 else left + length
                axes.barh(
                    [row],
                    [abs(length)],
                    left=[start],
                    height=0.56,
                    color=INKS[inks[part]],
                    edgecolor=INKS["surface"],
                    linewidth=1.5,
                    gid=drawing.tip(f"{bar}, {part}: {shown}"),
                )
                right, left = right + max(length, 0.0), left + min(length, 0.0)
        name_rows(axes, list(bars))
        if limit is not None:
            axes.set_xlim(right=limit)
        if unit == "%":
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return drawing.svg


def bars(name: str, description: str, seconds: Mapping[str, float]) -> Markup:
    """Wall times as horizontal bars with their durations."""
    if not seconds:
        return Markup()
    with canvas(name, description, height=ROW * len(seconds) + 20) as drawing:
        axes = drawing.axes
        for row, (label, value) in enumerate(seconds.items()):
            text = duration(value)
            axes.barh([row], [value], height=0.56, color=INKS["neutral"], gid=drawing.tip(f"{label}: {text}"))
            axes.annotate(text, (value, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=10)
        name_rows(axes, list(seconds))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.24)
        axes.set_xlim(left=0)
    return drawing.svg


def curve(
    name: str,
    quantity: str,
    steps: Sequence[float],
    values: Sequence[float | None],
    ink: str,
    *,
    alarms: Sequence[float] = (),
    returns: Sequence[float] = (),
    is_exact: bool = False,
) -> Markup:
    """One quantity over training steps: each step faint, the running mean on top; null is skipped, at an alarm a gap.

    What is logged at every few steps only, such as the reward of a generation, has a dot at each of them.

    Args:
        is_exact: it has no noise, so it is drawn as it is.
        alarms: steps with a line: the stability guard stopped them.
        returns: those of them at which training went back to earlier weights; their line is whole.
    """
    import pandas as pd

    numbers = [float("nan") if value is None else float(value) for value in values]
    raw = pd.Series(numbers, index=list(steps), dtype="float64")
    raw = raw[raw.notna() | raw.index.isin(alarms)]
    is_sparse = 2 * len(raw) < len(numbers) or len(raw) == 1
    smooth = raw if is_exact else raw.rolling(max(1, len(raw) // 8), min_periods=1, center=True).mean()
    with canvas(name, f"{quantity} over training steps", width=270, height=160) as drawing:
        axes = drawing.axes
        if not is_exact:
            axes.plot(raw.index, raw, color=INKS[ink], alpha=0.3, linewidth=1)
        for step in alarms:
            is_return = step in returns
            tip = drawing.tip(f"step {step:g}: {'alarm and rollback' if is_return else 'alarm'}")
            axes.axvline(step, color=INKS["bad"], linewidth=1, linestyle="-" if is_return else ":", gid=tip)
        seen = smooth.dropna()
        tip = drawing.tip(
            f"{quantity}: {' to '.join(told_apart(seen.iloc[0], seen.iloc[-1]))}" if len(seen) else quantity
        )
        axes.plot(smooth.index, smooth, marker="o" if is_sparse else "", markersize=4, color=INKS[ink], gid=tip)
        axes.set_xlim(*_with_margin(steps))
        axes.locator_params(nbins=4)
        axes.locator_params(axis="x", integer=True)
        axes.ticklabel_format(axis="y", useOffset=False)
    return drawing.svg


def _with_margin(steps: Sequence[float]) -> tuple[float, float]:
    """All charts of a phase share the steps of its log, whichever of them a quantity was logged at."""
    margin = max(0.04 * (max(steps) - min(steps)), 0.5)
    return min(steps) - margin, max(steps) + margin


def _whisker(axes: Axes, row: int, difference: Difference, ink: str, tip: str) -> None:
    value, low, high = (100 * x for x in (difference.difference, difference.low, difference.high))
    ends = [[value - low], [high - value]]
    axes.errorbar([value], [row], xerr=ends, fmt="o", markersize=8, color=ink, elinewidth=2.4, gid=tip)


def _arrows(axes: Axes, row: int, difference: Difference, reach: float, ink: str) -> None:
    """Mark each end of an interval beyond the axis."""
    for beyond, place, marker in ((-difference.low, -1, "<"), (difference.high, 1, ">")):
        if beyond > 1.05 * reach:
            axes.plot([103 * place * reach], [row], marker, markersize=6, color=ink)


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows, the first on top, and remove the horizontal grid and the left spine."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, 20) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INKS["text"])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _points(difference: Difference) -> str:
    value, low, high = (signed(100 * x) for x in (difference.difference, difference.low, difference.high))
    return f"{value} [{low}, {high}] points"
