"""Charts of parts of a run: breakage by severity and distance, kinds of tasks, checkpoints, changes of the reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.checkpoint_changes import PartChange, TaskChanges, task_changes
from regrade.evaluators.analysis.metrics import Estimate, Metric
from regrade.evaluators.analysis.side_metrics import (
    breakage_by_hops,
    breakage_by_place,
    broken_tests_by_hops,
    broken_tests_by_place,
)
from regrade.evaluators.analysis.slices import varying_traits
from regrade.reports import share_charts as charts
from regrade.reports.results import Pair, PolicyResult, Results
from regrade.reports.severity import SEVERITY_INKS, severity_of

TRAITS = {
    "difficulty": "By difficulty",
    "distance": "By distance between symptom and cause",
    "source": "By task source",
}
HOP_LABELS = {"0": "0: the patched file", "1": "1: a direct import", "no way": "no chain of imports"}
"""Name in `side_metrics.HOPS` -> label, where the name alone is not clear."""
MOST_PARTS = 8
"""Maximal number of reward parts in a waterfall; one more bar joins the parts with the smallest changes."""


@dataclass(frozen=True)
class FigureRows:
    """A chart of shares and its table."""

    chart: Markup
    rows: Mapping[str, Mapping[str, Estimate]]
    """Row of the table -> policy's label -> share, with its number of attempts and its interval."""


@dataclass(frozen=True)
class Checkpoints:
    """One training run, at the steps with an evaluation of its policy."""

    name: str
    chart: Markup
    rows: tuple[tuple[PolicyResult, Mapping[str, Estimate]], ...]


@dataclass(frozen=True)
class Waterfall:
    """From the baseline's mean reward to the candidate's, part by part."""

    pair: Pair
    changes: TaskChanges
    reward: PartChange
    chart: Markup


def charted_policies(results: Results) -> list[PolicyResult]:
    """Return the policies without the scripted ones and without the checkpoints of a series."""
    return [policy for policy in results.policies if policy.role not in ("scripted", "checkpoint")]


def detailed_policies(results: Results) -> list[PolicyResult]:
    """Return the policies with attempts shown per task; those of the first comparison, if any, come first."""
    if not results.pairs:
        return [policy for policy in results.tabled if policy.role != "scripted"] or results.tabled
    pair = results.pairs[0]
    first = (pair.baseline, pair.candidate)
    further = results.of_role("baseline", "control", "candidate")
    return [*first, *(policy for policy in further if all(policy is not one for one in first))]


def severity(results: Results) -> FigureRows | None:
    """Chart the share of attempts by number of broken tests, one bar per policy; None without breakage."""
    shares = {policy.label: _severity_shares(policy.best) for policy in results.tabled}
    if not any(share.value > 0 for row in shares.values() for share in row.values()):
        return None
    chart = charts.stacked_rates(
        "severity",
        "Share of attempts by number of broken tests",
        shares,
        SEVERITY_INKS,
        picks={
            (policy.label, name): {"policy": policy.name, "outcome": f"severity {name}"}
            for policy in detailed_policies(results)
            for name in SEVERITY_INKS
        },
    )
    return FigureRows(chart, _transposed(shares))


def _severity_shares(rows: pd.DataFrame) -> dict[str, Estimate]:
    def share(name: str) -> Metric:
        return Metric(
            name=f"severity_{name}",
            label=name,
            better="lower",
            is_rate=True,
            of_rows=lambda rows: (severity_of(rows) == name).astype("float64").where(rows["broke"].notna()),
        )

    return {name: m.estimate(rows, share(name)) for name in SEVERITY_INKS}


