"""Missing attempts of a comparison: counted, and bounded by their worst and best outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from regrade.evaluators.storage.rows import LOST, without_outcome

if TYPE_CHECKING:
    from regrade.evaluators.analysis.metrics import Metric

OUTCOMES = ("fix", "fixed", "broken", "newly_skipped", "broke", "clean_fix")


def with_missing_attempts(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one policy, plus a row without an outcome for each missing attempt.

    An evaluation makes the same (sample, seed) pairs of attempts at every task. If it was interrupted, or a file lost
    its end, some tasks lack a pair.
    """
    pairs = rows[["sample", "seed"]].drop_duplicates()
    if len(rows) == len(pairs) * rows["task"].nunique():
        return rows
    expected = rows.drop_duplicates("task").drop(columns=["sample", "seed"]).merge(pairs, how="cross")
    present = pd.MultiIndex.from_frame(rows[["task", "sample", "seed"]])
    absent = expected[~pd.MultiIndex.from_frame(expected[["task", "sample", "seed"]]).isin(present)]
    lost = absent.assign(
        **dict.fromkeys(OUTCOMES, float("nan")), reward=float("nan"), status="unscored", empty=False, patch_digest=""
    )
    return pd.concat([rows, lost[rows.columns]], ignore_index=True)


def is_unanswered(rows: pd.DataFrame) -> pd.Series[bool]:
    """Missing attempts that were lost before there was an answer.

    No patch existed, so it cannot be the reason: they are missing at random, and no verdict depends on them.
    """
    return without_outcome(rows) & (rows["patch_digest"] == LOST)


def bounded_values(
    rows: pd.DataFrame, metric: Metric, end: float | None, *, may_be_unanswered: bool = True
) -> pd.Series[Any]:
    """The metric of each row, with `end` for each missing attempt to which the metric applies; None: unchanged.

    Args:
        may_be_unanswered: also for attempts that were lost before there was an answer; else they are left out.
    """
    values = metric.of_rows(rows).astype("float64")
    if end is None or values.isna().all():
        return values  # a metric that is unmeasured lacks no value
    counts = without_outcome(rows) & values.isna()
    if metric.needs is not None:
        counts &= rows[metric.needs] != 0
    return values.mask(counts if may_be_unanswered else counts & ~is_unanswered(rows), end)
