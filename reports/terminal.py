"""Policies and comparisons as tables for the terminal. Colour repeats the text and adds nothing."""

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
from regrade.evaluators.analysis.agent_metrics import AGENT_METRICS, agent_figures, episode_ends
from regrade.evaluators.analysis.comparison import Comparison, Difference
from regrade.evaluators.analysis.differences import VERDICT_METRICS
from regrade.evaluators.analysis.metrics import BREAKAGE_INCIDENCE, FIX_AND_CLEAN, FIX_RATE, Estimate, estimate
from regrade.reports.assurance import assurance_lines
from regrade.reports.number_format import (
    NO_BREAK,
    confidence,
    duration,
    equals_p,
    figure,
    interval,
    methods,
    minimum_effects,
    number,
    p_value,
    percent,
    rate,
    rate_value,
    signed,
    temperature,
)
from regrade.reports.results import SHOWN, Results

STYLES = {
    "improved": "bold green",
    "better": "green",
    "regressed": "bold red",
    "worse": "red",
    "inconclusive": "bold yellow",
    "not comparable": "bold yellow",
    "no difference shown": "",
}
MARKS = {"no difference shown": ""}
"""Verdict on a metric -> its words, if they differ."""
FIGURES = (
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
MEANS = "means over all attempts (intention to treat), equal weight of tasks"
LABEL = 48
"""Width of the name of a figure, in columns."""
SLICED = (FIX_AND_CLEAN, FIX_RATE, BREAKAGE_INCIDENCE)
"""The figures of tables with many rows: the trade-off of fixes and breakage."""


def print_policies(results: Results, console: Console) -> None:
    """Print each policy at its own best temperature: rates with 95 % intervals, and the number of attempts."""
    console.print(f"{counted(results.n_tasks, 'task')}; {MEANS}", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for metric in SHOWN:
        table.add_column(metric.label.lower(), justify="right")
    table.add_column("n", justify="right")
    for policy in results.policies:
        if policy.role == "checkpoint" and policy.entry.series:
            continue  # `print_series` prints them
        estimates = policy.estimates()
        rates = [_stacked(estimates[metric.name]) for metric in SHOWN]
        name = Text(f"{policy.label}\n{policy.role}, {temperature(policy.temperature)}")
        table.add_row(name, *rates, str(estimates[SHOWN[0].name].n))
    console.print(table)
    _print_tampering(results, console)
    print_assurance(results, console)


def print_assurance(results: Results, console: Console) -> None:
    """Print the levels of the verdicts, their cost, and what they do not exclude."""
    for line in assurance_lines(results.assurance):
        console.print(line, markup=False, style="dim", soft_wrap=True)


def _print_tampering(results: Results, console: Console) -> None:
    """Print how many attempts of each policy tampered with the evaluation, by kind, over all temperatures."""
    counts = {policy.label: scan for policy in results.policies if (scan := m.tampering(policy.rows))["looked_at"]}
    if counts and not any(scan["attempts"] for scan in counts.values()):
        scanned = sum(scan["looked_at"] for scan in counts.values())
        console.print(f"None of {scanned} attempts tampered with the evaluation.")
        return
    for label, scan in counts.items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in scan["kinds"].items())
        text = f"{label} tampered with the evaluation in {scan['attempts']} of {scan['looked_at']} attempts"
        console.print(f"{text}{f': {kinds}' if kinds else ''}", markup=False)


def print_sweeps(results: Results, console: Console) -> None:
    """Print the trade-off of fixes and breakage at each temperature, for policies with several temperatures."""
    swept = [policy for policy in results.policies if len(policy.temperatures) > 1]
    if not swept:
        return
    table = _rates_table("by temperature", "temperature")
    for policy in swept:
        for t in policy.temperatures:
            name = policy.label if t == policy.temperatures[0] else ""
            mark = f"{temperature(t)}{' (best)' if t == policy.temperature else ''}"
            table.add_row(Text(name), mark, *_rates(policy.estimates(t)))
    console.print(table)


def print_series(results: Results, console: Console) -> None:
    """Print fixes and breakage along each training run, one row per checkpoint."""
    for name, policies in results.series.items():
        table = _rates_table(f"along {name}", "step")
        for policy in policies:
            label = Text(policy.label if policy.label != f"{name}@{policy.entry.step}" else "")
            table.add_row(label, str(policy.entry.step), *_rates(policy.estimates()))
        console.print(table)


def print_slices(results: Results, console: Console) -> None:
    """Print each policy on parts of the tasks, for each trait in which the tasks differ."""
    labels = {policy.name: policy.label for policy in results.policies}
    for trait, values in results.slices.items():
        table = _rates_table(f"by {trait}", "policy")
        for value, policies in values.items():
            for index, (name, rows) in enumerate(policies.items()):
                tasks = rows["task"].nunique()
                part = f"{value} ({counted(tasks, 'task')})" if index == 0 else ""
                estimates = {metric.name: estimate(rows, metric) for metric in SLICED}
                table.add_row(Text(part), Text(labels[name]), *_rates(estimates))
        console.print(table)


def print_evaluation(results: Results, console: Console) -> None:
    """Print an evaluation of several policies: figures, sweeps, series, slices, and each comparison."""
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


def _rates(estimates: Mapping[str, Estimate]) -> list[str]:
    return [rate(estimates[metric.name]).replace(" ", NO_BREAK) for metric in SLICED]


def _stacked(estimate: Estimate) -> Text:
    """A rate above its interval, without line breaks inside either."""
    lines = f"{rate_value(estimate)}\n{interval(estimate)}"
    return Text(lines.replace(" ", NO_BREAK))


def print_figures(policy: str, at: float, rows: pd.DataFrame, console: Console) -> None:
    """Print one policy's rates with intervals, then severity, side effects and costs."""
    tasks, attempts = rows["task"].nunique(), len(rows)
    console.print(
        f"{policy}, {temperature(at)}: {counted(tasks, 'task')}, {counted(attempts, 'attempt')}; {MEANS}", markup=False
    )
    for metric in FIGURES:
        found = estimate(rows, metric)
        if found.is_unmeasured and metric in SHOWN:
            console.print(f"  {metric.label:{LABEL}} {'unmeasured':>10}", markup=False)
        elif found.n:
            text = _rate(found) + (_rule_of_three(found) if metric is m.BREAKAGE_INCIDENCE else "")
            console.print(f"  {metric.label:{LABEL}} {text}", markup=False)
    _print_agent(rows, console)
    severity = m.severity(rows)
    if severity.mean.n:
        _print_severity(severity, console)
    for cost, unit in COSTS:
        spent = m.cost_per_clean_fix(rows, cost)
        if 0 < spent < math.inf:
            console.print(f"  {f'{cost.capitalize()} per clean fix':{LABEL}} {spent:,.0f} {unit}", markup=False)


def _print_agent(rows: pd.DataFrame, console: Console) -> None:
    """Print how an agent works; nothing of a policy that answers once."""
    estimates = agent_figures(rows)
    for metric in AGENT_METRICS:
        if metric.name in estimates:
            text = figure(estimates[metric.name], is_rate=metric.is_rate)
            console.print(f"  {metric.label:{LABEL}} {text}", markup=False)
    if ends := episode_ends(rows):
        listed = ", ".join(f"{end} {count}" for end, count in ends.items())
        console.print(f"  {'Ends':{LABEL}} {listed}", markup=False)


def _print_severity(severity: m.Severity, console: Console) -> None:
    shares = " ".join(percent(x, 2) for x in (severity.mean.value, severity.median, severity.ninetieth))
    label = "Guarded tests broken (mean, median, 90th)"
    console.print(f"  {label:{LABEL}} {shares}; half or more: {percent(severity.catastrophes)}", markup=False)


def _rate(found: Estimate) -> str:
    text = f"{percent(found.value):>7}  {interval(found)}"
    if found.missing:
        text += f"; {found.missing} missing"
    if found.worst is not None and found.best is not None:
        text += f", {percent(found.worst)} in their worst case and {percent(found.best)} in their best case"
    return text


def _rule_of_three(found: Estimate) -> str:
    if found.at_most is None:
        return ""
    return f"; no case, so at most {percent(found.at_most)} by the rule of three over {found.n_clusters} clusters"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the verdict with its scope, then each metric with its paired difference, interval and p."""
    console.print(_verdict(comparison))
    if comparison.metrics:
        console.print(_differences(comparison))
        console.print(_footnote(comparison), style="dim")
    for warning in comparison.warnings:
        console.print(Text(f"note: {warning}"), style="dim")


def print_results(results: Results, console: Console) -> None:
    """Print an overview of a run: its regime, policies, verdicts and wall times."""
    if results.manifest.regime:
        console.print(results.manifest.regime, markup=False)
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
    if comparison.decision is not None:
        text.append(f" ({comparison.decision.detail})")
    if comparison.scope:
        text.append(f"\nfor {comparison.scope}", style="yellow" if comparison.scope.endswith("only") else "")
    return text.append(f"\n{comparison.reason}")


def _differences(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for policy in (comparison.baseline, comparison.candidate):
        table.add_column(Text(policy, overflow="fold"), justify="right")
    for heading in ("change", f"{confidence(comparison)} interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for metric in VERDICT_METRICS:
        table.add_row(*_decisive_row(comparison, metric))
    for difference in comparison.metrics.values():
        if not difference.is_decisive:
            mark = MARKS.get(difference.verdict, difference.verdict)
            table.add_row(*_row(difference), Text(mark, style=STYLES[difference.verdict]))
    return table


def _decisive_row(comparison: Comparison, metric: m.Metric) -> list[str | Text]:
    """A metric of the verdict, with the answer to its question."""
    difference, decision = comparison.metrics.get(metric.name), comparison.decision
    if difference is None or decision is None:
        return [metric.label, "", "", "", "", "", "unmeasured"]
    answer = decision.fixing if metric is FIX_AND_CLEAN else decision.breaking
    return [*_row(difference), Text(answer.kind, style=STYLES.get(answer.kind, ""))]


def _row(difference: Difference) -> list[str | Text]:
    scale, digits = (100.0, 1) if difference.is_rate else (1.0, 3)
    values = [percent(v) if difference.is_rate else number(v) for v in (difference.baseline, difference.candidate)]
    ends = f"[{signed(scale * difference.low, digits)}, {signed(scale * difference.high, digits)}]"
    return [
        difference.label,
        *(text.replace(" ", NO_BREAK) for text in values),
        signed(scale * difference.difference, digits),
        Text(ends),
        p_value(difference.p_holm) if difference.better != "neither" else "",
    ]


def _footnote(comparison: Comparison) -> Text:
    clusters = "repositories" if comparison.clusters == "repository" else "functions"
    text = (
        f"Means over all attempts (intention to treat): {comparison.n_tasks} tasks in {comparison.n_clusters} "
        f"{clusters}, {comparison.n_baseline} and {comparison.n_candidate} attempts. Differences in points, paired by "
        f"task; {methods(comparison)} over {clusters}; non-inferiority margin {100 * comparison.margin:g} points. p of "
        f"metrics beside those of the verdict is adjusted (Holm), and decides their better or worse. "
        f"{minimum_effects(comparison)}"
    )
    measured = [comparison.metrics[metric.name] for metric in VERDICT_METRICS if metric.name in comparison.metrics]
    listed = [f"{100 * one.noise:.1f} in {one.label.lower()}" for one in measured if one.noise is not None]
    if listed:
        text += f" A/A: with other seeds, {comparison.baseline} differs from itself by up to {', '.join(listed)}."
    for name, pairs in comparison.pairs.items():
        low, high = signed(100 * pairs.low), signed(100 * pairs.high)
        label = comparison.metrics[name].label
        text += f" {label}: McNemar, exact, {equals_p(pairs.p)}, Newcombe [{low}, {high}]."
    if comparison.worst is not None:
        text += f" With missing attempts: {comparison.worst} in the worst case, {comparison.best} in the best."
    return Text(text)


def _phases(results: Results) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("phase")
    table.add_column("wall time", justify="right")
    for name, phase in results.manifest.phases.items():
        table.add_row(name, duration(phase.seconds) + ("" if phase.done else " (not finished)"))
    overlap = ", as some ran side by side" if results.manifest.wall_seconds else ""
    table.add_row(f"all{overlap}", duration(results.manifest.total_seconds))
    return table
