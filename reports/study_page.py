"""The report of a study: curves, exchange rates and paired differences, as one HTML page and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Comparison, points
from regrade.evaluators.storage.journal import write_atomically
from regrade.policy_training.study.cells import Training
from regrade.reports.html_report import FILE
from regrade.reports.number_format import rate, signed
from regrade.reports.study_charts import RateCurve, rate_curves
from regrade.reports.study_results import (
    CURVES,
    SHOWN,
    StudyGain,
    StudyPoint,
    StudyResults,
    load_study,
    time_left,
    to_json,
)
from regrade.reports.templating import render

INKS: dict[Training, str] = {"sft": "s1", "control": "s2", "rl": "s3"}
MARKDOWN, FIGURES = "report.md", "study.json"


@dataclass(frozen=True)
class StudyPage:
    """The values of the template."""

    study: StudyResults
    headline: str
    lead: str
    negative: tuple[str, ...]
    """Results that show no gain, or a loss."""
    over_demonstrations: tuple[tuple[str, Markup], ...]
    over_tasks: tuple[tuple[str, Markup], ...]
    inks: dict[Training, str]
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
    return StudyPage(
        study,
        headline(study),
        lead(study),
        tuple(negative_results(study)),
        tuple(_over_demonstrations(study)),
        tuple(_over_tasks(study)),
        INKS,
        time_left(study.states),
    )


def headline(study: StudyResults) -> str:
    """The exchange rate at few demonstrations with most tested tasks, in words."""
    gain = study.main
    done = sum(state.is_done for state in study.states)
    if gain is None or gain.exchange is None:
        return f"{done} of {counted(len(study.states), 'cell')} done: no exchange rate yet"
    point, exchange = gain.candidate, gain.exchange
    what = f"Learning from {point.tests_only} tested tasks on top of {point.demonstrations} demonstrations"
    if not exchange.is_shown:
        return f"{what} is not shown to be worth any demonstration"
    return f"{what} is worth {exchange.words.partition(' [')[0]}"


def lead(study: StudyResults) -> str:
    """The interval of the headline, and the comparisons at the same point."""
    gain = study.main
    if gain is None or gain.exchange is None:
        return "The rate needs SFT with two numbers of demonstrations, and reinforcement learning at one of them."
    exchange = gain.exchange
    sentences = [
        f"Exchange rate: {exchange.words}, 95 % interval over {exchange.n_functions} functions, "
        f"{counted(len(gain.candidate.seeds), 'seed')}.",
        f"At equal clean fixes its breakage differs from SFT's by {signed(100 * exchange.breakage_difference)} points "
        f"[{', '.join(signed(100 * end) for end in exchange.breakage)}].",
    ]
    return " ".join([*sentences, *(f"{_against(name)}: {one.verdict}." for name, one in gain.against.items())])


def negative_results(study: StudyResults) -> Iterator[str]:
    """Each comparison that does not show an improvement, and each exchange rate that is not shown to be above 0."""
    for gain in study.gains:
        place = _place(gain)
        for name, comparison in gain.against.items():
            if comparison.verdict != "improved":
                yield f"{place}, {_against(name).lower()}: {comparison.words}."
        if gain.exchange is not None and not gain.exchange.is_shown:
            yield f"{place}: not shown to be worth any demonstration ({gain.exchange.words})."


def study_markdown(study: StudyResults) -> str:
    """The headline, a table of all points, and one of what reinforcement learning adds."""
    lines = [f"# {headline(study)}", "", lead(study), ""]
    head = ["demonstrations", "tested tasks", "seeds", *(metric.label.lower() for metric in SHOWN)]
    lines += ["| policy | " + " | ".join(head) + " |", "|-" * (len(head) + 1) + "|"]
    lines += [_point_row(point) for point in study.points]
    if study.gains:
        lines += [
            "",
            "| demonstrations | tested tasks | against | clean fix | breakage | verdict | exchange rate |",
            "|-|-|-|-|-|-|-|",
            *(row for gain in study.gains for row in _gain_rows(gain)),
        ]
    negative = list(negative_results(study))
    if negative:
        lines += ["", "Not shown, or negative:", "", *(f"- {text}" for text in negative)]
    return "\n".join([*lines, "", f"{time_left(study.states).capitalize()}.", ""])


def _point_row(point: StudyPoint) -> str:
    seeds = ", ".join(map(str, point.seeds))
    figures = " | ".join(rate(point.figures[metric.name]) for metric in SHOWN)
    return f"| {point.label} | {point.demonstrations} | {point.tests_only or ''} | {seeds} | {figures} |"


def _gain_rows(gain: StudyGain) -> Iterator[str]:
    point = gain.candidate
    for name, comparison in gain.against.items():
        differences = " | ".join(difference_words(comparison, metric) for metric in CURVES[:2])
        worth = gain.exchange.words if gain.exchange and name == "sft" else ""
        other = _against(name).removeprefix("Against ")
        counts = f"{point.demonstrations} | {point.tests_only}"
        yield f"| {counts} | {other} | {differences} | {comparison.verdict} | {worth} |"


def difference_words(comparison: Comparison, metric: m.Metric) -> str:
    """Such as `+3.1 points [+0.4, +5.8]`; a dash if it was not measured."""
    difference = comparison.metrics.get(metric.name)
    return "–" if difference is None else points(difference)


def _against(name: Training) -> str:
    return {"sft": "Against SFT", "control": "Against SFT given equal time", "rl": ""}[name]


def _place(gain: StudyGain) -> str:
    return f"{gain.candidate.demonstrations} demonstrations, {gain.candidate.tests_only} tested tasks"


def _over_demonstrations(study: StudyResults) -> Iterator[tuple[str, Markup]]:
    counts = study.settings.demonstrations
    for metric in CURVES:
        curves = [_curve(name, study.curve(name), metric, by="demonstrations") for name in INKS]
        gain = study.main
        exchange = None
        if metric is m.FIX_AND_CLEAN and gain is not None and gain.exchange is not None:
            exchange = gain.exchange, gain.candidate.figures[metric.name].value
        chart = rate_curves(
            f"demonstrations-{metric.name}",
            f"{metric.label} over demonstrations",
            curves,
            counts,
            "demonstrations",
            "% of all attempts",
            exchange,
        )
        yield metric.label, chart


def _over_tasks(study: StudyResults) -> Iterator[tuple[str, Markup]]:
    if len(study.task_curve("rl")) < 2:
        return
    for metric in CURVES:
        curves = [
            _curve(name, study.task_curve(name), metric, by="tests_only", is_level=name == "sft") for name in INKS
        ]
        chart = rate_curves(
            f"tasks-{metric.name}",
            f"{metric.label} over tested tasks",
            curves,
            study.settings.tests_only,
            "tested tasks",
            "% of all attempts",
        )
        yield metric.label, chart


def _curve(name: Training, of: list[StudyPoint], metric: m.Metric, *, by: str, is_level: bool = False) -> RateCurve:
    values = [(getattr(point, by), point.figures[metric.name]) for point in of]
    label = of[0].label if of else ""
    return RateCurve(label, INKS[name], values, is_level)
