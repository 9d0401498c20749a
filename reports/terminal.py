"""Policies and comparisons as tables for the terminal. Colour says nothing that the words don't say too."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis import side_metrics as side
from regrade.evaluators.analysis.comparison import Comparison, Difference
from regrade.evaluators.analysis.differences import VERDICT_METRICS
from regrade.evaluators.analysis.metrics import BREAKAGE_INCIDENCE, FIX_AND_CLEAN, FIX_RATE, Estimate, estimate
from regrade.evaluators.analysis.uncertainty import MINIMUM_CLUSTERS
from regrade.reports.results import SHOWN, Results
from regrade.reports.wording import (
    MINUS,
    NO_BREAK,
    detectable,
    duration,
    equals_p,
    interval,
    p_value,
    percent,
    rate,
    signed,
    temperature,
)

STYLES = {
    "improved": "bold green",
    "better": "green",
    "regressed": "bold red",
    "worse": "red",
    "not comparable": "bold yellow",
    "no difference shown": "",
}
MARKS = {"better": "better", "worse": "worse", "no difference shown": ""}
TOLD = (
    *SHOWN,
    m.BREAKAGE_OF_CHANGES,
    m.FIXED_BUT_BROKE,
    side.CROSS_MODULE,
    side.TOUCHES_FILE,
    side.TOUCHES_FUNCTION,
    side.OFF_FUNCTION,
    side.NEW_LINT,
    side.BUILD_FAILED,
    side.PROTECTED_EDITS,
    side.TAMPERED,
)
COSTS: tuple[tuple[m.CostColumn, str], ...] = (("tokens", "tokens"), ("seconds", "s"))
LABEL = 48
"""Columns for the name of a figure."""
SLICED = (FIX_AND_CLEAN, FIX_RATE, BREAKAGE_INCIDENCE)
"""The figures of tables with many rows: the trade-off that they are looked at for."""
WIDE = 96
"""Columns of the terminal from which on there is room for the adjusted p-values."""


def print_policies(results: Results, console: Console) -> None:
    """Every policy at its own best temperature: rates with 95 % intervals below, and the number of attempts."""
    console.print(counted(results.n_tasks, "task"), style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for metric in SHOWN:
        table.add_column(metric.label.lower(), justify="right")
    table.add_column("n", justify="right")
    for policy in results.policies:
        if policy.role == "checkpoint" and policy.entry.series:
            continue  # they have a table of their own
        found = policy.estimates()
        rates = [_stacked(found[metric.name]) for metric in SHOWN]
        name = Text(f"{policy.label}\n{policy.role}, {temperature(policy.temperature)}")
        table.add_row(name, *rates, str(found[SHOWN[0].name].n))
    console.print(table)
    _print_tampering(results, console)


def _print_tampering(results: Results, console: Console) -> None:
    """How often each policy tampered with the evaluation, over all temperatures, and how."""
    looked = {policy.label: found for policy in results.policies if (found := m.tampering(policy.rows))["looked_at"]}
    if looked and not any(found["attempts"] for found in looked.values()):
        attempts = sum(found["looked_at"] for found in looked.values())
        console.print(f"No attempt of {attempts} tampered with the evaluation.")
        return
    for label, found in looked.items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in found["kinds"].items())
        console.print(
            f"{label} tampered with the evaluation in {found['attempts']} of {found['looked_at']} attempts"
            f"{f': {kinds}' if kinds else ''}",
            markup=False,
        )


def print_sweeps(results: Results, console: Console) -> None:
    """How fixing and breaking trade off: every policy that was tried at several temperatures, at each of them."""
    swept = [policy for policy in results.policies if len(policy.temperatures) > 1]
    if not swept:
        return
    table = _rates_table("by temperature", "temperature")
    for policy in swept:
        for t in policy.temperatures:
            name = policy.label if t == policy.temperatures[0] else ""
            mark = f"{temperature(t)}{' (its best)' if t == policy.temperature else ''}"
            table.add_row(Text(name), mark, *_rates(policy.estimates(t)))
    console.print(table)


def print_series(results: Results, console: Console) -> None:
    """Fixing and breaking along each training, a row a checkpoint."""
    for name, policies in results.series.items():
        table = _rates_table(f"along {name}", "step")
        for policy in policies:
            marked = Text(policy.label if policy.label != f"{name}@{policy.entry.step}" else "")
            table.add_row(marked, str(policy.entry.step), *_rates(policy.estimates()))
        console.print(table)


def print_slices(results: Results, console: Console) -> None:
    """Every policy on parts of the tasks: by each trait by which they differ."""
    labels = {policy.name: policy.label for policy in results.policies}
    for trait, values in results.slices.items():
        table = _rates_table(f"by {trait}", "policy")
        for value, policies in values.items():
            for number, (name, rows) in enumerate(policies.items()):
                tasks = rows["task"].nunique()
                place = f"{value} ({counted(tasks, 'task')})" if number == 0 else ""
                found = {metric.name: estimate(rows, metric) for metric in SLICED}
                table.add_row(Text(place), Text(labels[name]), *_rates(found))
        console.print(table)


def print_evaluation(results: Results, console: Console) -> None:
    """All of an evaluation of several policies: figures, sweeps, series, slices, and who is better than whom."""
    print_policies(results, console)
    for show in (print_sweeps, print_series, print_slices):
        show(results, console)
    for pair in results.pairs:
        console.print()
        print_comparison(pair.best, console)


def _rates_table(title: str, second: str) -> Table:
    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    table.add_column(second, overflow="fold")
    for metric in SLICED:
        table.add_column(metric.label.lower(), justify="right")
    return table


def _rates(found: Mapping[str, Estimate]) -> list[str]:
    return [rate(found[metric.name]).replace(" ", NO_BREAK) for metric in SLICED]


def _stacked(estimate: Estimate) -> Text:
    """A rate above its interval, neither ever broken."""
    lines = f"{percent(estimate.value)}\n{interval(estimate)}"
    return Text(lines.replace(" ", NO_BREAK))


def print_figures(policy: str, at: float, rows: pd.DataFrame, console: Console) -> None:
    """One policy's rates with intervals, and what stands beside them: severity, side effects, costs."""
    tasks, attempts = rows["task"].nunique(), len(rows)
    console.print(
        f"{policy}, {temperature(at)}: {counted(tasks, 'task')}, {counted(attempts, 'attempt')}", markup=False
    )
    for metric in TOLD:
        found = estimate(rows, metric)
        if found.n:
            text = _told(found) + (_rule_of_three(found) if metric is m.BREAKAGE_INCIDENCE else "")
            console.print(f"  {metric.label:{LABEL}} {text}", markup=False)
    severity = m.severity(rows)
    shares = " ".join(percent(x, 2) for x in (severity.mean.value, severity.median, severity.ninetieth))
    label = "Guarded tests broken (mean, median, 90th)"
    console.print(f"  {label:{LABEL}} {shares}; half or more: {percent(severity.catastrophes)}", markup=False)
    for cost, unit in COSTS:
        spent = m.cost_per_clean_fix(rows, cost)
        if 0 < spent < math.inf:
            console.print(f"  {f'{cost.capitalize()} for each clean fix':{LABEL}} {spent:,.0f} {unit}", markup=False)


