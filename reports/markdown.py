"""A comparison as Markdown, for the summary of a CI job, a comment on a pull request, or a log."""

from __future__ import annotations

from regrade.evaluators.analysis.comparison import Comparison, Difference
from regrade.reports.number_format import detectable, number, p_value, percent, signed

MARKS = {"improved": "✅", "regressed": "❌", "inconclusive": "❔", "no difference shown": "➖", "not comparable": "⚠️"}


def comparison_markdown(comparison: Comparison) -> str:
    """Return the verdict, the reason, a table of all differences, and notes."""
    title = f"{plain(comparison.candidate)} against {plain(comparison.baseline)}"
    lines = [f"### {MARKS[comparison.verdict]} {title}: **{comparison.verdict}**", "", plain(comparison.reason)]
    if comparison.metrics:
        clusters = "repositories" if comparison.clusters == "repository" else "functions"
        lines += [
            "",
            "| | baseline | candidate | change | 95 % interval | p (Holm) | noise (A/A) | detectable | |",
            "|-|-:|-:|-:|-:|-:|-:|-:|-|",
            *(_row(difference) for difference in comparison.metrics.values()),
            "",
            f"{comparison.n_tasks} tasks in {comparison.n_clusters} {clusters}; {comparison.n_baseline} and "
            f"{comparison.n_candidate} attempts; margin {100 * comparison.margin:g} points. Rates in per cent, changes "
            "in points. Detectable: the smallest true difference with 80 % power.",
        ]
    lines += [f"- {plain(warning)}" for warning in comparison.warnings]
    return "\n".join(lines)


def _row(difference: Difference) -> str:
    scale, digits = (100.0, 1) if difference.is_rate else (1.0, 3)
    is_judged = difference.better != "neither"
    cells = (
        plain(difference.label),
        *(percent(v) if difference.is_rate else number(v) for v in (difference.baseline, difference.candidate)),
        signed(scale * difference.difference, digits),
        f"{signed(scale * difference.low, digits)} to {signed(scale * difference.high, digits)}",
        p_value(difference.p_holm) if is_judged else "",
        "" if difference.noise is None else f"±{scale * difference.noise:.{digits}f}",
        detectable(difference),
        difference.verdict if is_judged and difference.verdict != "no difference shown" else "",
    )
    return "| " + " | ".join(cells) + " |"


def plain(text: str) -> str:
    """Return text with escaped Markdown signs: names of policies and tasks are untrusted."""
    one_line = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in one_line)
