"""The content of the HTML report: figures as text and charts as SVG, for the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.agent_metrics import AGENT_METRICS, agent_figures, episode_ends
from regrade.evaluators.analysis.comparison import Comparison, Difference, compare
from regrade.evaluators.analysis.metrics import Estimate
from regrade.evaluators.analysis.side_metrics import HOPS
from regrade.evaluators.analysis.verdicts import Kind
from regrade.evaluators.storage.manifest import PolicyRole
from regrade.reports import charts
from regrade.reports.assurance import assurance_lines
from regrade.reports.attempts import GROUPS, OUTCOMES, UNKNOWN, TaskView, task_views
from regrade.reports.attribution_store import load_attributions
from regrade.reports.data_quality import (
    QualityRow,
    Sensitivity,
    quality_rows,
    sensitivities,
    task_notes,
    unused_columns,
)
from regrade.reports.number_format import figure, percent, rate, temperature
from regrade.reports.result_charts import (
    Checkpoints,
    FigureRows,
    Waterfall,
    by_trait,
    charted_policies,
    checkpoints,
    detailed_policies,
    hops,
    places,
    severity,
    waterfalls,
)
from regrade.reports.results import Pair, PolicyResult, Results
from regrade.reports.severity import SEVERITY_INKS
from regrade.reports.training_curves import PhaseCurves, training_curves
from regrade.reports.trajectories import RunTrajectories
from regrade.reports.verdict_text import ANSWERS, headline, sentence, verdicts
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
GATED = "lost to closed gates"
FOREST = (m.FIX_AND_CLEAN, m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.FIXED_BUT_BROKE, m.NO_OP_RATE)
STEP_INKS = {"execution": "k1", "generation": "k2", "training": "k3"}


@dataclass(frozen=True)
class QuestionView:
    """One question of a comparison with its answer and its difference."""

    name: str
    kind: Kind
    words: str
    difference: Difference | None
    """None: unmeasured."""


@dataclass(frozen=True)
class PairView:
    """One comparison with its sentence, its reason and its charts."""

    pair: Pair
    sentence: str
    reason: str
    """The reason of the verdict, without figures that the page shows beside it."""
    answers: tuple[QuestionView, ...]
    forest: Markup
    sweep: Markup
    """Difference in clean fixes with both at the same temperature; empty with fewer than two temperatures."""

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
    """The values of the template."""

    results: Results
    headline: str
    """The verdict on each candidate against each compared policy; empty without a comparison."""
    verdicts: tuple[str, ...]
    """The distinct verdicts of the candidates against their first baselines."""
    scopes: tuple[str, ...]
    """What the verdicts apply to, if not to other repositories."""
    inks: Mapping[str, str]
    pairs: tuple[PairView, ...]
    best_rows: tuple[PolicyRow, ...]
    """Each policy at its own best temperature."""
    all_rows: tuple[PolicyRow, ...]
    trade_off: Markup
    by_temperature: Markup
    repositories: Markup
    severity: FigureRows | None
    severity_inks: Mapping[str, str]
    hops: FigureRows | None
    places: FigureRows | None
    traits: Mapping[str, FigureRows]
    checkpoints: tuple[Checkpoints, ...]
    waterfalls: tuple[Waterfall, ...]
    views: tuple[TaskView, ...]
    detailed: tuple[PolicyResult, ...]
    """The policies with attempts in `views`."""
    outcomes: tuple[str, ...]
    """The outcomes of attempts, to filter tasks by."""
    groups: Mapping[str, int]
    rewards: Markup
    reward_parts: Mapping[str, Mapping[str, float]]
    """Policy's label -> part of the reward -> mean contribution at the policy's best temperature."""
    reward_means: Mapping[str, Estimate]
    """Policy's label -> mean reward, with equal weights of all tasks."""
    reward_inks: Mapping[str, str]
    curves: tuple[PhaseCurves, ...]
    phases: Markup
    shares: Markup
    share_of_step: Mapping[str, float]
    more: tuple[tuple[PolicyResult, str, Mapping[str, str]], ...]
    """(policy, ink, further figure -> text)."""
    agents: tuple[tuple[PolicyResult, str, Mapping[str, str]], ...]
    """The same of how each agent works; empty without agents."""
    quality: tuple[QualityRow, ...]
    unused_columns: tuple[str, ...]
    """The columns of `quality` that are 0 for all policies."""
    sensitivities: tuple[Sensitivity, ...]
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

    @property
    def agent_names(self) -> list[str]:
        """The names of the figures of any agent."""
        return list(dict.fromkeys(name for _, _, figures in self.agents for name in figures))


