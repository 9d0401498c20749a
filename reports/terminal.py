"""Policies and comparisons as tables for the terminal. Colour says nothing that the words don't say too."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.evaluators.comparison import Comparison, Difference
from regrade.evaluators.metrics import FIX_AND_CLEAN
from regrade.reports.results import SHOWN, Results
from regrade.reports.wording import MINUS, duration, p_value, percent, rate, signed, temperature

STYLES = {
    "improved": "bold green", "better": "green", "regressed": "bold red", "worse": "red",
    "not comparable": "bold yellow", "no difference shown": "",
}
MARKS = {"better": "better", "worse": "worse", "no difference shown": "not shown"}


def print_policies(results: Results, console: Console) -> None:
    """Every policy at its own best temperature: rates with 95 % intervals, and the number of attempts."""
    console.print(f"{results.n_tasks} held-out tasks", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("policy", overflow="fold")
    table.add_column("sampling", no_wrap=True)
    for metric in SHOWN:
        table.add_column(metric.label.lower(), justify="right")
    table.add_column("n", justify="right")
    for policy in results.policies:
        found = policy.estimates()
        n = found[SHOWN[0].name].n
        rates = [rate(found[metric.name]) for metric in SHOWN[:-1]] + [percent(found[SHOWN[-1].name].value)]
        table.add_row(f"{policy.label} ({policy.role})", temperature(policy.temperature), *rates, str(n))
    console.print(table)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The verdict in words, then every metric with its paired difference, interval and p."""
    console.print(_verdict(comparison))
    if comparison.metrics:
        console.print(_differences(comparison))
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


def _differences(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in (comparison.baseline, comparison.candidate, "difference", "95 % interval", "p", "p (Holm)", ""):
        table.add_column(heading, justify="right", no_wrap=heading not in (comparison.baseline, comparison.candidate))
    for difference in comparison.metrics.values():
        table.add_row(*_row(difference))
    return table


def _row(difference: Difference) -> list[str | Text]:
    scale, digits = (100.0, 1) if difference.is_rate else (1.0, 3)
    values = [percent(v) if difference.is_rate else f"{v:.3f}".replace("-", MINUS)
              for v in (difference.baseline, difference.candidate)]
    ends = f"[{signed(scale * difference.low, digits)}, {signed(scale * difference.high, digits)}]"
    judged = difference.better != "neither"
    mark = Text(MARKS[difference.verdict] if judged else "", style=STYLES[difference.verdict])
    return [
        difference.label, *values, signed(scale * difference.difference, digits), Text(ends),
        p_value(difference.p), p_value(difference.p_holm) if judged else "", mark,
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
