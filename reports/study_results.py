"""The results of a study: its points, what reinforcement learning adds at each, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Comparison, compare_family
from regrade.evaluators.analysis.exchange_rate import ExchangeRate, exchange_rate
from regrade.evaluators.analysis.metrics import Estimate, estimate
from regrade.evaluators.storage.journal import read
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import ADVICE, Run
from regrade.policy_training.study.cells import ROLES, Cell, CellState, Training, cell_folder, cell_states, grid
from regrade.policy_training.study.settings import StudySettings
from regrade.reports.number_format import duration

CURVES = (m.FIX_AND_CLEAN, m.BREAKAGE_INCIDENCE, m.NO_OP_RATE)
SHOWN = (*CURVES, m.BREAKAGE_OF_CHANGES)


@dataclass(frozen=True)
class StudyPoint:
    """One kind of training at one point of the grid, over the seeds that are done."""

    training: Training
    demonstrations: int
    tests_only: int
    seeds: tuple[int, ...]
    rows: pd.DataFrame
    """Each seed at its own best temperature."""

    @property
    def label(self) -> str:
        return ROLES[self.training][1]

    @cached_property
    def figures(self) -> dict[str, Estimate]:
        """Metric -> estimate, with equal weights of all tasks."""
        return {metric.name: estimate(self.rows, metric) for metric in SHOWN}


@dataclass(frozen=True)
class StudyGain:
    """What reinforcement learning adds at one point of the grid."""

    candidate: StudyPoint
    against: Mapping[Training, Comparison]
    """Compared policy -> comparison, over the seeds that both have."""
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
        places = dict.fromkeys((cell.training, cell.demonstrations, cell.tests_only) for cell in self.rows)
        return tuple(self._point(*place) for place in places)

    @cached_property
    def gains(self) -> tuple[StudyGain, ...]:
        """One for each point of reinforcement learning."""
        candidates = [point for point in self.points if point.training == "rl"]
        compared: dict[int, dict[Training, Comparison]] = {place: {} for place in range(len(candidates))}
        families: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for place, point in enumerate(candidates):
            families.setdefault((point.demonstrations, point.seeds), []).append(place)
            control = self._point("control", point.demonstrations, point.tests_only, point.seeds)
            if len(control.rows):
                own = self._point("rl", point.demonstrations, point.tests_only, control.seeds)
                compared[place]["control"] = compare_family(control.rows, [own.rows])[0]
        for (demonstrations, seeds), places in families.items():
            # Policies of one start are a family: they are compared with the same policy.
            baseline = self._point("sft", demonstrations, 0, seeds)
            family = compare_family(baseline.rows, [candidates[place].rows for place in places])
            for place, comparison in zip(places, family, strict=True):
                compared[place] = {"sft": comparison, **compared[place]}
        return tuple(self._gain(point, compared[place]) for place, point in enumerate(candidates))

    @property
    def main(self) -> StudyGain | None:
        """The point of few demonstrations and most tested tasks."""
        most = max(self.settings.tests_only)
        at = (self.settings.few, most)
        found = (g for g in self.gains if (g.candidate.demonstrations, g.candidate.tests_only) == at)
        return next(found, None)

    def curve(self, training: Training) -> list[StudyPoint]:
        """Its points over demonstrations, with all tested tasks."""
        most = 0 if training == "sft" else max(self.settings.tests_only)
        points = [p for p in self.points if p.training == training and p.tests_only == most]
        return sorted(points, key=lambda point: point.demonstrations)

    def task_curve(self, training: Training) -> list[StudyPoint]:
        """Its points over tested tasks, with few demonstrations."""
        points = [p for p in self.points if p.training == training and p.demonstrations == self.settings.few]
        return sorted(points, key=lambda point: point.tests_only)

    def _gain(self, point: StudyPoint, against: Mapping[Training, Comparison]) -> StudyGain:
        by_seed = {seed: self._exchange(point, (seed,)) for seed in point.seeds} if len(point.seeds) > 1 else {}
        known = {seed: one for seed, one in by_seed.items() if one is not None}
        return StudyGain(point, against, self._exchange(point, point.seeds), known)

    def _exchange(self, point: StudyPoint, seeds: tuple[int, ...]) -> ExchangeRate | None:
        curve = {count: self._point("sft", count, 0, seeds) for count in self.settings.demonstrations}
        whole = {count: one.rows for count, one in curve.items() if one.seeds == seeds}
        own = self._point("rl", point.demonstrations, point.tests_only, seeds)
        return exchange_rate(whole, own.rows, point.demonstrations)

    def _point(
        self, training: Training, demonstrations: int, tests_only: int, seeds: Sequence[int] | None = None
    ) -> StudyPoint:
        found = {
            cell.seed: rows
            for cell, rows in self.rows.items()
            if (cell.training, cell.demonstrations, cell.tests_only) == (training, demonstrations, tests_only)
            and (seeds is None or cell.seed in seeds)
        }
        # Seeds are trained apart and are one policy here, each at the temperature that its validation chose.
        pooled = pd.concat([*found.values()]) if found else pd.DataFrame()
        pooled = pooled.assign(policy=ROLES[training][1], temperature=math.nan) if found else pooled
        return StudyPoint(training, demonstrations, tests_only, tuple(sorted(found)), pooled)


def is_study(folder: Path) -> bool:
    """Does the folder contain a study?"""
    return (folder / "manifest.json").exists() and "study" in Run.open(folder).manifest.configuration


def load_study(folder: Path) -> StudyResults:
    """Load the finished cells of a study.

    Raises:
        UserError: the folder is no study.
    """
    run = Run.open(folder)
    stored = run.manifest.configuration.get("study")
    if stored is None:
        raise UserError(f"{folder} is no study: give a folder that `regrade study` wrote")
    settings: StudySettings = converted(stored, StudySettings, f"{run.manifest_path}, study", ADVICE)
    states = cell_states(folder, grid(settings))
    return StudyResults(run, settings, tuple(states), {s.cell: _rows(folder, s.cell) for s in states if s.is_done})


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
                "training": p.training,
                "demonstrations": p.demonstrations,
                "tests_only": p.tests_only,
                "seeds": list(p.seeds),
                **{name: figure.to_json() for name, figure in p.figures.items()},
            }
            for p in study.points
        ],
        "gains": [
            {
                "demonstrations": g.candidate.demonstrations,
                "tests_only": g.candidate.tests_only,
                "seeds": list(g.candidate.seeds),
                "against": {name: comparison.to_json() for name, comparison in g.against.items()},
                "exchange_rate": g.exchange and g.exchange.to_json(),
                "exchange_rate_by_seed": {str(seed): one.to_json() for seed, one in g.by_seed.items()},
            }
            for g in study.gains
        ],
    }
