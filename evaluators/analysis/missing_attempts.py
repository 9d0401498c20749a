"""Missing attempts of a comparison: counted, and bounded by their worst and best outcome."""

from __future__ import annotations

import pandas as pd

from regrade.evaluators.storage.rows import LOST, without_outcome

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
