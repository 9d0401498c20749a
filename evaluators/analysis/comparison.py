"""Paired comparison of two policies on the same tasks: clean fixes, breakage, and a verdict.

`regrade.evaluators.analysis.verdicts` decides the verdict from two 95 % intervals of paired differences (candidate -
baseline), `fix_and_clean` and `breakage_incidence` over all attempts (intention to treat), and from a margin declared
beforehand (default: 2 points). With missing attempts, *improved* must hold even if they all had ended in the
candidate's disfavour: else a policy that loses its bad attempts would win.

The verdict uses clean fixes, since a fix with breakage is no gain; the plain fix rate is reported too. "improved" and
"regressed" each have two ways to be false, with 2.5 % each, so the error rate of either is at most 5 %: the null
hypothesis is that the candidate is not better (not worse) on new tasks of these repositories. The same rule applies to
2 and to 120 repositories. Several candidates against one baseline are a family (`compare_family`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted, plural
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.differences import (
    CONFIDENCE,
    VERDICT_METRICS,
    Difference,
    Pairs,
    bounds_of,
    differences_of,
    interval_of,
    is_same_reward,
    outcomes,
    pairs_of,
)
from regrade.evaluators.analysis.missing_attempts import is_unanswered, measured_alike, with_missing_attempts
from regrade.evaluators.analysis.runs import n_runs, run_spread
from regrade.evaluators.analysis.uncertainty import ClusterLevel
from regrade.evaluators.analysis.verdicts import ComparisonVerdict, Decision, decide
from regrade.evaluators.storage.rows import without_outcome

__all__ = [
    "MARGIN",
    "Comparison",
    "ComparisonVerdict",
    "Difference",
    "compare",
    "compare_family",
    "noise_floor",
    "outcomes",
    "points",
]

MARGIN = 0.02
"""Non-inferiority margin: a gain counts only if the other metric is worse by less."""
TOLERATED_MISSING = 0.05
"""The largest share of missing attempts, of either policy, that a comparison accepts."""
FEWEST_CLUSTERS = 7
"""Fewer functions show nothing, even if all of them differ alike: t(5)^2 / 6 > 1."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of `compare`."""

    baseline: str
    candidate: str
    verdict: ComparisonVerdict
    reason: str
    """One sentence with the decisive figures."""
    decision: Decision | None = None
    """The answers to both questions, with their words; None if not comparable."""
    margin: float
    metrics: Mapping[str, Difference] = field(default_factory=dict)
    clusters: ClusterLevel = "function"
    """The clusters of tasks: see `regrade.evaluators.analysis.clustered_means`."""
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
    worst: ComparisonVerdict | None = None
    best: ComparisonVerdict | None = None
    """The verdict if every missing attempt had ended in the candidate's disfavour, or favour; None without any.
    Attempts that were lost before there was an answer are left out in both."""
    elsewhere: ComparisonVerdict | None = None
    """The verdict by the intervals for other repositories; None for a single repository."""
    family: int = 1
    """Candidates compared with the baseline. With several, the intervals have a higher confidence, by Holm's method."""
    confidence: float = CONFIDENCE
    """Of the intervals."""

    def to_json(self) -> dict[str, Any]:
        metrics = {name: value.to_json() for name, value in self.metrics.items()}
        return {**asdict(self), "metrics": metrics, "decision": self.decision and self.decision.to_json()}

    @property
    def scope(self) -> str:
        """What the verdict applies to, such as `new bugs in these 2 repositories only`."""
        if self.decision is None:
            return ""
        count = self.n_repositories
        these = f"new bugs in {'this repository' if count == 1 else f'these {count} repositories'}"
        is_general = self.elsewhere == self.verdict != "no difference shown"
        return f"{these}, and in others like them" if is_general else f"{these} only"

    @property
    def words(self) -> str:
        """The verdict with its detail: `inconclusive (fixes more, non-inferiority on breakage not shown)`."""
        return f"{self.verdict} ({self.decision.detail})" if self.decision else self.verdict


