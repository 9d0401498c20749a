"""What the page shows of a run: figures as text and charts as SVG, ready for the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Comparison, Difference, compare
from regrade.evaluators.analysis.metrics import Estimate
from regrade.evaluators.analysis.side_metrics import HOPS
from regrade.evaluators.storage.run import PolicyRole
from regrade.reports import charts
from regrade.reports.attempts import GROUPS, NOT_KNOWN, OUTCOMES, TaskView, task_views
from regrade.reports.curves import PhaseCurves, training_curves
from regrade.reports.kept_hunks import kept
from regrade.reports.quality import Bearing, QualityRow, bearings, never_seen, quality_rows, task_notes
from regrade.reports.results import Pair, PolicyResult, Results
from regrade.reports.severity import SEVERITY_INKS
from regrade.reports.views import (
    Checkpoints,
    FigureRows,
    Waterfall,
    by_trait,
    checkpoints,
    hops,
    looked_into,
    severity,
    waterfalls,
)
from regrade.reports.wording import NO_BREAK, percent, points, rate, temperature
from regrade.rewards.breakdown import Role

ROLE_INKS: Mapping[PolicyRole, tuple[str, ...]] = {
    "baseline": ("s1",),
    "control": ("s2",),
    "candidate": ("s3", "s4", "s5"),
    "checkpoint": ("s4", "s5", "s3"),
    "upper bound": ("s6",),
    "scripted": ("s7", "s8"),
}
PART_INKS = tuple(f"k{number}" for number in range(1, 9))
GATED = "held back by a closed gate"
FOREST = (m.FIX_AND_CLEAN, m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.FIXED_BUT_BROKE, m.NO_OP_RATE)
STEP_INKS = {"execution": "k1", "generation": "k2", "training": "k3"}


@dataclass(frozen=True)
class PairView:
    """One comparison, its sentences and its charts."""

    pair: Pair
    sentence: str
    reason: str
    """Why the verdict is what it is, without the figures that stand beside it."""
    forest: Markup
    sweep: Markup
    """Difference in fix-and-clean with both at the same temperature; empty with fewer than two temperatures."""

    @property
    def comparison(self) -> Comparison:
        return self.pair.best


@dataclass(frozen=True)
class PolicyRow:
    """A policy at one temperature in the table of policies."""

    policy: PolicyResult
    ink: str
    temperature: float
    is_best: bool
    figures: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the template needs."""

    results: Results
    headline: str
    """The verdict on each candidate against every policy that it was compared with; empty without any."""
    verdicts: tuple[str, ...]
    """Those that the headline tells of; the first candidate's against its first baseline comes first."""
    inks: Mapping[str, str]
    pairs: tuple[PairView, ...]
    best_rows: tuple[PolicyRow, ...]
    """Each policy at its own best temperature, and greedy beside it where that is another one."""
    all_rows: tuple[PolicyRow, ...]
    trade_off: Markup
    by_temperature: Markup
    repositories: Markup
    severity: FigureRows | None
    severity_inks: Mapping[str, str]
    hops: FigureRows | None
    traits: Mapping[str, FigureRows]
    checkpoints: tuple[Checkpoints, ...]
    waterfalls: tuple[Waterfall, ...]
    views: tuple[TaskView, ...]
    looked_into: tuple[PolicyResult, ...]
    """The policies whose attempts `views` shows."""
    outcomes: tuple[str, ...]
    """What the tasks can be filtered by: what some attempt came to."""
    groups: Mapping[str, int]
    rewards: Markup
    reward_parts: Mapping[str, Mapping[str, float]]
    """Policy's label -> part of the reward -> mean contribution at its best temperature."""
    reward_means: Mapping[str, Estimate]
    """Policy's label -> mean reward, every task counting the same."""
    reward_inks: Mapping[str, str]
    curves: tuple[PhaseCurves, ...]
    phases: Markup
    shares: Markup
    share_of_step: Mapping[str, float]
    more: tuple[tuple[PolicyResult, str, Mapping[str, str]], ...]
    """(policy, ink, further figure -> text)."""
    quality: tuple[QualityRow, ...]
    never_seen: tuple[str, ...]
    """What `quality` counts of which there was none."""
    bearings: tuple[Bearing, ...]
    noise: Comparison | None
    notes: tuple[str, ...]

    @property
    def label_inks(self) -> dict[str, str]:
        """Policy's label -> ink."""
        return {policy.label: self.inks[policy.name] for policy in self.results.policies}

    @property
    def more_names(self) -> list[str]:
        """The names of the further figures of any policy."""
        return list(dict.fromkeys(name for _, _, figures in self.more for name in figures))


