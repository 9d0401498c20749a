"""The results of a study: its points, what reinforcement learning adds at each, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis import side_metrics as side
from regrade.evaluators.analysis.agent_metrics import agent_figures
from regrade.evaluators.analysis.comparison import Comparison, compare_family
from regrade.evaluators.analysis.exchange_rate import ExchangeRate, exchange_rate
from regrade.evaluators.analysis.metrics import Estimate, estimate
from regrade.evaluators.storage.journal import read
from regrade.evaluators.storage.manifest import ADVICE
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import Run
from regrade.policy_training.study.cells import FORMS, ROLES, Cell, CellState, Training, cell_folder, cell_states, grid
from regrade.policy_training.study.settings import StudySettings
from regrade.reports.number_format import duration

Other = Literal["sft", "control", "once"]
CURVES = (m.FIX_AND_CLEAN, m.BREAKAGE_INCIDENCE, side.HIDDEN, m.NO_OP_RATE)
SHOWN = (*CURVES, m.BREAKAGE_OF_CHANGES)


class Place(NamedTuple):
    """A point of the grid, whatever the seed."""

    training: Training
    demonstrations: int
    tests_only: int
    is_agent: bool

    @classmethod
    def of(cls, cell: Cell) -> Place:
        return cls(cell.training, cell.demonstrations, cell.tests_only, cell.is_agent)


@dataclass(frozen=True)
class StudyPoint:
    """One kind of training at one point of the grid, over the seeds that are done."""

    place: Place
    seeds: tuple[int, ...]
    rows: pd.DataFrame
    """Each seed at its own best temperature."""

    @property
    def label(self) -> str:
        return ROLES[self.place.training][1]

    @property
    def form(self) -> str:
        return FORMS[self.place.is_agent]

    @cached_property
    def figures(self) -> dict[str, Estimate]:
        """Metric -> estimate, with equal weights of all tasks; those of agents only if it is one."""
        return {metric.name: estimate(self.rows, metric) for metric in SHOWN} | agent_figures(self.rows)


@dataclass(frozen=True)
class StudyGain:
    """What reinforcement learning adds at one point of the grid."""

    candidate: StudyPoint
    against: Mapping[Other, Comparison]
    """Compared policy -> comparison, over the seeds that both have. `once`: of an agent, the same reinforcement
    learning of a policy that answers once."""
    exchange: ExchangeRate | None
    """None: the SFT curve has fewer than two numbers of demonstrations with these seeds."""
    by_seed: Mapping[int, ExchangeRate]
    """The same for each seed, if there are several."""


@dataclass(frozen=True)
class StudyResults:
    """The content of a study's report."""

    run: Run
    settings: StudySettings
    states: tuple[CellState, ...]
    rows: Mapping[Cell, pd.DataFrame]
    """Finished cell -> its rows at its best temperature."""

    @cached_property
    def points(self) -> tuple[StudyPoint, ...]:
        """In the order of the grid."""
        return tuple(map(self._point, dict.fromkeys(map(Place.of, self.rows))))

    @cached_property
    def gains(self) -> tuple[StudyGain, ...]:
        """One for each point of reinforcement learning."""
        candidates = [point for point in self.points if point.place.training == "rl"]
        compared: dict[Place, dict[Other, Comparison]] = {point.place: {} for point in candidates}
        families: dict[tuple[Place, tuple[int, ...]], list[StudyPoint]] = {}
        for point in candidates:
            start = point.place._replace(training="sft", tests_only=0)
            families.setdefault((start, point.seeds), []).append(point)
        for (start, seeds), points in families.items():
            # Policies of one start are a family: they are compared with the same policy.
            family = compare_family(self._point(start, seeds).rows, [point.rows for point in points])
            for point, comparison in zip(points, family, strict=True):
                compared[point.place]["sft"] = comparison
        for point in candidates:
            others: dict[Other, Place] = {"control": point.place._replace(training="control")}
            if point.place.is_agent:
                others["once"] = point.place._replace(is_agent=False)
            for name, place in others.items():
                other = self._point(place, point.seeds)
                if len(other.rows):
                    own = self._point(point.place, other.seeds)
                    compared[point.place][name] = compare_family(other.rows, [own.rows])[0]
        return tuple(self._gain(point, compared[point.place]) for point in candidates)

    @cached_property
    def main(self) -> tuple[StudyGain, ...]:
        """The gains at few demonstrations and most tested tasks: of agents first, then of one turn."""
        at = (self.settings.few, max(self.settings.tests_only))
        found = [g for g in self.gains if g.candidate.place[1:3] == at]
        return tuple(sorted(found, key=lambda gain: not gain.candidate.place.is_agent))

    def curve(self, training: Training, *, is_agent: bool) -> list[StudyPoint]:
        """Its points over demonstrations, with all tested tasks."""
        most = 0 if training == "sft" else max(self.settings.tests_only)
        found = [p for p in self.points if p.place[::3] == (training, is_agent) and p.place.tests_only == most]
        return sorted(found, key=lambda point: point.place.demonstrations)

    def task_curve(self, training: Training, *, is_agent: bool) -> list[StudyPoint]:
        """Its points over tested tasks, with few demonstrations."""
        few = self.settings.few
        found = [p for p in self.points if p.place[::3] == (training, is_agent) and p.place.demonstrations == few]
        return sorted(found, key=lambda point: point.place.tests_only)

    def _gain(self, point: StudyPoint, against: Mapping[Other, Comparison]) -> StudyGain:
        by_seed = {seed: self._exchange(point, (seed,)) for seed in point.seeds} if len(point.seeds) > 1 else {}
        known = {seed: one for seed, one in by_seed.items() if one is not None}
        return StudyGain(point, against, self._exchange(point, point.seeds), known)

    def _exchange(self, point: StudyPoint, seeds: tuple[int, ...]) -> ExchangeRate | None:
        sft = point.place._replace(training="sft", tests_only=0)
        curve = {n: self._point(sft._replace(demonstrations=n), seeds) for n in self.settings.demonstrations}
        whole = {count: one.rows for count, one in curve.items() if one.seeds == seeds}
        return exchange_rate(whole, self._point(point.place, seeds).rows, point.place.demonstrations)

    def _point(self, place: Place, seeds: Sequence[int] | None = None) -> StudyPoint:
        found = {
            cell.seed: rows
            for cell, rows in self.rows.items()
            if Place.of(cell) == place and (seeds is None or cell.seed in seeds)
        }
        # Seeds are trained apart and are one policy here, each at the temperature that its validation chose.
        pooled = pd.concat([*found.values()]) if found else pd.DataFrame()
        pooled = pooled.assign(policy=ROLES[place.training][1], temperature=math.nan) if found else pooled
        return StudyPoint(place, tuple(sorted(found)), pooled)