def compare(
    baseline: pd.DataFrame, candidate: pd.DataFrame, margin: float = MARGIN, *, confidence: float = CONFIDENCE
) -> Comparison:
    """Compare two tables of one policy at one temperature each (see `regrade.evaluators.storage.rows`), paired by task.

    Raises:
        UserError: a table is empty or has several policies or temperatures, or the margin is not in [0, 1).
    """
    if not 0 <= margin < 1:
        raise UserError(f"the margin is a share between 0 and 1 (0.02 is 2 points); found {margin!r}")
    baseline, candidate, one_sided = measured_alike(baseline, candidate)
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
        "confidence": confidence,
        "n_missing": sum(int(without_outcome(rows).sum()) for rows in whole),
    }
    if obstacle:
        return Comparison(verdict="not comparable", reason=obstacle, **facts)
    differences = differences_of(baseline, candidate, confidence)
    decision = _decision(differences, margin)
    bounds: dict[str, ComparisonVerdict] = {}
    if facts["n_missing"]:
        differences, bounds = _bounded(differences, *whole, margin, confidence)
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
        n_clusters=differences[m.FIX_AND_CLEAN.name].n_clusters,
        mcnemar=pairs[m.FIX_AND_CLEAN.name].p if pairs else None,
        warnings=(*_warnings(*whole, differences, decision.verdict, bounds), *_one_sided(one_sided, whole[0])),
        pairs=pairs,
        worst=bounds.get("worst"),
        best=bounds.get("best"),
        elsewhere=_elsewhere(differences, margin, decision),
        **facts,
    )


def compare_family(
    baseline: pd.DataFrame, candidates: Sequence[pd.DataFrame], margin: float = MARGIN
) -> list[Comparison]:
    """Compare each candidate with the baseline; false verdicts in at most 5 % of such families, either way.

    By Holm's step-down method over candidates: each has the smaller p of the verdict's two metrics. The candidate with
    the smallest p is compared at confidence 1 - 0.05 / m, the next at 1 - 0.05 / (m - 1), and so on up to the first
    one that is not shown to differ; all others are compared at the level where the method stopped.
    """
    single = [compare(baseline, candidate, margin) for candidate in candidates]
    p_values = {place: p for place, one in enumerate(single) if (p := _smallest_p(one)) is not None}
    if len(p_values) < 2:
        return single
    levels = family_levels(p_values)
    for place, level in levels.items():
        one = compare(baseline, candidates[place], margin, confidence=level)
        note = (
            f"one of {len(levels)} candidates: by Holm's method its intervals and its verdict are at "
            f"{100 * level:.4g} % confidence, so that false verdicts occur in at most 5 % of such families, either way"
        )
        single[place] = replace(one, family=len(levels), warnings=(note, *one.warnings))
    return single


def family_levels(p_values: Mapping[int, float]) -> dict[int, float]:
    """The confidence of each comparison of a family, by Holm's method."""
    levels: dict[int, float] = {}
    left, has_stopped = len(p_values), False
    for place in sorted(p_values, key=lambda place: p_values[place]):
        alpha = (1 - CONFIDENCE) / left
        levels[place] = 1 - alpha
        has_stopped = has_stopped or p_values[place] > alpha
        left -= not has_stopped
    return levels


def _smallest_p(comparison: Comparison) -> float | None:
    return min((x.p for x in comparison.metrics.values() if x.is_decisive), default=None)


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
    if Sample.of_tasks(known, known["baseline"]).n_functions < 2:
        return f"{counted(len(known), 'task')} of a single cluster cannot show variation: evaluate more tasks"
    return ""


def _bounded(
    differences: Mapping[str, Difference],
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    margin: float,
    confidence: float,
) -> tuple[dict[str, Difference], dict[str, ComparisonVerdict]]:
    """The differences with their worst and best case, and the verdict of each case."""
    bounds = {
        metric.name: found
        for metric in m.METRICS
        if metric.name in differences and (found := bounds_of(baseline, candidate, metric)) is not None
    }
    bounded = {
        name: replace(one, worst=bounds[name][0].mean, best=bounds[name][1].mean) if name in bounds else one
        for name, one in differences.items()
    }
    decisive = [
        bounds_of(baseline, candidate, metric, may_be_unanswered=False) if metric.name in differences else None
        for metric in VERDICT_METRICS
    ]
    spreads = [run_spread(baseline, candidate, metric) for metric in VERDICT_METRICS]
    cases: dict[str, ComparisonVerdict] = {}
    for place, case in enumerate(("worst", "best")):
        fixing, breaking = (
            None if one is None else interval_of(one[place], confidence, runs)
            for one, runs in zip(decisive, spreads, strict=True)
        )
        cases[case] = decide(fixing, breaking, margin).verdict
    return bounded, cases


