"""Format of numbers and durations, the same in the terminal and in the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrade.evaluators.analysis.comparison import Comparison, Difference
    from regrade.evaluators.analysis.metrics import Estimate

MINUS = "−"
NO_BREAK = "\u00a0"


def percent(value: float | None, digits: int = 1) -> str:
    """0.1234 -> `12.3 %`; a dash for an unknown value."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def rate_value(estimate: Estimate) -> str:
    """`12.3 %`; `unmeasured` if no attempt has a value and none is missing."""
    return "unmeasured" if estimate.is_unmeasured else percent(estimate.value)


def rate(estimate: Estimate) -> str:
    """`12.3 % [10.1, 14.8]`, or `unmeasured`."""
    if estimate.is_unmeasured:
        return "unmeasured"
    return f"{percent(estimate.value)} {interval(estimate)}".strip()


def interval(estimate: Estimate) -> str:
    """`[10.1, 14.8]` in per cent; empty without an interval."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return ""
    return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def figure(estimate: Estimate, *, is_rate: bool) -> str:
    """A rate as `rate` writes it, another mean as `7.25 [6.80, 7.71]`."""
    if is_rate or estimate.is_unmeasured:
        return rate(estimate)
    text = number(estimate.value, 2)
    known = math.isfinite(estimate.low + estimate.high)
    return f"{text} [{number(estimate.low, 2)}, {number(estimate.high, 2)}]" if known else text


def signed(value: float, digits: int = 1) -> str:
    """`+3.1` or `−3.1`, with a true minus sign."""
    return "–" if math.isnan(value) else f"{value + 0.0:+.{digits}f}".replace("-", MINUS)


def logged(value: float) -> str:
    """A number of a training log: a count as `1,120`, a tiny one as `2e−05`, any other as `number` writes it."""
    if math.isfinite(value) and value == int(value):
        return f"{int(value):,}".replace("-", MINUS)
    return f"{value:.2g}".replace("-", MINUS) if abs(value) < 0.001 else number(value)


def number(value: float, digits: int = 3) -> str:
    """`0.600` or `−0.100`, with a true minus sign; a dash for an unknown value."""
    return "–" if math.isnan(value) else f"{value + 0.0:.{digits}f}".replace("-", MINUS)


def told_apart(first: float, last: float) -> tuple[str, str]:
    """Both in as few significant digits, three at least, as tell them apart."""
    digits = next((digits for digits in range(3, 17) if f"{first:.{digits}g}" != f"{last:.{digits}g}"), 3)
    return f"{first:.{digits}g}", f"{last:.{digits}g}"


def points(difference: Difference) -> str:
    """`+5.3 points (95 % interval +0.2 to +10.4)`, at the confidence of the interval."""
    low, high, level = signed(100 * difference.low), signed(100 * difference.high), confidence(difference)
    return f"{signed(100 * difference.difference)} points ({level} interval {low} to {high})"


def detectable(difference: Difference) -> str:
    """`5.3`, or `>100` if no difference of a rate is detectable; a dash for an unknown value."""
    if difference.detectable <= 0:
        return "–"
    if difference.is_rate and difference.detectable > 1:
        return ">100"
    return number(100 * difference.detectable, 1) if difference.is_rate else number(difference.detectable)


def minimum_effects(comparison: Comparison) -> str:
    """`Minimum detectable effect at 80 % power: 3.9 points in clean fixes, 5.0 in breakage.`"""
    listed: list[str] = []
    for name, noun in (("fix_and_clean", "clean fixes"), ("breakage_incidence", "breakage")):
        difference = comparison.metrics.get(name)
        if difference is not None:
            unit = "" if listed else " points"
            least = "none of any size" if difference.detectable > 1 else f"{detectable(difference)}{unit}"
            listed.append(f"{least} in {noun}")
    return f"Minimum detectable effect at 80 % power: {', '.join(listed)}."


def confidence(comparison: Comparison | Difference) -> str:
    """`95 %`, or `99.5 %` in a family of ten candidates."""
    return f"{round(100 * comparison.confidence, 1):g} %"


def family(comparison: Comparison) -> str:
    """How the candidates of a family are accounted for."""
    return (
        f"One of {comparison.family} candidates: by Holm's method over all of them, intervals have a confidence of "
        f"{confidence(comparison)}, so that false verdicts occur in at most 5 % of such families."
    )


def elsewhere(comparison: Comparison) -> str:
    """What the intervals for other repositories show; empty for a single repository."""
    listed = []
    for name, noun in (("fix_and_clean", "clean fixes"), ("breakage_incidence", "breakage")):
        ends = comparison.metrics[name].over_repositories if name in comparison.metrics else None
        if ends is not None:
            listed.append(f"{noun} [{signed(100 * ends[0])}, {signed(100 * ends[1])}]")
    if comparison.elsewhere is None or not listed:
        return ""
    return f"For other repositories, of which these are a sample: {comparison.elsewhere}, {', '.join(listed)} points."


def methods(comparison: Comparison) -> str:
    """The methods of the two intervals of the verdict: `score, t(57)`."""
    used = [one.method for one in comparison.metrics.values() if one.is_decisive and one.method]
    return " and ".join(dict.fromkeys(used))


def p_value(p: float) -> str:
    """`0.031`, or `<0.001`."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def equals_p(p: float) -> str:
    """`p = 0.031`, or `p < 0.001`."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def duration(seconds: float) -> str:
    """`48 s`, `12 min 05 s`, `1 h 02 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def temperature(value: float) -> str:
    """`greedy` or `T = 0.7`."""
    return "greedy" if value == 0 else f"T = {value:g}"
