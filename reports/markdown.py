"""A comparison as Markdown, for the summary of a CI job, a comment on a pull request, or a log."""

from __future__ import annotations

from collections.abc import Iterator

from regrade.evaluators.analysis.comparison import Comparison, Difference
from regrade.evaluators.analysis.differences import VERDICT_METRICS
from regrade.evaluators.analysis.metrics import FIX_AND_CLEAN
from regrade.reports.number_format import detectable, methods, number, p_value, percent, signed
from regrade.reports.verdict_text import ANSWERS

MARKS = {"improved": "✅", "regressed": "❌", "inconclusive": "❔", "no difference shown": "➖", "not comparable": "⚠️"}


def comparison_markdown(comparison: Comparison) -> str:
    """Return the verdict with its scope, the reason, a table of all differences, and notes."""
    title = f"{plain(comparison.candidate)} against {plain(comparison.baseline)}"
    detail = f" ({comparison.decision.detail})" if comparison.decision else ""
    lines = [f"### {MARKS[comparison.verdict]} {title}: **{comparison.verdict}**{detail}", ""]
    lines += [f"**For {comparison.scope}.**", ""] if comparison.scope else []
    lines.append(plain(comparison.reason))
    if comparison.metrics:
        clusters = "repositories" if comparison.clusters == "repository" else "functions"
        lines += [
            "",
            "| | baseline | candidate | change | 95 % interval | p | noise (A/A) | MDE | |",
            "|-|-:|-:|-:|-:|-:|-:|-:|-|",
            *_rows(comparison),
            "",
            f"Means over all attempts (intention to treat): {comparison.n_tasks} tasks in {comparison.n_clusters} "
            f"{clusters}; {comparison.n_baseline} and {comparison.n_candidate} attempts; non-inferiority margin "
            f"{100 * comparison.margin:g} points. Rates in per cent, changes in points; intervals: "
            f"{methods(comparison)}. p of metrics beside those of the verdict is adjusted (Holm). MDE: minimum "
            "detectable effect at 80 % power.",
        ]
    lines += [f"- {plain(warning)}" for warning in comparison.warnings]
    return "\n".join(lines)


def _rows(comparison: Comparison) -> Iterator[str]:
    for metric in VERDICT_METRICS:
        if metric.name not in comparison.metrics:
            yield f"| {metric.label} | | | | | | | | unmeasured |"
    for difference in comparison.metrics.values():
        words: str = "" if difference.verdict == "no difference shown" else difference.verdict
        if difference.is_decisive and comparison.decision is not None:
            decision = comparison.decision
            answer = decision.fixing if difference.name == FIX_AND_CLEAN.name else decision.breaking
            words = ANSWERS[answer.kind]
        yield _row(difference, words)


def _row(difference: Difference, words: str) -> str:
    scale, digits = (100.0, 1) if difference.is_rate else (1.0, 3)
    cells = (
        plain(difference.label),
        *(percent(v) if difference.is_rate else number(v) for v in (difference.baseline, difference.candidate)),
        signed(scale * difference.difference, digits),
        f"{signed(scale * difference.low, digits)} to {signed(scale * difference.high, digits)}",
        p_value(difference.p_holm) if difference.better != "neither" else "",
        "" if difference.noise is None else f"±{scale * difference.noise:.{digits}f}",
        detectable(difference),
        words,
    )
    return "| " + " | ".join(cells) + " |"


def plain(text: str) -> str:
    """Return text with escaped Markdown signs: names of policies and tasks are untrusted."""
    one_line = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in one_line)
