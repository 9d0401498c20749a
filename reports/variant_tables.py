"""Variants of one training as Markdown tables: what each reached on held-out tasks, how it differs from the baseline,
what its training cost, and what its reward taught."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from regrade.evaluators.analysis.component_effects import GROUPS
from regrade.evaluators.analysis.metrics import BREAKAGE_INCIDENCE, FIX_AND_CLEAN, Metric, estimate
from regrade.evaluators.analysis.training_audit import TrainingAudit, audit_steps
from regrade.evaluators.analysis.variant_differences import VariantDifference, differences_from
from regrade.policy_training.environments.stops import CascadeStage
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.reports.number_format import duration, figure, number, percent, signed
from regrade.reports.variant_results import VariantResult, VariantTraining

SHOWN_P = 0.05
DECISIVE = (FIX_AND_CLEAN, BREAKAGE_INCIDENCE)

VariantResults = Mapping[str, VariantResult]


def held_out_table(results: VariantResults, metrics: Sequence[Metric]) -> str:
    """Each metric of each variant, with its 95 % interval."""
    rows = [
        [
            result.variant.label,
            ", ".join(map(str, result.seeds)),
            *(figure(estimate(result.rows, metric), is_rate=metric.is_rate) for metric in metrics),
        ]
        for result in results.values()
    ]
    return markdown_table(["variant", "seeds", *(metric.label.lower() for metric in metrics)], rows)


def differences_table(results: VariantResults, baseline: str, metrics: Sequence[Metric]) -> str:
    """The paired differences from the baseline, with their 95 % intervals; rates in points.

    Bold: the interval excludes 0, and Holm's method over the variants confirms it. Of clean fixes and breakage also the
    difference with each seed, and the smallest true difference that 80 % of such comparisons detect.
    """
    tables = {name: result.rows for name, result in results.items()}
    found = {metric.name: differences_from(tables, baseline, metric) for metric in metrics}
    decisive = [metric for metric in metrics if metric in DECISIVE]
    rows = []
    for name, result in results.items():
        if name == baseline:
            continue
        cells = [_difference(found[metric.name].get(name), metric) for metric in metrics]
        details = [(found[metric.name].get(name), metric) for metric in decisive]
        cells += ["; ".join(_by_seed(one, metric) for one, metric in details)]
        cells += [" / ".join(_detectable(one, metric) for one, metric in details)]
        rows.append([result.variant.label, *cells])
    against = results[baseline].variant.label
    names = [metric.label.lower() for metric in decisive]
    head = [f"less {against}", *(metric.label.lower() for metric in metrics)]
    return markdown_table([*head, f"by seed: {'; '.join(names)}", f"detectable: {' / '.join(names)}"], rows)


def trainings_table(results: VariantResults) -> str:
    """What each training took and what the guard saw, as means over the seeds; alarms and rollbacks as sums."""
    rows = []
    for result in results.values():
        trainings = list(result.trainings.values())
        if not trainings:
            continue
        rows.append(
            [
                result.variant.label,
                duration(_mean(each.seconds for each in trainings)),
                number(_mean(each.taken for each in trainings), 0),
                number(_mean(each.attempts for each in trainings), 0),
                number(_mean(each.tokens_per_second for each in trainings), 0),
                percent(_mean(each.waiting_share for each in trainings), 0),
                percent(_mean(each.differing_groups for each in trainings), 0),
                number(_mean(each.last("kl") for each in trainings), 3),
                percent(_mean(each.mean("clip_ratio/region_mean") for each in trainings)),
                number(_mean(each.last("entropy") for each in trainings), 2),
                _alarms(trainings),
                str(sum(each.rollbacks for each in trainings)),
            ]
        )
    head = ["variant", "wall time", "steps", "attempts", "tokens/s", "waits for tests", "groups that differ"]
    return markdown_table([*head, "last KL", "clipped", "last entropy", "alarms", "rollbacks"], rows)


def executions_table(results: VariantResults) -> str:
    """What each training executed, as means over the seeds: attempts, the distinct patches of which tests ran, which
    stage of a cascade answered, and what its audits say.

    A patch whose evidence was stored already counts as executed.
    """
    rows = []
    for result in results.values():
        trainings = list(result.trainings.values())
        if not trainings or isinstance(result.variant.settings, SFTSettings):
            continue
        rows.append(
            [
                result.variant.label,
                duration(_mean(each.seconds for each in trainings)),
                percent(_mean(each.waiting_share for each in trainings), 0),
                number(_mean(each.attempts for each in trainings), 0),
                number(_mean(each.total("executed_patches") for each in trainings), 0),
                _answered(trainings),
                percent(_mean(each.last("cascade/wrong") for each in trainings), 0),
                number(_mean(each.last("cascade/pay_error") for each in trainings), 2),
            ]
        )
    head = ["variant", "wall time", "waits for tests", "attempts", "patches executed", "answered by"]
    return markdown_table([*head, "audits: wrong stops", "error of pay"], rows)


def _answered(trainings: Sequence[VariantTraining]) -> str:
    shares = {stage: _mean(each.mean(f"cascade/answered/{stage}") for each in trainings) for stage in CascadeStage}
    return ", ".join(f"{stage} {percent(share, 0)}" for stage, share in shares.items() if not math.isnan(share))


def components_table(results: VariantResults) -> str:
    """Of each training, the components of its reward with an effect (see `training_audit`), and its findings below."""
    rows, findings = [], []
    for label, audit in _audits(results):
        for each in audit.components:
            if each.share:
                means = ["" if value is None else number(value) for value in (each.first, each.last)]
                shares = [percent(each.share, 0), percent(each.decides or 0.0, 0)]
                rows.append([label, f"`{each.name}`", *means, *shares])
        findings += [f"- {label}: {finding}" for finding in audit.findings]
    head = ["variant", "component", "mean, first", "mean, last", "share", "decides"]
    return "\n\n".join(part for part in (markdown_table(head, rows), "\n".join(findings)) if part)


def _audits(results: VariantResults) -> Iterable[tuple[str, TrainingAudit]]:
    for result in results.values():
        logged = [step for each in result.trainings.values() for step in each.steps if step.get(GROUPS) is not None]
        if logged:
            yield result.variant.label, audit_steps(result.variant.name, logged)


def missing_note(results: VariantResults, names: Iterable[str], seeds: Sequence[int]) -> str:
    """A line that says which variants are not done with which seed; empty if all are."""
    missing = [
        f"{name} (seed {seed})"
        for seed in seeds
        for name in names
        if name not in results or seed not in results[name].seeds
    ]
    return f"Not done yet: {', '.join(missing)}." if missing else ""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Empty without rows."""
    title, *lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([title, "|-" * len(head) + "|", *lines]) if lines else ""


def _difference(one: VariantDifference | None, metric: Metric) -> str:
    if one is None:
        return "–"
    text = f"{_signed(one.value, metric)} [{_signed(one.low, metric)}, {_signed(one.high, metric)}]"
    is_shown = (one.low > 0 or one.high < 0) and one.p_holm <= SHOWN_P
    return f"**{text}**" if is_shown else text


def _by_seed(one: VariantDifference | None, metric: Metric) -> str:
    return "–" if one is None else ", ".join(_signed(value, metric) for value in one.by_seed.values())


def _detectable(one: VariantDifference | None, metric: Metric) -> str:
    if one is None or not math.isfinite(one.detectable):
        return "–"
    return number(100 * one.detectable if metric.is_rate else one.detectable, 1)


def _signed(value: float, metric: Metric) -> str:
    return signed(100 * value, 1) if metric.is_rate else signed(value, 2)


def _alarms(trainings: Sequence[VariantTraining]) -> str:
    kinds = sum((each.alarms for each in trainings), start=Counter[str]())
    told = [f"{count} {kind}" for kind, count in sorted(kinds.items())]
    given_up = sum(each.is_given_up for each in trainings)
    return ", ".join([*told, *([f"{given_up} given up"] if given_up else [])]) or "0"


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan
