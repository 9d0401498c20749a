"""How much an attempt broke, in the words of the report."""

from __future__ import annotations

import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.rewards.evidence import End

SEVERITY_INKS = {"1 test": "k3", "2 to 5": "k5", "6 or more": "k4", "at least half, or no end": "bad"}


def severity_of(rows: pd.DataFrame) -> pd.Series:
    """The name of `SEVERITY_INKS` for each attempt, empty where it broke nothing, missing where that is not known."""
    worst = rows["broken"] >= m.CATASTROPHE * rows["guarded"].clip(lower=1)
    stopped = ~rows["end"].isin(["", End.COMPLETED.value, End.NOT_APPLIED.value])
    bins = pd.cut(rows["broken"], [0, 1, 5, float("inf")], labels=list(SEVERITY_INKS)[:3]).astype("object")
    bins = bins.mask((rows["broke"] == 1) & (worst | stopped), list(SEVERITY_INKS)[3])
    return bins.fillna("").where(rows["broke"].notna())
