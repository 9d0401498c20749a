"""Missing attempts of a comparison: counted, and bounded by their worst and best outcome."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from regrade.evaluators.storage.rows import without_outcome

Bound = Literal["worst", "best"]
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
    lost = absent.assign(**dict.fromkeys(OUTCOMES, float("nan")), reward=float("nan"), status="unscored", empty=False)
    return pd.concat([rows, lost[rows.columns]], ignore_index=True)


def fill_missing(rows: pd.DataFrame, bound: Bound) -> pd.DataFrame:
    """The rows with the worst outcome (nothing fixed, everything broken) or the best one for every missing attempt."""
    lost = without_outcome(rows)
    if not lost.any():
        return rows
    is_best = bound == "best"
    filled = rows.copy()
    for name in ("fix", "clean_fix"):
        filled.loc[lost, name] = float(is_best)
    filled.loc[lost, "fixed"] = rows["fail_to_pass"][lost] * is_best
    for name in ("broken", "newly_skipped"):
        filled.loc[lost, name] = rows["guarded"][lost] * (not is_best)
    filled.loc[lost, "broke"] = float(not is_best)
    unmeasured = [name for name in OUTCOMES if rows[name].isna().all()]
    filled[unmeasured] = float("nan")  # no attempt has this outcome, so a missing one does not lack it
    return filled