def build_page(results: Results) -> Page:
    """Compute everything that the report shows."""
    inks = policy_inks(results)
    ends = [abs(end) for pair in results.pairs for found in _forest(pair) for end in (found.low, found.high)]
    reach = max((end for end in ends if math.isfinite(end)), default=None)
    pairs = tuple(_pair_view(pair, inks, reach) for pair in results.pairs)
    views = _views(results, inks)
    reward_parts = _reward_parts(results)
    reward_inks = _part_inks(reward_parts)
    swept = [policy for policy in results.policies if policy.role not in ("scripted", "checkpoint")]
    shown = looked_into(results)
    series = [_series(policy, inks[policy.name], is_looked_into=policy in shown) for policy in swept]
    several = any(len(policy.temperatures) > 1 for policy in swept)
    shares = results.run.share_of_step()
    quality = quality_rows(results, inks)
    return Page(
        results=results,
        headline=headline(results.pairs),
        verdicts=verdicts(results.pairs),
        inks=inks,
        pairs=pairs,
        views=tuple(views),
        looked_into=tuple(shown),
        outcomes=_outcomes(views),
        best_rows=tuple(_row(policy, inks[policy.name], policy.temperature) for policy in results.tabled),
        all_rows=tuple(_row(policy, inks[policy.name], t) for policy in results.tabled for t in policy.temperatures),
        trade_off=charts.trade_off(series) if series else Markup(),
        by_temperature=charts.by_temperature(series) if several else Markup(),
        repositories=_repositories(results.pairs[0]) if results.pairs else Markup(),
        severity=severity(results),
        severity_inks=SEVERITY_INKS,
        hops=hops(results, inks),
        traits=by_trait(results, inks),
        checkpoints=checkpoints(results),
        waterfalls=waterfalls(results),
        groups={group: sum(view.group == group for view in views) for group in GROUPS},
        rewards=charts.stacked("reward", "Mean contribution of each part of the reward", reward_parts, reward_inks)
        if reward_parts
        else Markup(),
        reward_parts=reward_parts,
        reward_means={p.label: m.estimate(p.best, m.REWARD) for p in results.tabled if p.label in reward_parts},
        reward_inks=reward_inks,
        curves=tuple(training_curves(results.run.training(), list(results.manifest.phases))),
        phases=_phases(results),
        share_of_step=shares,
        shares=charts.stacked("share", "Share of a training step", {"one step": shares}, STEP_INKS, unit="%", limit=1)
        if shares
        else Markup(),
        more=tuple((policy, inks[policy.name], _more(policy)) for policy in results.tabled),
        quality=quality,
        never_seen=never_seen(quality),
        bearings=bearings(results),
        noise=results.noise_floor,
        notes=tuple(_notes(results)),
    )


def policy_inks(results: Results) -> dict[str, str]:
    """Policy name -> ink: a role has the same colours in every report."""
    found = {}
    for role, inks in ROLE_INKS.items():
        found.update({p.name: inks[number % len(inks)] for number, p in enumerate(results.of_role(role))})
    return found


def _forest(pair: Pair) -> list[Difference]:
    return [pair.best.metrics[metric.name] for metric in FOREST if metric.name in pair.best.metrics]