def build_page(results: Results) -> Page:
    """Compute the content of the report."""
    inks = policy_inks(results)
    views = _views(results, inks)
    reward_parts = _reward_parts(results)
    reward_inks = _part_inks(reward_parts)
    swept, detailed = charted_policies(results), detailed_policies(results)
    series = [_series(policy, inks[policy.name], is_detailed=policy in detailed) for policy in swept]
    measured = [one for one in series if _is_measured(one)]
    several = any(len(policy.temperatures) > 1 for policy in swept)
    shares = results.run.share_of_step()
    step = {"one step": shares} if shares else {}
    seconds = {name: phase.seconds for name, phase in results.manifest.phases.items()}
    quality = quality_rows(results, inks)
    return Page(
        results=results,
        headline=headline(results.pairs),
        verdicts=verdicts(results.pairs),
        scopes=tuple(dict.fromkeys(pair.best.scope for pair in results.pairs if pair.best.scope)),
        inks=inks,
        pairs=_pair_views(results.pairs, inks),
        views=tuple(views),
        detailed=tuple(detailed),
        outcomes=_outcomes(views),
        best_rows=tuple(_row(policy, inks[policy.name], policy.temperature) for policy in results.tabled),
        all_rows=tuple(_row(policy, inks[policy.name], t) for policy in results.tabled for t in policy.temperatures),
        trade_off=charts.trade_off(measured) if measured else Markup(),
        by_temperature=charts.by_temperature(series) if several else Markup(),
        repositories=_repositories(results.pairs[0]) if results.pairs else Markup(),
        severity=severity(results),
        severity_inks=SEVERITY_INKS,
        hops=hops(results, inks),
        places=places(results, inks),
        traits=by_trait(results, inks),
        checkpoints=checkpoints(results),
        waterfalls=waterfalls(results),
        groups={group: sum(view.group == group for view in views) for group in GROUPS},
        rewards=charts.stacked("reward", "Mean contribution of each reward part", reward_parts, reward_inks),
        reward_parts=reward_parts,
        reward_means={p.label: m.estimate(p.best, m.REWARD) for p in results.tabled if p.label in reward_parts},
        reward_inks=reward_inks,
        curves=tuple(training_curves(results.run.training(), list(results.manifest.phases))),
        phases=charts.bars("phases", "Wall time of each phase", seconds),
        share_of_step=shares,
        shares=charts.stacked("share", "Share of a training step", step, STEP_INKS, unit="%", limit=1),
        more=tuple((policy, inks[policy.name], _more(policy)) for policy in results.tabled),
        agents=tuple((p, inks[p.name], figures) for p in results.tabled if (figures := _agent(p.best))),
        quality=quality,
        unused_columns=unused_columns(quality),
        sensitivities=sensitivities(results),
        noise=results.noise_floor,
        notes=tuple(_notes(results)),
    )


def policy_inks(results: Results) -> dict[str, str]:
    """Return policy name -> ink: a role has the same colours in all reports."""
    return {
        policy.name: inks[number % len(inks)]
        for role, inks in ROLE_INKS.items()
        for number, policy in enumerate(results.of_role(role))
    }


def _forest(pair: Pair) -> list[Difference]:
    return [pair.best.metrics[metric.name] for metric in FOREST if metric.name in pair.best.metrics]


def _pair_views(pairs: Sequence[Pair], inks: Mapping[str, str]) -> tuple[PairView, ...]:
    reach = _reach([difference for pair in pairs for difference in _forest(pair)])
    return tuple(_pair_view(pair, inks, reach) for pair in pairs)


def _reach(differences: Sequence[Difference]) -> float | None:
    """The largest distance of an interval from 0. The wide bound of a constant measure does not set the scale, unless
    all are constant."""
    varying = [difference for difference in differences if not difference.is_constant] or differences
    ends = [abs(end) for difference in varying for end in difference.ends]
    values = [abs(difference.difference) for difference in differences]
    return max((end for end in (*ends, *values) if math.isfinite(end)), default=None)


def _pair_view(pair: Pair, inks: Mapping[str, str], reach: float | None) -> PairView:
    comparison, forest = pair.best, _forest(pair)
    metric, ink = m.FIX_AND_CLEAN.name, inks[pair.candidate.name]
    reason = f"{comparison.decision.reason}." if comparison.decision else comparison.reason
    return PairView(
        pair,
        sentence(pair),
        reason,
        _answers(comparison),
        charts.forest(f"forest-{pair.key}", forest, comparison.margin, reach),
        charts.difference_by_temperature(f"sweep-{pair.key}", pair.by_temperature, metric, ink),
    )


def _answers(comparison: Comparison) -> tuple[QuestionView, ...]:
    decision = comparison.decision
    if decision is None:
        return ()
    both = (
        ("clean fixes", decision.fixing.kind, m.FIX_AND_CLEAN.name),
        ("breakage", decision.breaking.kind, m.BREAKAGE_INCIDENCE.name),
    )
    return tuple(QuestionView(name, kind, ANSWERS[kind], comparison.metrics.get(key)) for name, kind, key in both)


def _row(policy: PolicyResult, ink: str, at: float) -> PolicyRow:
    return PolicyRow(policy, ink, at, at == policy.temperature, policy.estimates(at))


def _series(policy: PolicyResult, ink: str, *, is_detailed: bool) -> charts.Series:
    series = []
    pick = {"policy": policy.name, "outcome": "breakage"} if is_detailed else {}
    for at in policy.temperatures:
        figures = policy.estimates(at, (m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.FIX_AND_CLEAN))
        fix, breakage, clean_fix = figures.values()
        series.append(charts.Point(at, fix, breakage, clean_fix, at == policy.temperature))
    return charts.Series(policy.label, ink, series, pick)


def _is_measured(series: charts.Series) -> bool:
    """Are the fixes and the breakage of all its points known?"""
    return all(math.isfinite(point.fix.value + point.breakage.value) for point in series.points)


def _views(results: Results, inks: Mapping[str, str]) -> list[TaskView]:
    first, *further = detailed_policies(results)
    second = further.pop(0) if results.pairs else None
    hunks, trajectories = load_attributions(results.run.folder), RunTrajectories(results.run)
    return task_views(first, second, further, inks, results.tasks, hunks, trajectories.of)


def _outcomes(views: Sequence[TaskView]) -> tuple[str, ...]:
    """The outcomes that occur: those of `OUTCOMES` in their order, then severities and distances."""
    present = {outcome for view in views for _, outcome in view.outcomes}
    order = [*OUTCOMES, UNKNOWN, *(f"severity {name}" for name in SEVERITY_INKS), *(f"hops {name}" for name in HOPS)]
    return tuple(name for name in order if name in present)


def _repositories(pair: Pair) -> Markup:
    """The difference in clean fixes within each repository; empty for fewer than two."""
    differences: dict[str, Difference] = {}
    before, after = pair.baseline.best, pair.candidate.best
    for repository in sorted(before["repository"].unique()):
        inside = compare(before[before["repository"] == repository], after[after["repository"] == repository])
        if m.FIX_AND_CLEAN.name in inside.metrics:
            differences[str(repository)] = inside.metrics[m.FIX_AND_CLEAN.name]
    return charts.repositories("repositories", differences)


