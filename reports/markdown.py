"""A comparison as Markdown: for the summary of a CI job, a pull request's comment, or a log."""

from __future__ import annotations

from regrade.evaluators.analysis.comparison import Comparison, Difference
from regrade.reports.wording import MINUS, detectable, p_value, percent, signed

MARKS = {"improved": "✅", "regressed": "❌", "no difference shown": "➖", "not comparable": "⚠️"}


def comparison_markdown(found: Comparison) -> str:
    """The verdict, the reason, a table of all differences, and notes."""
    lines = [
        f"### {MARKS[found.verdict]} {plain(found.candidate)} against {plain(found.baseline)}: **{found.verdict}**",
        "",
        plain(found.reason),
    ]
    if found.metrics:
        what = "repositories" if found.clusters == "repository" else "functions"
        lines += [
            "",
            "| | baseline | candidate | change | 95 % interval | p (Holm) | noise (A/A) | found 4 in 5 | |",
            "|-|-:|-:|-:|-:|-:|-:|-:|-|",
            *(_row(difference) for difference in found.metrics.values()),
            "",
            f"{found.n_tasks} tasks in {found.n_clusters} {what}; {found.n_baseline} and {found.n_candidate} attempts; "
            f"margin {100 * found.margin:g} points. Rates in per cent, changes in points.",
        ]
    lines += [f"- {plain(warning)}" for warning in found.warnings]
    return "\n".join(lines)


def _row(found: Difference) -> str:
    scale, digits = (100.0, 1) if found.is_rate else (1.0, 3)
    is_judged = found.better != "neither"
    cells = (
        plain(found.label),
        *(percent(v) if found.is_rate else f"{v:.3f}".replace("-", MINUS) for v in (found.baseline, found.candidate)),
        signed(scale * found.difference, digits),
        f"{signed(scale * found.low, digits)} to {signed(scale * found.high, digits)}",
        p_value(found.p_holm) if is_judged else "",
        "" if found.noise is None else f"±{scale * found.noise:.{digits}f}",
        detectable(found),
        found.verdict if is_judged and found.verdict != "no difference shown" else "",
    )
    return "| " + " | ".join(cells) + " |"


def plain(text: str) -> str:
    """Text whose own signs mean nothing to Markdown: names of policies and tasks are not ours to trust."""
    one_line = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in one_line)