def _pair_view(pair: Pair, inks: Mapping[str, str], reach: float | None) -> PairView:
    found, forest = pair.best, _forest(pair)
    sweep = pair.by_temperature if len(pair.by_temperature) > 1 else {}
    reason = found.reason.partition(": ")[0] + "." if found.metrics else found.reason
    return PairView(
        pair,
        _sentence(pair),
        reason,
        charts.forest(f"forest-{pair.key}", forest, found.margin, reach) if forest else Markup(),
        charts.difference_by_temperature(f"sweep-{pair.key}", sweep, m.FIX_AND_CLEAN.name, inks[pair.candidate.name])
        if sweep
        else Markup(),
    )


VERDICTS = {
    "improved": "improves on {}",
    "regressed": "is worse than {}",
    "no difference shown": "is not shown to differ from {}",
    "not comparable": "cannot be compared with {}",
}


NAMED_CANDIDATES = 3
"""More than these are counted in the headline, not named."""


def headline(pairs: Sequence[Pair]) -> str:
    """`A improves on B and is worse than C; D is worse than B`: no verdict stands without the others.

    Of many candidates it is how many of them fared how against the first baseline.
    """
    by_candidate: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_candidate.setdefault(pair.candidate.name, []).append(pair)
    if len(by_candidate) > NAMED_CANDIDATES:
        counts: Counter[str] = Counter(found[0].best.verdict for found in by_candidate.values())
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        return f"{len(by_candidate)} candidates against {pairs[0].baseline.label}: {told}"
    return "; ".join(map(_told_of_one, by_candidate.values()))


def _told_of_one(pairs: Sequence[Pair]) -> str:
    against: dict[str, list[str]] = {}
    for pair in pairs:
        against.setdefault(pair.best.verdict, []).append(pair.baseline.label)
    shown = ("improved", "regressed")
    said = [
        VERDICTS[verdict].format(_listed(labels, "and" if verdict in shown else "or"))
        for verdict, labels in against.items()
    ]
    return f"{pairs[0].candidate.label} {_listed(said, 'and')}"


