"""Severity of the breakage of an attempt, in the terms of the report."""

from __future__ import annotations

import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.rewards.evidence import End

SEVERITY_INKS = {"1 test": "k3", "2 to 5": "k5", "6 or more": "k4", "at least half, or not completed": "bad"}


def severity_of(rows: pd.DataFrame) -> pd.Series:
    """Return a name of `SEVERITY_INKS` for each attempt: empty without breakage, missing if the outcome is unknown."""
    worst = rows["broken"] >= m.CATASTROPHE * rows["guarded"].clip(lower=1)
    stopped = ~rows["end"].isin(["", End.COMPLETED.value, End.NOT_APPLIED.value])
    bins = pd.cut(rows["broken"], [0, 1, 5, float("inf")], labels=list(SEVERITY_INKS)[:3]).astype("object")
    bins = bins.mask((rows["broke"] == 1) & (worst | stopped), list(SEVERITY_INKS)[3])
    return bins.fillna("").where(rows["broke"].notna())
