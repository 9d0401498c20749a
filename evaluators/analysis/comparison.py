"""Paired comparison of two policies on the same tasks: clean fixes, breakage, and a verdict.

`regrade.evaluators.analysis.verdicts` decides the verdict from two 95 % intervals of paired differences (candidate -
baseline), `fix_and_clean` and `breakage_incidence` over all attempts (intention to treat), and from a margin declared
beforehand (default: 2 points). With missing attempts, *improved* must hold even if they all had ended in the
candidate's disfavour: else a policy that loses its bad attempts would win.

The verdict uses clean fixes, since a fix with breakage is no gain; the plain fix rate is reported too. "improved" and
"regressed" each have two ways to be false, with 2.5 % each, so the error rate of either is at most 5 %. p-values are
also reported with Holm's adjustment over all metrics. With fewer than `uncertainty.MINIMUM_CLUSTERS` clusters the
interval is a t interval with C - 1 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted, plural
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.differences import (
    VERDICT_METRICS,
    Difference,
    Pairs,
    differences_of,
    is_same_reward,
    outcomes,
    pairs_of,
)
from regrade.evaluators.analysis.missing_attempts import fill_missing, with_missing_attempts
from regrade.evaluators.analysis.uncertainty import FEWEST_REPOSITORIES, ClusterLevel, cluster_labels, cluster_level
from regrade.evaluators.analysis.verdicts import Decision, Verdict, decide
from regrade.evaluators.storage.rows import without_outcome

__all__ = ["MARGIN", "Comparison", "Difference", "Verdict", "compare", "noise_floor", "outcomes", "points"]

MARGIN = 0.02
"""Non-inferiority margin: a gain counts only if the other metric is worse by less."""
TOLERATED_MISSING = 0.05
"""The largest share of missing attempts, of either policy, that a comparison accepts."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of `compare`."""

    baseline: str
    candidate: str
    verdict: Verdict
    reason: str
    """One sentence with the decisive figures."""
    decision: Decision | None = None
    """The answers to both questions, with their words; None if not comparable."""
    margin: float
    metrics: Mapping[str, Difference] = field(default_factory=dict)
    clusters: ClusterLevel = "function"
    """The unit of resampling: see `regrade.evaluators.analysis.uncertainty`."""
    n_tasks: int = 0
    n_repositories: int = 0
    n_clusters: int = 0
    n_baseline: int = 0
    n_candidate: int = 0
    """Attempts."""
    mcnemar: float | None = None
    """Exact McNemar p of clean fixes; only with one attempt a task. It assumes independent tasks."""
    warnings: tuple[str, ...] = ()
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    """Clean fixes and breakage as 2 x 2 tables; only with one attempt a task."""
    n_missing: int = 0
    """Missing attempts of both: lost to the infrastructure, or never recorded."""
    worst: Verdict | None = None
    best: Verdict | None = None
    """The verdict if every missing attempt had ended in the candidate's disfavour, or favour; None without any."""

    def to_json(self) -> dict[str, Any]:
        metrics = {name: value.to_json() for name, value in self.metrics.items()}
        return {**asdict(self), "metrics": metrics, "decision": self.decision and self.decision.to_json()}

    @property
    def scope(self) -> str:
        """What the verdict applies to, if not to other repositories: `new bugs in these 2 repositories only`."""
        if self.decision is None or self.clusters == "repository":
            return ""
        count = self.n_repositories
        return f"new bugs in {'this repository' if count == 1 else f'these {count} repositories'} only"

    @property
    def words(self) -> str:
        """The verdict with its detail: `inconclusive (fixes more, non-inferiority on breakage not shown)`."""
        return f"{self.verdict} ({self.decision.detail})" if self.decision else self.verdict


