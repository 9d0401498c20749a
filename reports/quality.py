"""What became of the attempts, and how much a comparison can bear: the page of data quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Difference
from regrade.evaluators.analysis.missing_attempts import with_missing_attempts
from regrade.reports.results import Pair, PolicyResult, Results
from regrade.rewards.evidence import End

MEASURES = (m.FIX_AND_CLEAN, m.BREAKAGE_INCIDENCE)


@dataclass(frozen=True)
class QualityRow:
    """What became of the attempts of one policy, all temperatures together: name -> number."""

    policy: PolicyResult
    ink: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Bearing:
    """How sure one measure of one comparison is, beyond its interval."""

    pair: Pair
    found: Difference


def quality_rows(results: Results, inks: Mapping[str, str]) -> tuple[QualityRow, ...]:
    """A row a policy, all with the same columns."""
    kinds = sorted({kind for policy in results.policies for kind in m.tampering(policy.rows)["kinds"]})
    return tuple(QualityRow(policy, inks[policy.name], _counts(policy, kinds)) for policy in results.policies)


def never_seen(rows: Sequence[QualityRow]) -> tuple[str, ...]:
    """The columns in which there is nothing to see: 0 for every policy."""
    return tuple(name for name in rows[0].counts if not any(row.counts[name] for row in rows))


def bearings(results: Results) -> tuple[Bearing, ...]:
    """The two measures of the verdict, of every pair that can be compared."""
    return tuple(
        Bearing(pair, pair.best.metrics[metric.name])
        for pair in results.pairs
        for metric in MEASURES
        if metric.name in pair.best.metrics
    )


def task_notes(results: Results) -> list[str]:
    """What the tasks themselves cannot show."""
    every = pd.concat([policy.rows for policy in results.policies]).drop_duplicates("task")
    unguarded, undirected = (int((every[column] == 0).sum()) for column in ("guarded", "fail_to_pass"))
    found = [
        f"A task has {every['guarded'].median():,.0f} guarded tests (median), {every['guarded'].min():,.0f} at least."
    ]
    if unguarded:
        found.append(f"{unguarded} of {len(every)} tasks have no guarded test: nothing can be broken there.")
    if undirected:
        found.append(f"{undirected} of {len(every)} tasks have no failing test to fix.")
    return found


def _counts(policy: PolicyResult, kinds: Sequence[str]) -> dict[str, int]:
    rows = policy.rows
    ends, found = rows["end"].value_counts(), m.tampering(rows)
    due = sum(len(with_missing_attempts(policy.at(at))) for at in policy.temperatures)
    return {
        "Attempts": len(rows),
        "Never recorded": due - len(rows),
        "Infrastructure failed": int(rows["broke"].isna().sum()),
        "Reward unscored": int((rows["status"] != "scored").sum()),
        "Unreadable answer": int((~rows["well_formed"]).sum()),
        "Did not apply": int((~rows["applied"]).sum()),
        "Changed nothing": int(rows["empty"].sum()),
        "Skipped guarded tests": int((rows["newly_skipped"] > 0).sum()),
        "Ran out of time": int(ends.get(End.TIMEOUT.value, 0)),
        "Ran out of memory": int(ends.get(End.MEMORY.value, 0)),
        "Crashed": int(ends.get(End.CRASHED.value, 0)),
        "Edited tests or configuration": int((rows["protected_edits"] > 0).sum()),
        "Tampering": found["attempts"],
        **{f"… {kind}": found["kinds"].get(kind, 0) for kind in kinds},
    }