def _transposed(rows: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    names = dict.fromkeys(name for shares in rows.values() for name in shares)
    return {name: {label: shares[name] for label, shares in rows.items() if name in shares} for name in names}


def hops(results: Results, inks: Mapping[str, str]) -> FigureRows | None:
    """Chart the share of all attempts that broke a test at each distance from the patch; None without a distance."""
    policies = [policy for policy in charted_policies(results) if sum(broken_tests_by_hops(policy.best).values())]
    if not policies:
        return None
    shares = _transposed({policy.label: breakage_by_hops(policy.best) for policy in policies})
    rows = {HOP_LABELS.get(name, name): shares[name] for name in shares}
    chart = charts.grouped(
        "hops",
        "Breakage by distance from the patched file",
        rows,
        {policy.label: inks[policy.name] for policy in policies},
        "breakage at this distance, % of all attempts",
        picks={
            (row, policy.label): {"policy": policy.name, "outcome": f"hops {name}"}
            for row, name in zip(rows, shares, strict=True)
            for policy in policies
            if any(policy is detailed for detailed in detailed_policies(results))
        },
    )
    return FigureRows(chart, rows)


def places(results: Results, inks: Mapping[str, str]) -> FigureRows | None:
    """Chart the share of all attempts that broke a test in each place; None if every task shows all its tests to an
    agent (the chart of distances then says as much), or nothing is known to be broken."""
    policies = [policy for policy in charted_policies(results) if sum(broken_tests_by_place(policy.best).values())]
    if not policies or all(task.get("shown") is None for task in results.tasks.values()):
        return None
    rows = _transposed({policy.label: breakage_by_place(policy.best) for policy in policies})
    chart = charts.grouped(
        "places",
        "Breakage by place of the broken test",
        rows,
        {policy.label: inks[policy.name] for policy in policies},
        "breakage in this place, % of all attempts",
    )
    return FigureRows(chart, rows)


def by_trait(results: Results, inks: Mapping[str, str]) -> dict[str, FigureRows]:
    """Return heading -> chart of clean fixes by kind of task, for each trait but the repository that differs."""
    policies = {policy.name: policy for policy in charted_policies(results)}
    charted = {}
    for trait in varying_traits(pd.concat([policy.best for policy in results.policies]), results.tasks):
        if trait not in TRAITS or not policies:
            continue
        rows = {
            f"{value} ({counted(len({task for rows in parts.values() for task in rows['task']}), 'task')})": {
                policies[name].label: m.estimate(rows, m.FIX_AND_CLEAN)
                for name, rows in parts.items()
                if name in policies and len(rows)
            }
            for value, parts in results.slices[trait].items()
        }
        colours = {policy.label: inks[policy.name] for policy in policies.values()}
        chart = charts.grouped(f"trait-{trait}", TRAITS[trait], rows, colours, "clean fixes, % of all attempts")
        charted[TRAITS[trait]] = FigureRows(chart, rows)
    return charted


def checkpoints(results: Results) -> tuple[Checkpoints, ...]:
    """Chart each training run with several evaluated checkpoints."""
    series = []
    for number, (name, policies) in enumerate(results.series.items()):
        rows = tuple((policy, policy.estimates()) for policy in policies)
        lines = {
            "clean fixes": ("good", [figures[m.FIX_AND_CLEAN.name] for _, figures in rows]),
            "breakage": ("bad", [figures[m.BREAKAGE_INCIDENCE.name] for _, figures in rows]),
        }
        steps = [policy.entry.step or 0 for policy in policies]
        series.append(Checkpoints(name, charts.over_steps(f"series-{number}", f"{name} by step", steps, lines), rows))
    return tuple(series)


def waterfalls(results: Results) -> tuple[Waterfall, ...]:
    """Chart the contribution of each reward part to the difference of each pair with equal rewards."""
    charted = []
    for pair in results.pairs:
        changes = task_changes(pair.baseline.best, pair.candidate.best)
        if changes.reward is None or not changes.parts:
            continue
        moved = list(changes.parts[:MOST_PARTS])
        rest = changes.reward.difference - sum(part.difference for part in moved)
        bars = [(part.name, part.difference, part.low, part.high) for part in moved]
        if len(changes.parts) > MOST_PARTS:
            bars.append((f"{len(changes.parts) - MOST_PARTS} further parts", rest, float("nan"), float("nan")))
        ends = (pair.baseline.label, changes.reward.baseline), (pair.candidate.label, changes.reward.candidate)
        chart = charts.waterfall(f"waterfall-{pair.key}", *ends, bars)
        charted.append(Waterfall(pair, changes, changes.reward, chart))
    return tuple(charted)
