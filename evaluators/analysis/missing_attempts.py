"""Attempts that a comparison should have and has not: counted, and bounded by the worst and the best they could be."""

from __future__ import annotations

from typing import Literal

import pandas as pd

Bound = Literal["worst", "best"]
OUTCOMES = ("fix", "fixed", "broken", "newly_skipped", "broke", "clean_fix")


def with_missing_attempts(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one policy, and for each attempt that some task lacks a row without an outcome.

    A run tries every task with the same samples and seeds, so each (sample, seed) that occurs is due at every task: an
    evaluation that was stopped half-way, or a file whose end was lost, lacks some.
    """
    pairs = rows[["sample", "seed"]].drop_duplicates()
    if len(rows) == len(pairs) * rows["task"].nunique():
        return rows
    due = rows.drop_duplicates("task").drop(columns=["sample", "seed"]).merge(pairs, how="cross")
    present = pd.MultiIndex.from_frame(rows[["task", "sample", "seed"]])
    absent = due[~pd.MultiIndex.from_frame(due[["task", "sample", "seed"]]).isin(present)]
    lost = absent.assign(**dict.fromkeys(OUTCOMES, float("nan")), reward=float("nan"), status="unscored", empty=False)
    return pd.concat([rows, lost[rows.columns]], ignore_index=True)


def fill_missing(rows: pd.DataFrame, bound: Bound) -> pd.DataFrame:
    """The rows with every lost outcome put at its worst (fixed nothing, broke everything) or at its best."""
    lost = rows["broke"].isna()
    if not lost.any():
        return rows
    good = bound == "best"
    found = rows.copy()
    for name in ("fix", "clean_fix"):
        found.loc[lost, name] = float(good)
    found.loc[lost, "fixed"] = rows["fail_to_pass"][lost] * good
    for name in ("broken", "newly_skipped"):
        found.loc[lost, name] = rows["guarded"][lost] * (not good)
    found.loc[lost, "broke"] = float(not good)
    return found