def compare(baseline: pd.DataFrame, candidate: pd.DataFrame, margin: float = MARGIN) -> Comparison:
    """Compare two tables of one policy at one temperature each (see `regrade.evaluators.storage.rows`), paired by task.

    Raises:
        UserError: a table is empty or has several policies or temperatures, or the margin is not in [0, 1).
    """
    if not 0 <= margin < 1:
        raise UserError(f"the margin is a share between 0 and 1 (0.02 is 2 points); found {margin!r}")
    whole = with_missing_attempts(baseline), with_missing_attempts(candidate)
    obstacle = _obstacle(*whole)
    facts: dict[str, Any] = {
        "baseline": _single_policy(baseline, "baseline"),
        "candidate": _single_policy(candidate, "candidate"),
        "margin": margin,
        "n_baseline": len(baseline),
        "n_candidate": len(candidate),
        "n_tasks": baseline["task"].nunique(),
        "n_repositories": baseline["repository"].nunique(),
        "n_missing": sum(int(without_outcome(rows).sum()) for rows in whole),
    }
    if obstacle:
        return Comparison(verdict="not comparable", reason=obstacle, **facts)
    level = cluster_level(baseline)
    differences = differences_of(baseline, candidate, level)
    decision = _decision(differences, margin)
    bounds: dict[str, Verdict] = {}
    if facts["n_missing"]:
        differences, bounds = _bounded(differences, *whole, level, margin)
        decision = replace(decision, depends_on_missing=bounds["worst"] != "improved")
    reason = _reason(decision, differences)
    if decision.is_by_missing:
        reason += (
            " But that depends on missing attempts: if they had ended in its disfavour, the verdict would be "
            f"{bounds['worst']!r}. Run the same evaluation again to complete it."
        )
    pairs = pairs_of(baseline, candidate)
    return Comparison(
        verdict=decision.verdict,
        reason=reason,
        decision=decision,
        metrics=differences,
        clusters=level,
        n_clusters=differences[m.FIX_AND_CLEAN.name].n_clusters,
        mcnemar=pairs[m.FIX_AND_CLEAN.name].p if pairs else None,
        warnings=tuple(_warnings(*whole, differences, level, decision.verdict, bounds)),
        pairs=pairs,
        worst=bounds.get("worst"),
        best=bounds.get("best"),
        **facts,
    )


def noise_floor(rows: pd.DataFrame) -> Comparison | None:
    """A/A control: every second (seed, sample) of one policy against the others; None with too few attempts.

    All differences are due to chance, so their size is the noise of a comparison. Each half has half of the attempts:
    the noise of the whole comparison is smaller by about the square root of two (see `Difference.noise`).
    """
    number = rows.groupby(["seed", "sample"]).ngroup()
    halves = rows[number % 2 == 0], rows[number % 2 == 1]
    if not len(rows) or set(halves[0]["task"]) != set(halves[1]["task"]):
        return None
    return compare(*halves)


def _single_policy(rows: pd.DataFrame, role: str) -> str:
    if not len(rows):
        raise UserError(f"the {role} has no rows; evaluate it first")
    for column in ("policy", "temperature"):
        values = sorted(rows[column].unique())
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise UserError(
                f"the {role} has several values of {column} ({listed}): keep the rows of one {column} of the {role}"
            )
    return str(rows["policy"].iloc[0])


def _obstacle(baseline: pd.DataFrame, candidate: pd.DataFrame) -> str:
    """The reason why the two are not comparable; empty if they are."""
    first, second = (rows.groupby("task")["task_digest"].agg(set) for rows in (baseline, candidate))
    for role, rows in (("baseline", baseline), ("candidate", candidate)):
        doubled = int(rows.duplicated(["task", "sample", "seed"]).sum())
        if doubled:
            return f"{doubled} of the {role}'s rows repeat the attempt of another row: leave one row an attempt"
    only = first.index.symmetric_difference(second.index)
    if len(only):
        counts = f"{len(first)} and {len(second)}, of which {len(only)} are not shared, such as {only[0]!r}"
        return (
            f"they were not evaluated on the same tasks: {counts}; evaluate both with the same tasks, `limit=` and "
            "`seed=`, and complete an interrupted evaluation"
        )
    changed = [task for task in first.index if first[task] != second[task] or len(first[task]) > 1]
    if changed:
        return (
            f"{len(changed)} tasks have different files or tests in the two, such as {changed[0]!r}: evaluate both "
            "with the same version of the tasks"
        )
    for role, rows in (("baseline", baseline), ("candidate", candidate)):
        share = float(without_outcome(rows).mean())
        if share > TOLERATED_MISSING:
            limit = f"at most {TOLERATED_MISSING:.0%} may be"
            first_lost = rows[without_outcome(rows)].iloc[0]
            such_as = f"such as sample {first_lost['sample']} of seed {first_lost['seed']} at {first_lost['task']!r}"
            return (
                f"{share:.0%} of the {role}'s attempts are missing ({limit}), {such_as}, lost to the infrastructure "
                "or never recorded: run the same evaluation again to complete it"
            )
    known = outcomes(baseline, candidate)
    if known.empty:
        return (
            "no task has a known outcome of FAIL_TO_PASS tests, so fixes cannot be compared: give tasks with such tests"
        )
    if np.unique(cluster_labels(known, cluster_level(baseline))).size < 2:
        return f"{counted(len(known), 'task')} of a single cluster cannot show variation: evaluate more tasks"
    return ""


