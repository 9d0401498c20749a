"""Training curves: the choice of quantities of a training log, their charts, and alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from markupsafe import Markup

from regrade.reports.charts import curve

PREFERRED = (
    "reward",
    "fix_and_clean",
    "fix_rate",
    "breakage",
    "no_op",
    "malformed",
    "tampering",
    "loss",
    "answer_probability",
    "exact_answers",
    "validation_loss",
    "entropy",
    "kl",
    "accuracy",
    "mean_token_accuracy",
    "grad_norm",
)
"""Quantities shown first, in this order; the rest follows in the order of the log."""
HIDDEN = ("step", "phase", "seconds", "epoch", "num_tokens", "step_time", "learning_rate")
MOST = 8
"""Maximal number of charts of one phase."""
DRAWABLE = 1e100
"""Of larger numbers, the arithmetic of an axis is not finite."""
COLLAPSED = 0.2
"""Final entropy below this share of the first one raises an alarm: the policy hardly varies its answers."""


@dataclass(frozen=True)
class PhaseCurves:
    """One phase of training."""

    phase: str
    steps: int
    charts: tuple[tuple[str, Markup], ...]
    """(quantity, chart)."""
    figures: tuple[tuple[str, float], ...]
    """(quantity, value) of a phase with a single logged step, which needs no chart."""
    alarms: tuple[str, ...]


def training_curves(phases: Mapping[str, Sequence[Mapping[str, Any]]], order: Sequence[str] = ()) -> list[PhaseCurves]:
    """Return the curves of each phase with logged steps (see `Run.training`), in the order of the run's phases."""
    return [
        _phase(phase, phases[phase]) for phase in sorted(phases, key=lambda phase: (_position(phase, order), phase))
    ]


def _position(phase: str, order: Sequence[str]) -> int:
    """The index of the phase in `order`: the log `expert-iteration-1` belongs to the phase `expert iteration`."""
    starts = [number for number, name in enumerate(order) if phase.startswith(name.replace(" ", "-"))]
    return max(starts, key=lambda number: len(order[number]), default=len(order))


def _phase(phase: str, rows: Sequence[Mapping[str, Any]]) -> PhaseCurves:
    if len(rows) == 1:
        figures = tuple((_words(key), float(rows[0][key])) for key in _quantities(rows))
        return PhaseCurves(phase, 1, (), figures, ())
    steps = [float(row.get("step", 0)) for row in rows]
    charts = [
        (_words(key), curve(f"{phase}-{key}", _words(key), steps, numbers_of(rows, key), "s3"))
        for key in _quantities(rows)[:MOST]
    ]
    return PhaseCurves(phase, len(rows), tuple(charts), (), tuple(alarms_of(rows)))


def _words(key: str) -> str:
    return key.replace("_", " ")


def _quantities(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Numeric keys, the preferred ones first, without times (shown elsewhere) and details of a trainer (`a/b`)."""
    keys = dict.fromkeys(key for row in rows for key in row)
    numeric = [
        key
        for key in keys
        if key not in HIDDEN
        and not key.endswith("_seconds")
        and "/" not in key
        and any(value is not None for value in numbers_of(rows, key))
    ]
    return sorted(numeric, key=lambda key: PREFERRED.index(key) if key in PREFERRED else len(PREFERRED))


def numbers_of(rows: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    """A quantity at each logged step; None where it is missing, not finite, too large to draw or no number."""
    values = [row.get(key) for row in rows]
    return [float(v) if _is_number(v) and abs(v) <= DRAWABLE else None for v in values]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def alarms_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the log itself shows to be wrong, a line each."""
    for key in dict.fromkeys(key for row in rows for key in row):
        missing = [row.get("step") for row in rows if key in row and row[key] is None]
        beyond = [row.get("step") for row in rows if _is_number(row.get(key)) and abs(row[key]) > DRAWABLE]
        for what, steps in (("not finite", missing), ("too large to draw", beyond)):
            if steps:
                listed = ", ".join(map(str, steps[:5])) + (", …" if len(steps) > 5 else "")
                yield f"{_words(key)} was {what} at step {listed}"
    entropy = [value for value in numbers_of(rows, "entropy") if value is not None]
    if len(entropy) >= 5 and entropy[-1] < COLLAPSED * entropy[0]:
        yield f"entropy fell from {entropy[0]:.2f} to {entropy[-1]:.2f}: the policy hardly varies its answers"
