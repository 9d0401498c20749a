"""Charts of parts of a run: breakage by size and by distance, kinds of tasks, checkpoints, what moved the reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.checkpoint_changes import PartChange, TaskChanges, task_changes
from regrade.evaluators.analysis.metrics import Estimate, Metric
from regrade.evaluators.analysis.side_metrics import breakage_by_hops, broken_tests_by_hops
from regrade.evaluators.analysis.slices import varying_traits
from regrade.reports import share_charts as charts
from regrade.reports.results import Pair, PolicyResult, Results
from regrade.reports.severity import SEVERITY_INKS, severity_of

TRAITS = {
    "difficulty": "By difficulty",
    "distance": "By distance of symptom and cause",
    "source": "By source of the task",
}
HOP_WORDS = {"0": "the patched file", "1": "imports it", "no way": "no chain of imports"}
MOST_PARTS = 8
"""Parts of the reward in a waterfall; those that moved least are then one bar."""


@dataclass(frozen=True)
class FigureRows:
    """A chart of shares with the table behind it."""

    chart: Markup
    rows: Mapping[str, Mapping[str, Estimate]]
    """Row of the table -> policy's label -> share, with its number of attempts and its interval."""


@dataclass(frozen=True)
class Checkpoints:
    """One training, at the steps at which its policy was evaluated."""

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


def compared(results: Results) -> list[PolicyResult]:
    """The policies whose own breakage is worth a chart: neither scripted ones nor the checkpoints of a series."""
    return [policy for policy in results.policies if policy.role not in ("scripted", "checkpoint")]


def looked_into(results: Results) -> list[PolicyResult]:
    """The policies whose attempts are shown task by task: those of the first comparison first, if there is one."""
    if not results.pairs:
        return [policy for policy in results.tabled if policy.role != "scripted"] or results.tabled
    pair = results.pairs[0]
    others = results.of_role("baseline", "control", "candidate")
    return [
        pair.baseline,
        pair.candidate,
        *(each for each in others if each is not pair.baseline and each is not pair.candidate),
    ]


def severity(results: Results) -> FigureRows | None:
    """Share of the known attempts that broke so many tests, a bar a policy; those without an end count as the worst."""
    found = {policy.label: _severity_shares(policy.best) for policy in results.tabled}
    if not any(share.value > 0 for shares in found.values() for share in shares.values()):
        return None
    chart = charts.stacked_rates(
        "severity",
        "Share of attempts by the tests that they broke",
        found,
        SEVERITY_INKS,
        picks={
            (policy.label, name): {"policy": policy.name, "outcome": f"severity {name}"}
            for policy in looked_into(results)
            for name in SEVERITY_INKS
        },
    )
    return FigureRows(chart, _transposed(found))


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


def _transposed(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    names = dict.fromkeys(name for each in found.values() for name in each)
    return {name: {label: each[name] for label, each in found.items() if name in each} for name in names}


def hops(results: Results, inks: Mapping[str, str]) -> FigureRows | None:
    """Share of all attempts that broke a test at each distance from what was patched; None where none is known."""
    policies = [policy for policy in compared(results) if sum(broken_tests_by_hops(policy.best).values())]
    if not policies:
        return None
    found = _transposed({policy.label: breakage_by_hops(policy.best) for policy in policies})
    rows = {f"{name}: {HOP_WORDS[name]}" if name in HOP_WORDS else name: found[name] for name in found}
    chart = charts.grouped(
        "hops",
        "Breakage by distance from what was patched",
        rows,
        {policy.label: inks[policy.name] for policy in policies},
        "breakage there, % of all attempts",
        picks={
            (row, policy.label): {"policy": policy.name, "outcome": f"hops {name}"}
            for row, name in zip(rows, found, strict=True)
            for policy in policies
            if any(policy is each for each in looked_into(results))
        },
    )
    return FigureRows(chart, rows)


def by_trait(results: Results, inks: Mapping[str, str]) -> dict[str, FigureRows]:
    """Heading -> clean fixes within each kind of task, for the traits other than the repository that differ."""
    policies = {policy.name: policy for policy in compared(results)}
    found = {}
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
        chart = charts.grouped(f"trait-{trait}", TRAITS[trait], rows, colours, "clean fix, % of all attempts")
        found[TRAITS[trait]] = FigureRows(chart, rows)
    return found


def checkpoints(results: Results) -> tuple[Checkpoints, ...]:
    """Each training of which several checkpoints were evaluated."""
    shown = (m.FIX_AND_CLEAN, m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.NO_OP_RATE)
    found = []
    for number, (name, policies) in enumerate(results.series.items()):
        rows = tuple((policy, policy.estimates(None, shown)) for policy in policies)
        lines = {
            "clean fix": ("good", [figures[m.FIX_AND_CLEAN.name] for _, figures in rows]),
            "breakage": ("bad", [figures[m.BREAKAGE_INCIDENCE.name] for _, figures in rows]),
        }
        steps = [policy.entry.step or 0 for policy in policies]
        found.append(Checkpoints(name, charts.over_steps(f"series-{number}", f"{name} by step", steps, lines), rows))
    return tuple(found)


def waterfalls(results: Results) -> tuple[Waterfall, ...]:
    """What each part of the reward adds to the difference of a pair; none where their rewards are not the same."""
    found = []
    for pair in results.pairs:
        changes = task_changes(pair.baseline.best, pair.candidate.best)
        if changes.reward is None or not changes.parts:
            continue
        moved = list(changes.parts[:MOST_PARTS])
        rest = changes.reward.difference - sum(part.difference for part in moved)
        bars = [(part.name, part.difference, part.low, part.high) for part in moved]
        if len(changes.parts) > MOST_PARTS:
            bars.append((f"{len(changes.parts) - MOST_PARTS} others", rest, float("nan"), float("nan")))
        ends = (pair.baseline.label, changes.reward.baseline), (pair.candidate.label, changes.reward.candidate)
        chart = charts.waterfall(f"waterfall-{pair.key}", *ends, bars)
        found.append(Waterfall(pair, changes, changes.reward, chart))
    return tuple(found)