def _told(found: Estimate) -> str:
    text = f"{percent(found.value):>7}  {interval(found)}"
    if found.missing:
        text += f"; {found.missing} missing"
    if found.worst is not None and found.best is not None:
        text += f", with them {percent(found.worst)} at worst and {percent(found.best)} at best"
    return text


def _rule_of_three(found: Estimate) -> str:
    if found.at_most is None:
        return ""
    return f"; none seen, so at most {percent(found.at_most)} by the rule of three over {found.n_clusters} clusters"


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
    clean = comparison.metrics[FIX_AND_CLEAN.name]
    least = "none, of whatever size" if clean.detectable > 1 else f"{detectable(clean)} points"
    method = "bootstrap" if comparison.n_clusters >= MINIMUM_CLUSTERS else f"t({comparison.n_clusters - 1})"
    text = (
        f"{comparison.n_tasks} tasks in {comparison.n_clusters} {what}, {comparison.n_baseline} and "
        f"{comparison.n_candidate} attempts. Differences in points, paired by task; {method} over {what}, sign-flip "
        f"permutation. Smallest difference in {FIX_AND_CLEAN.label.lower()} detected with 80 % power: {least}."
    )
    noise = [comparison.metrics[metric.name] for metric in VERDICT_METRICS if metric.name in comparison.metrics]
    known = [f"{100 * each.noise:.1f} in {each.label.lower()}" for each in noise if each.noise is not None]
    if known:
        text += f" A/A: with other seeds, {comparison.baseline} differs from itself by up to {', '.join(known)}."
    for name, pairs in comparison.pairs.items():
        low, high = signed(100 * pairs.low), signed(100 * pairs.high)
        label = comparison.metrics[name].label
        text += f" {label}: McNemar, exact, {equals_p(pairs.p)}, Newcombe [{low}, {high}]."
    if comparison.worst is not None:
        text += f" With what is missing: {comparison.worst} at worst, {comparison.best} at best."
    return Text(text)


def _phases(results: Results) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("phase")
    table.add_column("wall time", justify="right")
    for name, phase in results.manifest.phases.items():
        table.add_row(name, duration(phase.seconds) + ("" if phase.done else " (not finished)"))
    table.add_row("all", duration(sum(phase.seconds for phase in results.manifest.phases.values())))
    return table
