"""Two policies on the same tasks, paired: which fixes more, which breaks less, and is that more than chance?

The verdict rests on two measures, fix-and-clean and breakage incidence, both over all attempts. With the 95 %
intervals of the paired differences (candidate - baseline) and a margin declared beforehand (2 points unless told):

- **improved**: better on one, its interval beyond 0, and not worse on the other by the margin or more. Non-inferiority
  on the other is what keeps a policy that does nothing (it breaks nothing) or one that only grew bolder from winning.
  With missing attempts, it has to be so even if all of them had ended in the candidate's disfavour: else a policy that
  loses its bad attempts would win.
- **regressed**: not improved, and worse on one of them, its interval beyond 0 on the wrong side.
- **no difference shown**: neither. It does not say that there is none: see the smallest difference that would have been
  detected four times in five.
- **not comparable**: other tasks, other versions of them, too many attempts missing, or too few tasks.

Fix-and-clean stands for fixing, since fixes that break other tests are no gain; the plain fix rate is reported beside
it. Each of "improved" and "regressed" has two ways to be wrong with 2.5 % each, so either is said by chance at most
once in twenty; the p-values, of all metrics together, are also shown adjusted by Holm's method. A difference is only
called better or worse if the sign-flip test by cluster agrees with the interval: a bootstrap is too sure where only a
handful of tasks differ. Under `uncertainty.MINIMUM_CLUSTERS` clusters the interval is t with C - 1 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted, plural
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.differences import (
    Difference,
    Pairs,
    differences_of,
    is_same_reward,
    outcomes,
    pairs_of,
)
from regrade.evaluators.analysis.missing_attempts import fill_missing, with_missing_attempts
from regrade.evaluators.analysis.uncertainty import FEWEST_REPOSITORIES, ClusterLevel, cluster_labels, cluster_level

__all__ = ["MARGIN", "Comparison", "Difference", "Verdict", "compare", "noise_floor", "outcomes", "points"]

Verdict = Literal["improved", "regressed", "no difference shown", "not comparable"]

MARGIN = 0.02
"""How much worse the other measure may truly be before a gain is no gain."""
TOLERATED_MISSING = 0.05
"""The share of attempts, of either policy, that may be missing before the comparison is void."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found."""

    baseline: str
    candidate: str
    verdict: Verdict
    reason: str
    """One sentence with the figures that decided."""
    margin: float
    metrics: Mapping[str, Difference] = field(default_factory=dict)
    clusters: ClusterLevel = "function"
    """What was resampled: see `regrade.evaluators.analysis.uncertainty`."""
    n_tasks: int = 0
    n_clusters: int = 0
    n_baseline: int = 0
    n_candidate: int = 0
    """Attempts."""
    mcnemar: float | None = None
    """Exact McNemar p of fix-and-clean; only with one attempt a task. It takes tasks to be independent."""
    warnings: tuple[str, ...] = ()
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    """Fix-and-clean and breakage as 2 x 2 tables; only with one attempt a task."""
    n_missing: int = 0
    """Attempts of either that are missing: lost to the infrastructure, or not there."""
    worst: Verdict | None = None
    best: Verdict | None = None
    """The verdict if every missing attempt had ended in the candidate's disfavour, or favour; None if none is."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "metrics": {name: value.to_json() for name, value in self.metrics.items()}}


def compare(baseline: pd.DataFrame, candidate: pd.DataFrame, margin: float = MARGIN) -> Comparison:
    """Compare two tables of one policy at one temperature each (see `regrade.evaluators.storage.rows`), paired by task.

    Raises:
        UserError: a table is empty or holds several policies or temperatures, or the margin is no share.
    """
    if not 0 <= margin < 1:
        raise UserError(f"the margin is a share between 0 and 1 (0.02 is 2 points); found {margin!r}")
    whole = with_missing_attempts(baseline), with_missing_attempts(candidate)
    obstacle = _obstacle(*whole)
    known: dict[str, Any] = {
        "baseline": _only_policy(baseline, "baseline"),
        "candidate": _only_policy(candidate, "candidate"),
        "margin": margin,
        "n_baseline": len(baseline),
        "n_candidate": len(candidate),
        "n_tasks": baseline["task"].nunique(),
        "n_missing": sum(int(rows["broke"].isna().sum()) for rows in whole),
    }
    if obstacle:
        return Comparison(verdict="not comparable", reason=obstacle, **known)
    level = cluster_level(baseline)
    differences = differences_of(baseline, candidate, level)
    verdict, reason = _verdict(differences, margin)
    bounds: dict[str, Verdict] = {}
    if known["n_missing"]:
        differences, bounds = _bounded(differences, *whole, level, margin)
        if verdict == "improved" and bounds["worst"] != "improved":
            verdict, reason = (
                "no difference shown",
                (
                    f"{reason} But that rests on missing attempts: had they ended in its disfavour, it would be "
                    f"{bounds['worst']!r}. Run the same evaluation again, which completes it."
                ),
            )
    pairs = pairs_of(baseline, candidate)
    return Comparison(
        verdict=verdict,
        reason=reason,
        metrics=differences,
        clusters=level,
        n_clusters=differences[m.FIX_AND_CLEAN.name].n_clusters,
        mcnemar=pairs[m.FIX_AND_CLEAN.name].p if pairs else None,
        warnings=tuple(_warnings(*whole, differences, level, verdict, bounds)),
        pairs=pairs,
        worst=bounds.get("worst"),
        best=bounds.get("best"),
        **known,
    )


def noise_floor(rows: pd.DataFrame) -> Comparison | None:
    """A/A control: one policy against itself, every second sample and seed against the others; None with too few.

    The differences are pure chance, so they show what size of difference to think nothing of. Each half has half of the
    attempts: the floor of the whole comparison is lower by about the square root of two (see `Difference.noise`).
    """
    number = rows.groupby(["seed", "sample"]).ngroup()
    halves = rows[number % 2 == 0], rows[number % 2 == 1]
    if not len(rows) or set(halves[0]["task"]) != set(halves[1]["task"]):
        return None
    return compare(*halves)


def _only_policy(rows: pd.DataFrame, what: str) -> str:
    if not len(rows):
        raise UserError(f"the {what} has no rows; evaluate it first")
    for column, advice in (("policy", f"--{what}-policy"), ("temperature", "--temperature")):
        found = sorted(rows[column].unique())
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            raise UserError(f"the {what} holds several values of {column} ({listed}); choose one with {advice}")
    return str(rows["policy"].iloc[0])


def _obstacle(baseline: pd.DataFrame, candidate: pd.DataFrame) -> str:
    """Why the two cannot be compared; empty if they can."""
    first, second = (rows.groupby("task")["task_digest"].agg(set) for rows in (baseline, candidate))
    for what, rows in (("baseline", baseline), ("candidate", candidate)):
        doubled = int(rows.duplicated(["task", "sample", "seed"]).sum())
        if doubled:
            return f"{doubled} of the {what}'s rows are of an attempt that another row is of: leave one row an attempt"
    only = first.index.symmetric_difference(second.index)
    if len(only):
        counts = f"{len(first)} and {len(second)}, of which {len(only)} are not shared, such as {only[0]!r}"
        return (
            f"they were not tried on the same tasks: {counts}; evaluate both with the same tasks, --limit and --seed, "
            "and let an evaluation that was stopped go on"
        )
    changed = [task for task in first.index if first[task] != second[task] or len(first[task]) > 1]
    if changed:
        return (
            f"{len(changed)} tasks have other files or tests in one of them, such as {changed[0]!r}: evaluate both "
            "with the same version of the tasks"
        )
    for what, rows in (("baseline", baseline), ("candidate", candidate)):
        missing = float(rows["broke"].isna().mean())
        if missing > TOLERATED_MISSING:
            limit = f"at most {TOLERATED_MISSING:.0%} may be"
            first_lost = rows[rows["broke"].isna()].iloc[0]
            such_as = f"such as sample {first_lost['sample']} of seed {first_lost['seed']} at {first_lost['task']!r}"
            return (
                f"{missing:.0%} of the {what}'s attempts are missing ({limit}), {such_as}, lost to the infrastructure "
                "or never recorded: run the same evaluation again, which completes it"
            )
    known = outcomes(baseline, candidate)
    if known.empty:
        return "no task has a known outcome of FAIL_TO_PASS tests: what was fixed cannot be compared"
    if np.unique(cluster_labels(known, cluster_level(baseline))).size < 2:
        return (
            f"{counted(len(known), 'task')} of a single cluster cannot show how much figures vary; evaluate more tasks"
        )
    return ""


def _bounded(
    differences: Mapping[str, Difference],
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    level: ClusterLevel,
    margin: float,
) -> tuple[dict[str, Difference], dict[str, Verdict]]:
    """The differences with their worst and best case, and the verdicts of those cases."""
    worst = differences_of(fill_missing(baseline, "best"), fill_missing(candidate, "worst"), level)
    best = differences_of(fill_missing(baseline, "worst"), fill_missing(candidate, "best"), level)
    bounded = {
        name: replace(found, worst=worst[name].difference, best=best[name].difference)
        if name in m.BOUNDED and name in worst and name in best
        else found
        for name, found in differences.items()
    }
    return bounded, {"worst": _verdict(worst, margin)[0], "best": _verdict(best, margin)[0]}


def _verdict(differences: Mapping[str, Difference], margin: float) -> tuple[Verdict, str]:
    fixes, breaks = differences[m.FIX_AND_CLEAN.name], differences[m.BREAKAGE_INCIDENCE.name]
    figures = f"clean fix {points(fixes)}, breakage {points(breaks)}"
    fixes_hold, breaks_hold = fixes.low > -margin, breaks.high < margin
    if fixes.verdict == breaks.verdict == "better":
        return "improved", f"It fixes more and breaks less: {figures}."
    if fixes.verdict == "better" and breaks_hold:
        return "improved", f"It fixes more without breaking more (margin {margin * 100:g} points): {figures}."
    if breaks.verdict == "better" and fixes_hold:
        return "improved", f"It breaks less without fixing less (margin {margin * 100:g} points): {figures}."
    if breaks.verdict == "worse":
        but = "It fixes more, but it" if fixes.verdict == "better" else "It"
        return "regressed", f"{but} breaks more: {figures}."
    if fixes.verdict == "worse":
        but = "It breaks less, but it" if breaks.verdict == "better" else "It"
        return "regressed", f"{but} fixes less: {figures}."
    if fixes.verdict == "better":
        why = f"It fixes more, but it may break more by {margin * 100:g} points or more"
    elif breaks.verdict == "better":
        why = f"It breaks less, but it may fix less by {margin * 100:g} points or more"
    elif any(each.low > 0 or each.high < 0 for each in (fixes, breaks)):
        why = "An interval lies beyond 0, but the sign-flip test does not agree: too few tasks differ"
    else:
        why = "Neither interval lies beyond 0"
    return "no difference shown", f"{why}: {figures}."


def points(difference: Difference) -> str:
    """Such as `+3.1 points [+0.4, +5.8]`; a metric that is no rate is shown as it is."""
    scale, unit, digits = (100, " points", 1) if difference.is_rate else (1, "", 3)
    value, low, high = (
        f"{scale * number + 0.0:+.{digits}f}".replace("-", "−")
        for number in (difference.difference, difference.low, difference.high)
    )
    return f"{value}{unit} [{low}, {high}]"


def _warnings(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    differences: Mapping[str, Difference],
    level: ClusterLevel,
    verdict: Verdict,
    bounds: Mapping[str, Verdict],
) -> Iterator[str]:
    fixes = differences[m.FIX_AND_CLEAN.name]
    if level == "function":
        count = baseline["repository"].nunique()
        warning = (
            f"intervals resample functions, not repositories, of which there are only {count}: "
            f"they speak of new bugs in {plural(count, 'this repository', 'these repositories')}, not of other ones"
        )
        if fixes.over_repositories is not None:
            low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in fixes.over_repositories)
            warning += f" (with those as clusters, t({count - 1}): {fixes.label.lower()} [{low}, {high}] points)"
        yield warning
    if fixes.n_clusters < FEWEST_REPOSITORIES:
        yield (
            f"{fixes.n_clusters} clusters of tasks cannot show a difference of any size: at least "
            f"{FEWEST_REPOSITORIES} are needed"
        )
    counts = [rows.groupby("task").size() for rows in (baseline, candidate)]
    if not counts[0].equals(counts[1]):
        yield "the two have different numbers of attempts for some tasks; each task still counts once"
    if not is_same_reward(baseline, candidate):
        yield "the two were given different rewards, so that their rewards are not compared"
    if bounds:
        missing = int(baseline["broke"].isna().sum() + candidate["broke"].isna().sum())
        text = (
            f"{counted(missing, 'attempt')} {plural(missing, 'is', 'are')} missing (lost to the infrastructure, "
            "or never recorded) and left out"
        )
        if {*bounds.values()} != {verdict}:
            text += (
                f", and the verdict depends on them: {bounds['worst']} if they had ended in the candidate's disfavour, "
                f"{bounds['best']} if in its favour"
            )
        yield text
