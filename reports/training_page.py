"""The page of a training: the curve of every logged number, alarms and rollbacks, and attempts from along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from regrade.datasets.errors import UserError
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.manifest import Manifest
from regrade.evaluators.storage.run import Run
from regrade.reports.charts import curve
from regrade.reports.diff_lines import diff_lines
from regrade.reports.templating import render
from regrade.reports.training_curves import PREFERRED, alarms_of, numbers_of

FILE = "training.html"
ALARM, ROLLBACK = "alarm/", "rolled_back_to"
"""Keys of a step that the stability guard stopped: `alarm/KIND` -> what was seen; the step that it returned to."""
UNCHARTED = ("step", "phase", "epoch", "alarms", "rollbacks", ROLLBACK)
EXACT = ("learning_rate", "seconds", "num_tokens")
"""Settings and sums: a running mean would bend them."""
MOST_SAMPLES = 40
"""Attempts on the page, from all along the training."""


ChartGroup = tuple[str, tuple[tuple[str, Markup], ...]]


@dataclass(frozen=True)
class PhaseCharts:
    """One phase: its charts by group, and what went wrong."""

    phase: str
    steps: int
    groups: tuple[ChartGroup, ...]
    """(what the names begin with, such as `reward`; its charts)."""
    figures: tuple[tuple[str, float], ...]
    """Logged once, such as those of a round of expert iteration, which need no chart."""
    events: tuple[str, ...]
    """Alarms, rollbacks and numbers that were not finite, a line each."""


@dataclass(frozen=True)
class SampledAttempt:
    """One attempt, as the training kept it."""

    step: int
    task_id: str
    outcome: str
    reward: float
    text: str
    """What the policy wrote."""
    lines: tuple[tuple[str, str], ...]
    """(kind, text) of its patch."""


@dataclass(frozen=True)
class TrainingPage:
    """The values of the template."""

    manifest: Manifest
    settings: tuple[tuple[str, str], ...]
    phases: tuple[PhaseCharts, ...]
    samples: tuple[SampledAttempt, ...]


def write_training_report(folder: Path) -> Path:
    """Write FOLDER/training.html (replaced atomically), and return its path.

    Raises:
        UserError: the folder is no run, or has no training log.
    """
    run = Run.open(folder)
    logs = run.training()
    if not any(logs.values()):
        raise UserError(f"{folder} has no training log: give a folder that `regrade train` wrote")
    order = {name: number for number, name in enumerate(run.manifest.phases)}
    page = TrainingPage(
        manifest=run.manifest,
        settings=tuple(_flat("", run.manifest.configuration)),
        phases=tuple(_phase(name, logs[name]) for name in sorted(logs, key=lambda name: order.get(name, len(order)))),
        samples=tuple(_samples(run.samples)),
    )
    journal.write_atomically(folder / FILE, render("training.html", page=page))
    return folder / FILE


def _phase(phase: str, rows: Sequence[Mapping[str, Any]]) -> PhaseCharts:
    numbers = {key: numbers_of(rows, key) for key in dict.fromkeys(key for row in rows for key in row)}
    keys = [
        key
        for key, values in numbers.items()
        if key not in UNCHARTED and not key.startswith(ALARM) and any(value is not None for value in values)
    ]
    keys.sort(key=lambda key: PREFERRED.index(key) if key in PREFERRED else len(PREFERRED))
    single = {key: [value for value in numbers[key] if value is not None] for key in keys}
    figures = tuple((key, values[0]) for key, values in single.items() if len(values) == 1)
    if len(rows) == 1:
        return PhaseCharts(phase, 1, (), figures, ())
    steps = [float(row.get("step", 0)) for row in rows]
    marks = tuple(float(row.get("step", 0)) for row in rows if _kinds(row))
    returns = tuple(float(row.get("step", 0)) for row in rows if row.get(ROLLBACK) is not None)
    groups: dict[str, list[tuple[str, Markup]]] = {}
    for key in (key for key in keys if len(single[key]) > 1):
        chart = curve(
            f"{phase}-{key}", key, steps, numbers[key], "s3", alarms=marks, returns=returns, is_exact=key in EXACT
        )
        groups.setdefault(_group(key), []).append((key, chart))
    return PhaseCharts(phase, len(rows), _together(groups), figures, _events(rows))


def _together(groups: Mapping[str, Sequence[tuple[str, Markup]]]) -> tuple[ChartGroup, ...]:
    """Groups of one chart follow those that belong to no group: each would take a row of the page."""
    several = {name: tuple(charts) for name, charts in groups.items() if name and len(charts) > 1}
    single = [chart for name, charts in groups.items() if name not in several for chart in charts]
    return (*((("", tuple(single)),) if single else ()), *several.items())


def _group(key: str) -> str:
    if key.endswith("_seconds") or key in ("seconds", "step_time", "waiting_share"):
        return "time"
    start, separator, _ = key.partition("/")
    return start if separator else ""


def _kinds(row: Mapping[str, Any]) -> list[str]:
    return [key.removeprefix(ALARM) for key in row if key.startswith(ALARM)]


def _events(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found = []
    for row in rows:
        for kind in _kinds(row):
            back = row.get(ROLLBACK)
            value = row[f"{ALARM}{kind}"]
            seen = "not finite" if value is None else f"{value:.3g}"
            then = "" if back is None else f"; back to step {back:g}"
            found.append(f"step {row.get('step')}: {kind.replace('_', ' ')} ({seen}){then}")
    return (*found, *alarms_of(rows))


def _samples(path: Path) -> list[SampledAttempt]:
    rows = journal.read(path)
    apart = max(1, -(-len(rows) // MOST_SAMPLES))
    return [
        SampledAttempt(
            row["step"], row["task_id"], row["outcome"], row["reward"], row["text"], tuple(diff_lines(row["patch"]))
        )
        for row in rows[::apart]
    ]


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, part in value.items() for pair in _flat(f"{name}.{key}".lstrip("."), part)]
    return [(name, str(value))]