def _decision(differences: Mapping[str, Difference], margin: float) -> Decision:
    ends = {name: difference.ends for name, difference in differences.items()}
    return decide(ends.get(m.FIX_AND_CLEAN.name), ends.get(m.BREAKAGE_INCIDENCE.name), margin)


def _elsewhere(differences: Mapping[str, Difference], margin: float, decision: Decision) -> ComparisonVerdict | None:
    found = [differences.get(metric.name) for metric in VERDICT_METRICS]
    if all(one is None or one.over_repositories is None for one in found):
        return None
    fixing, breaking = (None if one is None else one.over_repositories for one in found)
    return decide(fixing, breaking, margin, depends_on_missing=decision.depends_on_missing).verdict


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


def _claims(repositories: int, differences: Mapping[str, Difference]) -> str:
    """What the intervals are about, and what they would be for other repositories."""
    decisive = [one for one in differences.values() if one.is_decisive and one.over_repositories is not None]
    these = plural(repositories, "this repository", f"these {repositories} repositories")
    if not decisive:
        return f"the intervals are for new bugs in {these}, not for other repositories"
    others = ", ".join(
        f"{one.label.lower()} {points(replace(one, low=one.over_repositories[0], high=one.over_repositories[1]))}"
        for one in decisive
        if one.over_repositories is not None
    )
    return f"the intervals are for new bugs in {these}; for other repositories, of which these are a sample: {others}"


def _warnings(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    differences: Mapping[str, Difference],
    verdict: ComparisonVerdict,
    bounds: Mapping[str, ComparisonVerdict],
) -> Iterator[str]:
    yield _claims(baseline["repository"].nunique(), differences)
    single = [role for role, rows in (("baseline", baseline), ("candidate", candidate)) if n_runs(rows) == 1]
    if len(single) == 2:
        yield (
            "one run (seed) stands for each policy: how much a policy differs from run to run is not measured, and not "
            "part of the intervals"
        )
    n_clusters = differences[m.FIX_AND_CLEAN.name].n_clusters
    if n_clusters < FEWEST_CLUSTERS:
        yield (
            f"{n_clusters} clusters of tasks cannot show a difference of any size: at least {FEWEST_CLUSTERS} are "
            "needed"
        )
    counts = [rows.groupby("task").size() for rows in (baseline, candidate)]
    if not counts[0].equals(counts[1]):
        yield "some tasks have different numbers of attempts in the two; each task still counts once"
    if not is_same_reward(baseline, candidate):
        yield "the two were scored by different rewards, so their rewards are not compared"
    yield from _unmeasured(baseline, candidate)
    if bounds:
        count = sum(int(without_outcome(rows).sum()) for rows in (baseline, candidate))
        unanswered = sum(int(is_unanswered(rows).sum()) for rows in (baseline, candidate))
        text = (
            f"{counted(count, 'attempt')} {plural(count, 'is', 'are')} missing (lost to the infrastructure, "
            "or never recorded) and excluded"
        )
        if unanswered:
            text += (
                f"; {unanswered} of them {plural(unanswered, 'was', 'were')} lost before there was an answer, so no "
                "patch can be the reason"
            )
        if {*bounds.values()} != {verdict}:
            text += (
                f", and the verdict depends on them: {bounds['worst']} if they had ended in the candidate's disfavour, "
                f"{bounds['best']} if in its favour"
            )
        yield text


def _one_sided(tasks: Sequence[str], rows: pd.DataFrame) -> Iterator[str]:
    if tasks:
        total = counted(rows["task"].nunique(), "task")
        yield (
            f"only one of the two contains the breakage of {len(tasks)} of {total}, such as {tasks[0]!r}: there plain "
            "fixes are compared instead of clean ones"
        )


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