def verdicts(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Each candidate's against its first baseline, each verdict once."""
    firsts: dict[str, str] = {}
    for pair in pairs:
        firsts.setdefault(pair.candidate.name, pair.best.verdict)
    return tuple(dict.fromkeys(firsts.values()))


def _listed(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _sentence(pair: Pair) -> str:
    found = pair.best
    if not found.metrics:
        return f"{found.reason[:1].upper()}{found.reason[1:]}."
    clean, broke = found.metrics[m.FIX_AND_CLEAN.name], found.metrics[m.BREAKAGE_INCIDENCE.name]
    text = (
        f"{'Against the control, ' if pair.baseline.role == 'control' else ''}"
        f"{pair.candidate.label} fixes {percent(clean.candidate)} of {found.n_tasks} tasks without breaking "
        f"anything, {pair.baseline.label} {percent(clean.baseline)}: {points(clean)}. It breaks something in "
        f"{percent(broke.candidate)} of its attempts, against {percent(broke.baseline)}: {points(broke)}."
    )
    return text.replace(" %", f"{NO_BREAK}%")


def _row(policy: PolicyResult, ink: str, at: float) -> PolicyRow:
    return PolicyRow(policy, ink, at, at == policy.temperature, policy.estimates(at))


def _series(policy: PolicyResult, ink: str, *, is_looked_into: bool) -> charts.Series:
    found = []
    pick = {"policy": policy.name, "outcome": "breakage"} if is_looked_into else {}
    for at in policy.temperatures:
        figures = policy.estimates(at, (m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.FIX_AND_CLEAN))
        fix, broke, clean = figures.values()
        found.append(charts.Point(at, fix, broke, clean, at == policy.temperature))
    return charts.Series(policy.label, ink, found, pick)


def _views(results: Results, inks: Mapping[str, str]) -> list[TaskView]:
    first, *others = looked_into(results)
    second = others.pop(0) if results.pairs else None
    return task_views(first, second, others, inks, results.tasks, kept(results.run.folder))


def _outcomes(views: Sequence[TaskView]) -> tuple[str, ...]:
    """Those that occur, the plain ones in the order of `OUTCOMES`, then by how much and how far away it broke."""
    seen = {outcome for view in views for _, outcome in view.outcomes}
    order = [*OUTCOMES, NOT_KNOWN, *(f"severity {name}" for name in SEVERITY_INKS), *(f"hops {name}" for name in HOPS)]
    return tuple(name for name in order if name in seen)


def _repositories(pair: Pair) -> Markup:
    """The difference in fix-and-clean within each repository; empty for a single one."""
    found: dict[str, Difference] = {}
    before, after = pair.baseline.best, pair.candidate.best
    for repository in sorted(before["repository"].unique()):
        inside = compare(before[before["repository"] == repository], after[after["repository"] == repository])
        if m.FIX_AND_CLEAN.name in inside.metrics:
            found[str(repository)] = inside.metrics[m.FIX_AND_CLEAN.name]
    return charts.repositories("repositories", found) if len(found) > 1 else Markup()


def _reward_parts(results: Results) -> dict[str, dict[str, float]]:
    """Policy's label -> part -> mean contribution at its own best temperature; none for one without rewards."""
    found = {policy.label: _mean_parts(policy.best) for policy in results.tabled}
    return {label: parts for label, parts in found.items() if parts}


def _part_inks(parts: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Part -> ink in the order of the parts; what gates held back comes last and pale."""
    names = dict.fromkeys(name for each in parts.values() for name in each)
    inks = {name: PART_INKS[number % len(PART_INKS)] for number, name in enumerate(n for n in names if n != GATED)}
    return inks | ({GATED: "band"} if GATED in names else {})


def _mean_parts(rows: pd.DataFrame) -> dict[str, float]:
    """Part -> mean contribution over the scored attempts, and what closed gates held back."""
    scored = rows[rows["reward"].notna()]
    total: dict[str, float] = {}
    gated = 0.0
    if scored.empty:
        return {}
    for parts in scored["parts"]:
        held = 0.0
        for part in parts:
            if part.get("role") == Role.GATE.value:
                continue
            total[part["name"]] = total.get(part["name"], 0.0) + part["contribution"]
            if part["value"] is not None and not part["contribution"]:
                held += part["weight"] * part["value"]
        gated += held
    total[GATED] = gated
    return {name: value / len(scored) for name, value in total.items() if name != GATED or value > 1e-9}


def _phases(results: Results) -> Markup:
    seconds = {name: phase.seconds for name, phase in results.manifest.phases.items()}
    return charts.bars("phases", "Wall time of each phase", seconds) if seconds else Markup()


def _more(policy: PolicyResult) -> dict[str, str]:
    rows = policy.best
    tail = m.severity(rows)
    found = {
        "Fix with breakage": rate(m.fixed_but_broke(rows)),
        "Breakage of non-empty patches": rate(m.estimate(rows, m.BREAKAGE_OF_CHANGES)),
        "Guarded tests broken, mean": rate(tail.mean),
        "… 90th percentile": percent(tail.ninetieth, 2),
        "… at least half of them": percent(tail.catastrophes),
    }
    samples = int(rows.groupby("task").size().min())
    if samples > 1:
        found[f"pass@{samples}"] = rate(m.pass_at_k(rows, samples))
        found[f"pass^{samples}"] = rate(m.pass_hat_k(rows, samples))
    tokens = m.cost_estimate(rows, "tokens")
    ends = f" [{tokens.low:,.0f}, {tokens.high:,.0f}]" if math.isfinite(tokens.low + tokens.high) else ""
    return found | {"Tokens for each clean fix": f"{tokens.value:,.0f}{ends}" if math.isfinite(tokens.value) else "–"}


def _notes(results: Results) -> list[str]:
    notes = [*results.manifest.notes, *results.remarks, *task_notes(results)]
    for pair in results.pairs:
        notes += [f"{pair.candidate.label} against {pair.baseline.label}: {text}." for text in pair.best.warnings]
    unfinished = [name for name, phase in results.manifest.phases.items() if not phase.done]
    if unfinished:
        notes.append(f"Not finished: {', '.join(unfinished)}.")
    chosen = ", ".join(
        f"{policy.label} {temperature(policy.temperature)}" for policy in results.policies if policy.role != "scripted"
    )
    return [*notes, f"Headline figures are at each policy's own best temperature: {chosen}."]
