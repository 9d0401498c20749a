"""The report of a study: curves, exchange rates and paired differences, as one HTML page and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.agent_metrics import AGENT_METRICS
from regrade.evaluators.analysis.comparison import Comparison, points
from regrade.evaluators.storage.journal import write_atomically
from regrade.policy_training.study.cells import FORMS, ROLES, Training
from regrade.reports.html_report import FILE
from regrade.reports.number_format import rate, signed
from regrade.reports.study_charts import RateCurve, rate_curves
from regrade.reports.study_results import (
    CURVES,
    SHOWN,
    Other,
    StudyGain,
    StudyPoint,
    StudyResults,
    load_study,
    time_left,
    to_json,
)
from regrade.reports.templating import render

INKS: dict[Training, str] = {"sft": "s1", "control": "s2", "rl": "s3"}
OTHERS: dict[Other, str] = {
    "sft": "SFT",
    "control": "SFT given equal time",
    "once": "the same learning with one turn",
}
MARKDOWN, FIGURES = "report.md", "study.json"


@dataclass(frozen=True)
class FormCharts:
    """The charts of policies of one turn, or of agents."""

    name: str
    over_demonstrations: tuple[tuple[str, Markup], ...]
    over_tasks: tuple[tuple[str, Markup], ...]
    """Empty with fewer than two numbers of tested tasks."""


@dataclass(frozen=True)
class StudyPage:
    """The values of the template."""

    study: StudyResults
    headline: str
    leads: tuple[str, ...]
    negative: tuple[str, ...]
    """Results that show no gain, or a loss."""
    forms: tuple[FormCharts, ...]
    inks: dict[Training, str]
    labels: dict[Training, str]
    others: dict[Other, str]
    agent_metrics: tuple[m.Metric, ...]
    """Those that any point has."""
    hours_left: str


def write_study_report(folder: Path) -> Path:
    """Write FOLDER/report.html, report.md and study.json (each replaced atomically), and return the path of the page.

    Raises:
        UserError: the folder is no study.
    """
    study = load_study(folder)
    write_atomically(folder / FIGURES, json.dumps(to_json(study), indent=1, allow_nan=False) + "\n")
    write_atomically(folder / MARKDOWN, study_markdown(study))
    write_atomically(folder / FILE, render("study.html", page=build_study_page(study), shown=SHOWN))
    return folder / FILE


def build_study_page(study: StudyResults) -> StudyPage:
    """Compute the content of the page."""
    forms = [
        FormCharts(FORMS[is_agent], tuple(_over_demonstrations(study, is_agent)), tuple(_over_tasks(study, is_agent)))
        for is_agent in study.settings.agents
    ]
    return StudyPage(
        study,
        headline(study),
        tuple(leads(study)),
        tuple(negative_results(study)),
        tuple(forms),
        INKS,
        {name: label for name, (_, label) in ROLES.items()},
        OTHERS,
        _agent_metrics(study),
        time_left(study.states),
    )


def headline(study: StudyResults) -> str:
    """The exchange rate at few demonstrations with most tested tasks, in words: of agents, if there are any."""
    done = sum(state.is_done for state in study.states)
    gain = next((gain for gain in study.main if gain.exchange is not None), None)
    if gain is None or gain.exchange is None:
        return f"{done} of {counted(len(study.states), 'cell')} done: no exchange rate yet"
    place, exchange = gain.candidate.place, gain.exchange
    what = f"Learning from {place.tests_only} tested tasks on top of {place.demonstrations} demonstrations"
    if not exchange.is_shown:
        return f"{what} is not shown to be worth any demonstration"
    return f"{what} is worth {exchange.words.partition(' [')[0]}"


def leads(study: StudyResults) -> Iterator[str]:
    """The interval of the headline, and the comparisons at the same point; of agents and of one turn."""
    if not any(gain.exchange for gain in study.main):
        yield "The rate needs SFT with two numbers of demonstrations, and reinforcement learning at one of them."
    for gain in study.main:
        exchange = gain.exchange
        if exchange is not None:
            gap = f"{signed(100 * exchange.breakage_difference)} points"
            ends = ", ".join(signed(100 * end) for end in exchange.breakage)
            yield " ".join(
                [
                    f"{gain.candidate.form.capitalize()}: {exchange.words}, 95 % interval over "
                    f"{exchange.n_functions} functions, {counted(len(gain.candidate.seeds), 'seed')}.",
                    f"At equal clean fixes its breakage differs from SFT's by {gap} [{ends}].",
                    *(f"Against {OTHERS[name]}: {one.verdict}." for name, one in gain.against.items()),
                ]
            )


def negative_results(study: StudyResults) -> Iterator[str]:
    """Each comparison that does not show an improvement, and each exchange rate that is not shown to be above 0."""
    for gain in study.gains:
        place = gain.candidate.place
        where = f"{gain.candidate.form}, {place.demonstrations} demonstrations, {place.tests_only} tested tasks"
        for name, comparison in gain.against.items():
            if comparison.verdict != "improved":
                yield f"{where.capitalize()}, against {OTHERS[name]}: {comparison.words}."
        if gain.exchange is not None and not gain.exchange.is_shown:
            yield f"{where.capitalize()}: not shown to be worth any demonstration ({gain.exchange.words})."


def study_markdown(study: StudyResults) -> str:
    """The headline, a table of all points, and one of what reinforcement learning adds."""
    lines = [f"# {headline(study)}", "", *(f"{text}\n" for text in leads(study))]
    metrics = (*SHOWN, *_agent_metrics(study))
    head = ["policy", "", "demonstrations", "tested tasks", "seeds", *(metric.label.lower() for metric in metrics)]
    lines += ["| " + " | ".join(head) + " |", "|-" * len(head) + "|"]
    lines += [_point_row(point, metrics) for point in study.points]
    if study.gains:
        lines += [
            "",
            "| | demonstrations | tested tasks | against | clean fix | breakage | verdict | exchange rate |",
            "|-|-|-|-|-|-|-|-|",
            *(row for gain in study.gains for row in _gain_rows(gain)),
        ]
    negative = list(negative_results(study))
    if negative:
        lines += ["", "Not shown, or negative:", "", *(f"- {text}" for text in negative)]
    return "\n".join([*lines, "", f"{time_left(study.states).capitalize()}.", ""])


def _agent_metrics(study: StudyResults) -> tuple[m.Metric, ...]:
    return tuple(one for one in AGENT_METRICS if any(one.name in point.figures for point in study.points))


def _point_row(point: StudyPoint, metrics: Sequence[m.Metric]) -> str:
    place, seeds = point.place, ", ".join(map(str, point.seeds))
    figures = " | ".join(figure(point, metric) for metric in metrics)
    return f"| {point.label} | {point.form} | {place.demonstrations} | {place.tests_only or ''} | {seeds} | {figures} |"


def figure(point: StudyPoint, metric: m.Metric) -> str:
    """Such as `12.3 % [10.1, 14.8]` or `3.1 [2.9, 3.3]`; empty if it does not apply."""
    found = point.figures.get(metric.name)
    if found is None or not found.n:
        return ""
    return rate(found) if metric.is_rate else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _gain_rows(gain: StudyGain) -> Iterator[str]:
    place = gain.candidate.place
    for name, comparison in gain.against.items():
        differences = " | ".join(_difference(comparison, metric) for metric in CURVES[:2])
        worth = gain.exchange.words if gain.exchange and name == "sft" else ""
        where = f"{gain.candidate.form} | {place.demonstrations} | {place.tests_only}"
        yield f"| {where} | {OTHERS[name]} | {differences} | {comparison.verdict} | {worth} |"


def _difference(comparison: Comparison, metric: m.Metric) -> str:
    """Such as `+3.1 points [+0.4, +5.8]`; a dash if it was not measured."""
    difference = comparison.metrics.get(metric.name)
    return "–" if difference is None else points(difference)


def _over_demonstrations(study: StudyResults, is_agent: bool) -> Iterator[tuple[str, Markup]]:
    gain = next((gain for gain in study.main if gain.candidate.place.is_agent == is_agent), None)
    for metric in CURVES:
        curves = [_curve(name, study.curve(name, is_agent=is_agent), metric, by="demonstrations") for name in INKS]
        exchange = None
        if metric is m.FIX_AND_CLEAN and gain is not None and gain.exchange is not None:
            exchange = gain.exchange, gain.candidate.figures[metric.name].value
        chart = rate_curves(
            f"demonstrations-{metric.name}-{is_agent}",
            f"{metric.label} over demonstrations, {FORMS[is_agent]}",
            curves,
            study.settings.demonstrations,
            "demonstrations",
            "% of all attempts",
            exchange,
        )
        yield metric.label, chart


def _over_tasks(study: StudyResults, is_agent: bool) -> Iterator[tuple[str, Markup]]:
    if len(study.task_curve("rl", is_agent=is_agent)) < 2:
        return
    for metric in CURVES:
        curves = [
            _curve(name, study.task_curve(name, is_agent=is_agent), metric, by="tests_only", is_level=name == "sft")
            for name in INKS
        ]
        chart = rate_curves(
            f"tasks-{metric.name}-{is_agent}",
            f"{metric.label} over tested tasks, {FORMS[is_agent]}",
            curves,
            study.settings.tests_only,
            "tested tasks",
            "% of all attempts",
        )
        yield metric.label, chart


def _curve(name: Training, of: list[StudyPoint], metric: m.Metric, *, by: str, is_level: bool = False) -> RateCurve:
    figures = [(int(getattr(point.place, by)), point.figures[metric.name]) for point in of]
    values = [(count, figure) for count, figure in figures if figure.n]
    return RateCurve(ROLES[name][1], INKS[name], values, is_level)