def _reward_parts(results: Results) -> dict[str, dict[str, float]]:
    """Policy's label -> part -> mean contribution at its own best temperature, for policies with rewards."""
    by_policy = {policy.label: _mean_parts(policy.best) for policy in results.tabled}
    return {label: parts for label, parts in by_policy.items() if parts}


def _part_inks(parts: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Part -> ink in the order of the parts; the loss to closed gates comes last, in a pale ink."""
    names = dict.fromkeys(name for of_one in parts.values() for name in of_one)
    inks = {name: PART_INKS[number % len(PART_INKS)] for number, name in enumerate(n for n in names if n != GATED)}
    return inks | ({GATED: "band"} if GATED in names else {})


def _mean_parts(rows: pd.DataFrame) -> dict[str, float]:
    """Part -> mean contribution over the scored attempts, with the mean loss to closed gates."""
    scored = rows[rows["reward"].notna()]
    total: dict[str, float] = {}
    lost = 0.0
    if scored.empty:
        return {}
    for parts in scored["parts"]:
        for part in parts:
            if part.get("role") == Role.GATE.value:
                continue
            total[part["name"]] = total.get(part["name"], 0.0) + part["contribution"]
            if part["value"] is not None and not part["contribution"]:
                lost += part["weight"] * part["value"]
    total[GATED] = lost
    return {name: value / len(scored) for name, value in total.items() if name != GATED or value > 1e-9}


def _more(policy: PolicyResult) -> dict[str, str]:
    rows = policy.best
    tail = m.severity(rows)
    figures = {
        m.FIXED_BUT_BROKE.label: rate(m.fixed_but_broke(rows)),
        m.BREAKAGE_OF_CHANGES.label: rate(m.estimate(rows, m.BREAKAGE_OF_CHANGES)),
        "Broken share of guarded tests, mean": rate(tail.mean),
        "… 90th percentile": percent(tail.ninetieth, 2),
        "… attempts that break at least half": percent(tail.catastrophes),
    }
    samples = int(rows.groupby("task").size().min())
    if samples > 1:
        figures[f"pass@{samples}"] = rate(m.pass_at_k(rows, samples))
        figures[f"pass^{samples}"] = rate(m.pass_hat_k(rows, samples))
    tokens = m.cost_estimate(rows, "tokens")
    ends = f" [{tokens.low:,.0f}, {tokens.high:,.0f}]" if math.isfinite(tokens.low + tokens.high) else ""
    return figures | {"Tokens per clean fix": f"{tokens.value:,.0f}{ends}" if math.isfinite(tokens.value) else "–"}


def _agent(rows: pd.DataFrame) -> dict[str, str]:
    """How an agent works, as label -> figure with its interval; empty without episodes."""
    estimates = agent_figures(rows)
    labels = {metric.name: metric for metric in AGENT_METRICS}
    figures = {labels[name].label: figure(one, is_rate=labels[name].is_rate) for name, one in estimates.items()}
    ends = episode_ends(rows)
    return figures | ({"Ends": ", ".join(f"{end} {count}" for end, count in ends.items())} if ends else {})


def _notes(results: Results) -> list[str]:
    assurance = [f"{line[0].upper()}{line[1:]}." for line in assurance_lines(results.assurance)]
    notes = [*results.manifest.notes, *results.remarks, *task_notes(results), *assurance]
    for pair in results.pairs:
        notes += [f"{pair.candidate.label} against {pair.baseline.label}: {text}." for text in pair.best.warnings]
    unfinished = [name for name, phase in results.manifest.phases.items() if not phase.done]
    if unfinished:
        notes.append(f"Unfinished phases: {', '.join(unfinished)}.")
    listed = ", ".join(
        f"{policy.label} {temperature(policy.temperature)}" for policy in results.policies if policy.role != "scripted"
    )
    return [*notes, f"Headline figures are at each policy's own best temperature: {listed}."]
