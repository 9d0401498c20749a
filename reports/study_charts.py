"""The charts of a study: rates over demonstrations and over tested tasks, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from regrade.evaluators.analysis.exchange_rate import ExchangeRate
from regrade.evaluators.analysis.metrics import Estimate
from regrade.reports.number_format import rate
from regrade.reports.svg import INKS, Canvas, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 1.035
"""Points of adjacent curves are drawn at x times this, so that their intervals do not overlap."""


@dataclass(frozen=True)
class RateCurve:
    """One kind of training: rates over a count."""

    label: str
    ink: str
    points: Sequence[tuple[int, Estimate]]
    is_level: bool = False
    """It does not depend on the count: its only value is drawn as a level line."""


def rate_curves(
    name: str,
    description: str,
    curves: Sequence[RateCurve],
    counts: Sequence[int],
    x_label: str,
    y_label: str,
    exchange: tuple[ExchangeRate, float] | None = None,
) -> Markup:
    """Rates with 95 % intervals over a count.

    Args:
        exchange: draws the exchange rate of a policy with this rate: from its point to the SFT curve.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return Markup()
    with canvas(name, description, height=290) as drawing:
        axes = drawing.axes
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(counts) / 1.25, max(counts) * 1.25)
        for number, curve in enumerate(drawn):
            _draw(drawing, curve, APART ** (number - (len(drawn) - 1) / 2), x_label)
        if exchange is not None:
            _draw_exchange(drawing, *exchange)
        axes.set_xticks(list(counts), [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(0, max(5.0, axes.get_ylim()[1]))
    return drawing.svg


def _draw(drawing: Canvas, curve: RateCurve, factor: float, x_label: str) -> None:
    axes, ink = drawing.axes, INKS[curve.ink]
    if curve.is_level:
        _, level = curve.points[0]
        axes.axhspan(100 * level.low, 100 * level.high, color=ink, alpha=0.13, linewidth=0)
        axes.axhline(100 * level.value, color=ink, gid=drawing.tip(f"{curve.label}: {rate(level)}"))
        return
    xs = [factor * count for count, _ in curve.points]
    axes.plot(xs, [100 * figure.value for _, figure in curve.points], color=ink, alpha=0.55)
    for x, (count, figure) in zip(xs, curve.points, strict=True):
        ends = [[100 * (figure.value - figure.low)], [100 * (figure.high - figure.value)]]
        axes.errorbar(
            [x],
            [100 * figure.value],
            yerr=None if math.isnan(figure.low) else ends,
            fmt="o",
            markersize=6.5,
            color=ink,
            elinewidth=1.6,
            clip_on=False,
            gid=drawing.tip(f"{curve.label}, {count} {x_label}: {rate(figure)}"),
        )


def _draw_exchange(drawing: Canvas, exchange: ExchangeRate, value: float) -> None:
    """A dashed line at the policy's rate, from its start to where SFT reaches the rate."""
    axes: Axes = drawing.axes
    low, high = axes.get_xlim()
    if math.isnan(exchange.equivalent):
        return
    end = min(max(exchange.equivalent, low), high)
    style: dict[str, Any] = {"color": INKS["text"], "linestyle": (0, (4, 3)), "linewidth": 1.3}
    axes.plot([exchange.start, end], [100 * value, 100 * value], gid=drawing.tip(exchange.words), **style)
    if math.isinf(exchange.equivalent):
        axes.plot([end], [100 * value], ">" if exchange.equivalent > 0 else "<", color=INKS["text"], clip_on=False)
    else:
        axes.plot([end, end], [0, 100 * value], **style)