def stored_settings(folder: Path) -> StudySettings | None:
    """The settings of the study in a folder; None if there is none.

    Raises:
        UserError: its manifest is damaged.
    """
    if not (folder / "manifest.json").exists():
        return None
    stored = Run.open(folder).manifest.configuration.get("study")
    if stored is None or "cell" in Run.open(folder).manifest.configuration:
        return None
    return converted(stored, StudySettings, f"{folder / 'manifest.json'}, study", ADVICE)


def load_study(folder: Path) -> StudyResults:
    """Load the finished cells of a study.

    Raises:
        UserError: the folder is no study.
    """
    settings = stored_settings(folder)
    if settings is None:
        raise UserError(f"{folder} is no study: give a folder that `regrade study` wrote")
    states = cell_states(folder, grid(settings))
    rows = {state.cell: _rows(folder, state.cell) for state in states if state.is_done}
    return StudyResults(Run.open(folder), settings, tuple(states), rows)


def _rows(study: Path, cell: Cell) -> pd.DataFrame:
    run = Run.open(cell_folder(study, cell))
    rows = table(read(run.evaluation(cell.name)), str(run.evaluation(cell.name)))
    return rows[rows["temperature"] == run.manifest.policies[cell.name].best_temperature]


def time_left(states: Sequence[CellState]) -> str:
    """How many cells are left, and how long they take, as far as that is known."""
    waiting = [state for state in states if not state.is_done]
    known = [state.left for state in waiting if state.left is not None]
    if not waiting:
        return "all cells are done"
    text = f"{counted(len(waiting), 'cell')} left"
    if known:
        text += f", about {duration(sum(known))}" + (
            f" for {len(known)} of them; the others have no similar finished cell" if len(known) < len(waiting) else ""
        )
    return text


def to_json(study: StudyResults) -> dict[str, Any]:
    """All figures as plain JSON."""
    return {
        "cells": [
            {"name": s.cell.name, "is_done": s.is_done, "seconds": s.seconds, "seconds_left": s.left}
            for s in study.states
        ],
        "points": [
            {
                **p.place._asdict(),
                "seeds": list(p.seeds),
                **{name: figure.to_json() for name, figure in p.figures.items()},
            }
            for p in study.points
        ],
        "gains": [
            {
                **g.candidate.place._asdict(),
                "seeds": list(g.candidate.seeds),
                "against": {name: comparison.to_json() for name, comparison in g.against.items()},
                "exchange_rate": g.exchange and g.exchange.to_json(),
                "exchange_rate_by_seed": {str(seed): one.to_json() for seed, one in g.by_seed.items()},
            }
            for g in study.gains
        ],
    }
