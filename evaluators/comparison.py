"""Two policies on the same tasks, paired: which fixes more, which breaks less, and is that more than chance?

The verdict rests on two measures, fix-and-clean and breakage incidence, both over all attempts. With the 95 %
intervals of the paired differences (candidate - baseline) and a margin declared beforehand (2 points unless told):

- **improved**: better on one, its interval beyond 0, and not worse on the other by the margin or more. Non-inferiority
  on the other is what keeps a policy that does nothing (it breaks nothing) or one that only grew bolder from winning.
- **regressed**: not improved, and worse on one of them, its interval beyond 0 on the wrong side.
- **no difference shown**: neither. It does not say that there is none: see the smallest difference that would have been
  detected four times in five.
- **not comparable**: other tasks, other versions of them, too many attempts lost to the infrastructure, or too few
  tasks.

Fix-and-clean stands for fixing, since fixes that break other tests are no gain; the plain fix rate is reported beside
it. Each of "improved" and "regressed" has two ways to be wrong with 2.5 % each, so either is said by chance at most
once in twenty; the p-values, of all metrics together, are also shown adjusted by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from regrade.datasets.errors import UserError
from regrade.evaluators import metrics as m
from regrade.evaluators.uncertainty import (
    ClusterLevel,
    Clusters,
    cluster_labels,
    cluster_level,
    detectable_effect,
    difference_interval,
    holm,
    mcnemar_p,
    sign_flip_p,
    task_means,
)

Verdict = Literal["improved", "regressed", "no difference shown", "not comparable"]

MARGIN = 0.02
"""How much worse the other measure may truly be before a gain is no gain."""
TOLERATED_MISSING = 0.05
"""The share of attempts, of either policy, that the infrastructure may lose before the comparison is void."""

COMPARED = (
    m.FIX_AND_CLEAN,
    m.BREAKAGE_INCIDENCE,
    m.FIX_RATE,
    m.FIXED_BUT_BROKE,
    m.SEVERITY,
    m.NET_VALUE,
    m.NO_OP_RATE,
    m.MALFORMED_RATE,
    m.REWARD,
)


@dataclass(frozen=True)
class Difference:
    """One metric of both policies and the paired difference, candidate - baseline, over tasks."""

    name: str
    label: str
    better: Literal["higher", "lower", "neither"]
    is_rate: bool
    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference: bootstrap over clusters of tasks."""
    p: float
    """Sign-flip permutation test by cluster, two-sided."""
    p_holm: float
    """Adjusted for all metrics that have a better end."""
    detectable: float
    """The smallest true difference found with probability 0.8."""
    n_tasks: int
    n_clusters: int

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown"]:
        """Of this metric alone, by its interval."""
        if self.better == "neither" or not (self.low > 0 or self.high < 0):
            return "no difference shown"
        return "better" if (self.low > 0) == (self.better == "higher") else "worse"

    def to_json(self) -> dict[str, Any]:
        """Numbers that are not finite become null."""
        values = {**asdict(self), "verdict": self.verdict}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
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
    """What was resampled: see `regrade.evaluators.uncertainty`."""
    n_tasks: int = 0
    n_clusters: int = 0
    n_baseline: int = 0
    n_candidate: int = 0
    """Attempts."""
    mcnemar: float | None = None
    """Exact McNemar p of fix-and-clean; only with one attempt a task. It takes tasks to be independent."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "metrics": {name: value.to_json() for name, value in self.metrics.items()}}


def compare(baseline: pd.DataFrame, candidate: pd.DataFrame, margin: float = MARGIN) -> Comparison:
    """Compare two tables of one policy at one temperature each (see `regrade.evaluators.table`), paired by task.

    Raises:
        UserError: a table is empty or holds several policies or temperatures, or the margin is no share.
    """
    if not 0 <= margin < 1:
        raise UserError(f"the margin is a share between 0 and 1 (0.02 is 2 points); found {margin!r}")
    names = (_only_policy(baseline, "baseline"), _only_policy(candidate, "candidate"))
    obstacle = _obstacle(baseline, candidate)
    sizes: dict[str, Any] = {
        "n_baseline": len(baseline),
        "n_candidate": len(candidate),
        "n_tasks": baseline["task"].nunique(),
    }
    if obstacle:
        return Comparison(*names, "not comparable", obstacle, margin, **sizes)
    level = cluster_level(baseline)
    differences = _differences(baseline, candidate, level)
    verdict, reason = _verdict(differences, margin)
    return Comparison(
        *names,
        verdict,
        reason,
        margin,
        differences,
        level,
        n_clusters=differences[m.FIX_AND_CLEAN.name].n_clusters,
        mcnemar=_mcnemar(baseline, candidate),
        warnings=_warnings(baseline, candidate, level),
        **sizes,
    )


def outcomes(baseline: pd.DataFrame, candidate: pd.DataFrame, metric: m.Metric = m.FIX_AND_CLEAN) -> pd.DataFrame:
    """One row a task that both know: task, repository, function, baseline, candidate (means over samples and seeds)."""
    first, second = (task_means(rows, metric.of_rows(rows)) for rows in (baseline, candidate))
    both = first.rename(columns={"value": "baseline"})
    both["candidate"] = both["task"].map(dict(zip(second["task"], second["value"], strict=True))).astype("float64")
    return both[both["baseline"].notna() & both["candidate"].notna()].reset_index(drop=True)


def noise_floor(rows: pd.DataFrame) -> Comparison | None:
    """A/A control: one policy against itself, its attempts of even against odd rank; None with one attempt a task.

    The differences are pure chance, so they show what size of difference to think nothing of. Each half has half of the
    attempts: the floor of the whole comparison is lower by about the square root of two.
    """
    order = rows.sort_values(["task", "seed", "sample"], kind="stable")
    rank = order.groupby("task").cumcount()
    halves = order[rank % 2 == 0], order[rank % 2 == 1]
    if not len(rows) or set(halves[0]["task"]) != set(halves[1]["task"]):
        return None
    return compare(*halves)


def _only_policy(rows: pd.DataFrame, what: str) -> str:
    if not len(rows):
        raise UserError(f"the {what} has no rows; evaluate it first")
    for column, advice in (("policy", "--policy"), ("temperature", "--temperature")):
        found = sorted(rows[column].unique())
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            raise UserError(f"the {what} holds several values of {column} ({listed}); choose one with {advice}")
    return str(rows["policy"].iloc[0])


def _obstacle(baseline: pd.DataFrame, candidate: pd.DataFrame) -> str:
    """Why the two cannot be compared; empty if they can."""
    first, second = (rows.groupby("task")["task_digest"].agg(set) for rows in (baseline, candidate))
    only = first.index.symmetric_difference(second.index)
    if len(only):
        counts = f"{len(first)} and {len(second)}, of which {len(only)} are not shared, such as {only[0]!r}"
        return f"they were not tried on the same tasks: {counts}"
    changed = [task for task in first.index if first[task] != second[task] or len(first[task]) > 1]
    if changed:
        return f"{len(changed)} tasks have other files or tests in one of them, such as {changed[0]!r}"
    for what, rows in (("baseline", baseline), ("candidate", candidate)):
        lost = float(rows["broke"].isna().mean())
        if lost > TOLERATED_MISSING:
            limit = f"at most {TOLERATED_MISSING:.0%} may be"
            return f"the infrastructure lost {lost:.0%} of the {what}'s attempts ({limit})"
    known = outcomes(baseline, candidate)
    if np.unique(cluster_labels(known, cluster_level(baseline))).size < 2:
        return f"{len(known)} task(s) of a single cluster cannot show how much figures vary; evaluate more tasks"
    return ""


def _differences(baseline: pd.DataFrame, candidate: pd.DataFrame, level: ClusterLevel) -> dict[str, Difference]:
    samples = {metric.name: _paired(baseline, candidate, metric, level) for metric in COMPARED}
    p_values = {name: sign_flip_p(sample) for name, (sample, _) in samples.items() if sample.count > 1}
    adjusted = holm({x.name: p_values[x.name] for x in COMPARED if x.better != "neither" and x.name in p_values})
    found = {}
    for metric in COMPARED:
        sample, both = samples[metric.name]
        if sample.count < 2:
            continue  # a metric that was not measured, such as the reward of rows without one
        p = p_values[metric.name]
        found[metric.name] = Difference(
            metric.name,
            metric.label,
            metric.better,
            metric.is_rate,
            float(both["baseline"].mean()),
            float(both["candidate"].mean()),
            sample.mean,
            *difference_interval(sample),
            p,
            adjusted.get(metric.name, p),
            detectable_effect(sample.standard_error, sample.count),
            len(both),
            sample.count,
        )
    return found


def _paired(
    baseline: pd.DataFrame, candidate: pd.DataFrame, metric: m.Metric, level: ClusterLevel
) -> tuple[Clusters, pd.DataFrame]:
    both = outcomes(baseline, candidate, metric)
    return Clusters.of(both["candidate"] - both["baseline"], cluster_labels(both, level)), both


def _verdict(differences: Mapping[str, Difference], margin: float) -> tuple[Verdict, str]:
    fixes, breaks = differences[m.FIX_AND_CLEAN.name], differences[m.BREAKAGE_INCIDENCE.name]
    figures = f"fixed and clean {points(fixes)}, broke something {points(breaks)}"
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


def _mcnemar(baseline: pd.DataFrame, candidate: pd.DataFrame) -> float | None:
    if baseline["task"].duplicated().any() or candidate["task"].duplicated().any():
        return None
    both = outcomes(baseline, candidate)
    lost = int(((both["baseline"] == 1) & (both["candidate"] == 0)).sum())
    won = int(((both["baseline"] == 0) & (both["candidate"] == 1)).sum())
    return mcnemar_p(lost, won)


def _warnings(baseline: pd.DataFrame, candidate: pd.DataFrame, level: ClusterLevel) -> tuple[str, ...]:
    found = []
    if level == "function":
        count = baseline["repository"].nunique()
        found.append(
            f"intervals resample functions, not repositories, of which there are only {count}: "
            f"they speak of new bugs in {'this repository' if count == 1 else 'these repositories'}, not of other ones"
        )
    counts = [rows.groupby("task").size() for rows in (baseline, candidate)]
    if not counts[0].equals(counts[1]):
        found.append("the two have different numbers of attempts for some tasks; each task still counts once")
    lost = int(baseline["broke"].isna().sum() + candidate["broke"].isna().sum())
    if lost:
        found.append(f"{lost} attempt{'s were' if lost > 1 else ' was'} lost to the infrastructure and left out")
    return tuple(found)
