"""Missing attempts of a comparison: counted, and bounded by their worst and best outcome; and unmeasured breakage."""

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


def measured_alike(baseline: pd.DataFrame, candidate: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Both tables, and the tasks whose breakage only one of them contains: plain fixes are the clean fixes of both.

    A fix of unknown breakage counts as clean, so the side without breakage would seem to fix more. Where a side states
    nothing but clean fixes, they stand.
    """
    measured, plain = (
        [set(rows["task"][rows[name].notna() & ~without_outcome(rows)]) for rows in (baseline, candidate)]
        for name in ("broke", "fix")
    )
    tasks = (measured[0] ^ measured[1]) & plain[0] & plain[1]
    if not tasks:
        return baseline, candidate, []
    first, second = (
        rows.assign(clean_fix=rows["clean_fix"].mask(rows["task"].isin(tasks), rows["fix"]))
        for rows in (baseline, candidate)
    )
    return first, second, sorted(tasks)
