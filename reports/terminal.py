"""Policies and comparisons as tables for the terminal. Colour says nothing that the words don't say too."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.evaluators.comparison import Comparison, Difference
from regrade.evaluators.metrics import FIX_AND_CLEAN, Estimate
from regrade.reports.results import SHOWN, Results
from regrade.reports.wording import MINUS, NO_BREAK, duration, interval, p_value, percent, signed, temperature

STYLES = {
    "improved": "bold green",
    "better": "green",
    "regressed": "bold red",
    "worse": "red",
    "not comparable": "bold yellow",
    "no difference shown": "",
}
MARKS = {"better": "better", "worse": "worse", "no difference shown": ""}
WIDE = 96
"""Columns of the terminal from which on there is room for the adjusted p-values."""


def print_policies(results: Results, console: Console) -> None:
    """Every policy at its own best temperature: rates with 95 % intervals below, and the number of attempts."""
    console.print(f"{results.n_tasks} tasks", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for metric in SHOWN:
        table.add_column(metric.label.lower(), justify="right")
    table.add_column("n", justify="right")
    for policy in results.policies:
        found = policy.estimates()
        rates = [_stacked(found[metric.name]) for metric in SHOWN]
        name = Text(f"{policy.label}\n{policy.role}, {temperature(policy.temperature)}")
        table.add_row(name, *rates, str(found[SHOWN[0].name].n))
    console.print(table)


def _stacked(estimate: Estimate) -> Text:
    """A rate above its interval, neither ever broken."""
    lines = f"{percent(estimate.value)}\n{interval(estimate)}"
    return Text(lines.replace(" ", NO_BREAK))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The verdict in words, then every metric with its paired difference, interval and p."""
    console.print(_verdict(comparison))
    if comparison.metrics:
        console.print(_differences(comparison, wide=console.width >= WIDE))
        console.print(_footnote(comparison), style="dim")
    for warning in comparison.warnings:
        console.print(Text(f"note: {warning}"), style="dim")


def print_results(results: Results, console: Console) -> None:
    """A run at a glance: policies, verdicts, where the time went."""
    print_policies(results, console)
    for pair in results.pairs:
        console.print()
        print_comparison(pair.best, console)
    shares = results.run.share_of_step()
    if shares:
        console.print()
        listed = ", ".join(f"{name} {percent(share, 0)}" for name, share in shares.items())
        console.print(f"A step of reinforcement learning: {listed}", markup=False)
    if results.manifest.phases:
        console.print()
        console.print(_phases(results))


def _verdict(comparison: Comparison) -> Text:
    text = Text(f"{comparison.candidate} against {comparison.baseline}: ")
    text.append(comparison.verdict.upper(), style=STYLES[comparison.verdict])
    return text.append(f"\n{comparison.reason}")


def _differences(comparison: Comparison, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for policy in (comparison.baseline, comparison.candidate):
        table.add_column(Text(policy, overflow="fold"), justify="right")
    for heading in ("change", "95 % interval", "p", *(("p (Holm)",) if wide else ()), ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for difference in comparison.metrics.values():
        table.add_row(*_row(difference, wide))
    return table


def _row(difference: Difference, wide: bool) -> list[str | Text]:
    judged = difference.better != "neither"
    scale, digits = (100.0, 1) if difference.is_rate else (1.0, 3)
    values = [
        percent(v) if difference.is_rate else f"{v:.3f}".replace("-", MINUS)
        for v in (difference.baseline, difference.candidate)
    ]
    holm = [p_value(difference.p_holm) if judged else ""] if wide else []
    ends = f"[{signed(scale * difference.low, digits)}, {signed(scale * difference.high, digits)}]"
    mark = Text(MARKS[difference.verdict] if judged else "", style=STYLES[difference.verdict])
    return [
        difference.label,
        *(value.replace(" ", NO_BREAK) for value in values),
        signed(scale * difference.difference, digits),
        Text(ends),
        p_value(difference.p),
        *holm,
        mark,
    ]


def _footnote(comparison: Comparison) -> Text:
    what = "repositories" if comparison.clusters == "repository" else "functions"
    detectable = comparison.metrics[FIX_AND_CLEAN.name].detectable
    text = (
        f"{comparison.n_tasks} tasks in {comparison.n_clusters} {what}, {comparison.n_baseline} and "
        f"{comparison.n_candidate} attempts. Differences in points, paired by task; bootstrap over {what}, sign-flip "
        f"permutation. Smallest difference in {FIX_AND_CLEAN.label.lower()} found 4 times in 5: "
        f"{100 * detectable:.1f} points."
    )
    if comparison.mcnemar is not None:
        text += f" McNemar, exact: p = {p_value(comparison.mcnemar)}."
    return Text(text)


def _phases(results: Results) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("phase")
    table.add_column("wall time", justify="right")
    for name, phase in results.manifest.phases.items():
        table.add_row(name, duration(phase.seconds) + ("" if phase.done else " (not finished)"))
    table.add_row("all", duration(sum(phase.seconds for phase in results.manifest.phases.values())))
    return table