def _bounded(
    differences: Mapping[str, Difference],
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    level: ClusterLevel,
    margin: float,
) -> tuple[dict[str, Difference], dict[str, Verdict]]:
    """The differences with their worst and best case, and the verdict of each case."""
    worst = differences_of(fill_missing(baseline, "best"), fill_missing(candidate, "worst"), level)
    best = differences_of(fill_missing(baseline, "worst"), fill_missing(candidate, "best"), level)
    bounded = {
        name: replace(difference, worst=worst[name].difference, best=best[name].difference)
        if name in m.BOUNDED and name in worst and name in best
        else difference
        for name, difference in differences.items()
    }
    return bounded, {"worst": _decision(worst, margin).verdict, "best": _decision(best, margin).verdict}


def _decision(differences: Mapping[str, Difference], margin: float) -> Decision:
    ends = {name: difference.ends for name, difference in differences.items()}
    return decide(ends.get(m.FIX_AND_CLEAN.name), ends.get(m.BREAKAGE_INCIDENCE.name), margin)


def _reason(decision: Decision, differences: Mapping[str, Difference]) -> str:
    measured = [differences[metric.name] for metric in VERDICT_METRICS if metric.name in differences]
    return f"{decision.reason}: {', '.join(f'{one.label.lower()} {points(one)}' for one in measured)}."


def points(difference: Difference) -> str:
    """Such as `+3.1 points [+0.4, +5.8]`; a metric that is not a rate has no unit."""
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
            f"intervals resample functions, not repositories, of which there are only {count}: they apply to new bugs "
            f"in {plural(count, 'this repository', 'these repositories')}, not to other repositories"
        )
        if fixes.over_repositories is not None:
            low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in fixes.over_repositories)
            warning += f" (clusters of repositories, t({count - 1}): {fixes.label.lower()} [{low}, {high}] points)"
        yield warning
    if fixes.n_clusters < FEWEST_REPOSITORIES:
        yield (
            f"{fixes.n_clusters} clusters of tasks cannot show a difference of any size: at least "
            f"{FEWEST_REPOSITORIES} are needed"
        )
    counts = [rows.groupby("task").size() for rows in (baseline, candidate)]
    if not counts[0].equals(counts[1]):
        yield "some tasks have different numbers of attempts in the two; each task still counts once"
    if not is_same_reward(baseline, candidate):
        yield "the two were scored by different rewards, so their rewards are not compared"
    yield from _unmeasured(baseline, candidate)
    if bounds:
        count = int(without_outcome(baseline).sum() + without_outcome(candidate).sum())
        text = (
            f"{counted(count, 'attempt')} {plural(count, 'is', 'are')} missing (lost to the infrastructure, "
            "or never recorded) and excluded"
        )
        if {*bounds.values()} != {verdict}:
            text += (
                f", and the verdict depends on them: {bounds['worst']} if they had ended in the candidate's disfavour, "
                f"{bounds['best']} if in its favour"
            )
        yield text


def _unmeasured(baseline: pd.DataFrame, candidate: pd.DataFrame) -> Iterator[str]:
    """A warning if the breakage of some tasks, or of all, was not measured."""
    tasks: set[str] = set()
    for role, rows in (("baseline", baseline), ("candidate", candidate)):
        if rows["broke"].isna().all():
            yield f"breakage is unmeasured: the {role}'s rows do not contain it, so it is not compared"
            return
        tasks |= set(rows["task"]) - set(rows["task"][rows["broke"].notna() | without_outcome(rows)])
    if tasks:
        total = baseline["task"].nunique()
        yield (
            f"breakage is unmeasured at {len(tasks)} of {counted(total, 'task')}, such as {min(tasks)!r}: its "
            "difference is that of the others"
        )
