"""Data quality: the outcome of all attempts, and the sensitivity of the comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Difference
from regrade.evaluators.analysis.differences import VERDICT_METRICS
from regrade.evaluators.analysis.missing_attempts import with_missing_attempts
from regrade.evaluators.storage.rows import without_outcome
from regrade.reports.results import Pair, PolicyResult, Results
from regrade.rewards.evidence import End


@dataclass(frozen=True)
class QualityRow:
    """Outcomes of all attempts of one policy over all temperatures: name -> number of attempts."""

    policy: PolicyResult
    ink: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Sensitivity:
    """One metric of one comparison: its missing attempts, its noise and its smallest detectable difference."""

    pair: Pair
    difference: Difference


def quality_rows(results: Results, inks: Mapping[str, str]) -> tuple[QualityRow, ...]:
    """Return one row per policy, all with the same columns."""
    kinds = sorted({kind for policy in results.policies for kind in m.tampering(policy.rows)["kinds"]})
    return tuple(QualityRow(policy, inks[policy.name], _counts(policy, kinds)) for policy in results.policies)


def unused_columns(rows: Sequence[QualityRow]) -> tuple[str, ...]:
    """Return the columns that are 0 for every policy."""
    return tuple(name for name in rows[0].counts if not any(row.counts[name] for row in rows))


def sensitivities(results: Results) -> tuple[Sensitivity, ...]:
    """Return both metrics of the verdict for each comparable pair."""
    return tuple(
        Sensitivity(pair, pair.best.metrics[metric.name])
        for pair in results.pairs
        for metric in VERDICT_METRICS
        if metric.name in pair.best.metrics
    )


def task_notes(results: Results) -> list[str]:
    """Return notes on the limits of the tasks: guarded tests and failing tests."""
    tasks = pd.concat([policy.rows for policy in results.policies]).drop_duplicates("task")
    unguarded, undirected = (int((tasks[column] == 0).sum()) for column in ("guarded", "fail_to_pass"))
    guarded = tasks["guarded"].dropna()
    notes = ["The number of guarded tests is not known."] if guarded.empty else [
        f"A task has {guarded.median():,.0f} guarded tests (median), {guarded.min():,.0f} at minimum."
    ]  # fmt: skip
    if unguarded:
        notes.append(f"{unguarded} of {len(tasks)} tasks have no guarded test: they cannot show breakage.")
    if undirected:
        notes.append(f"{undirected} of {len(tasks)} tasks have no FAIL_TO_PASS test: they cannot show fixes.")
    return notes


def _counts(policy: PolicyResult, kinds: Sequence[str]) -> dict[str, int]:
    rows = policy.rows
    ends, tampering = rows["end"].value_counts(), m.tampering(rows)
    expected = sum(len(with_missing_attempts(policy.at(at))) for at in policy.temperatures)
    return {
        "Attempts": len(rows),
        "Not recorded": expected - len(rows),
        "Infrastructure failed": int(without_outcome(rows).sum()),
        "Reward unscored": int((rows["status"] != "scored").sum()),
        "Unreadable answer": int((~rows["well_formed"]).sum()),
        "Did not apply": int((~rows["applied"]).sum()),
        "No change": int(rows["empty"].sum()),
        "Skipped guarded tests": int((rows["newly_skipped"] > 0).sum()),
        "Timed out": int(ends.get(End.TIMEOUT.value, 0)),
        "Ran out of memory": int(ends.get(End.MEMORY.value, 0)),
        "Crashed": int(ends.get(End.CRASHED.value, 0)),
        "Edited tests or configuration": int((rows["protected_edits"] > 0).sum()),
        "Tampered with the evaluation": tampering["attempts"],
        **{f"… {kind}": tampering["kinds"].get(kind, 0) for kind in kinds},
    }
