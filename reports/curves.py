"""Training curves: which numbers of a training log are worth a chart, and what in them should alarm a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from regrade.reports.charts import curve

PREFERRED = (
    "reward", "fix_and_clean", "fix_rate", "resolved", "validation_fix_rate", "validation_fix_and_clean", "broke",
    "breakage_incidence", "no_op_rate", "loss", "entropy", "kl", "accuracy", "grad_norm", "learning_rate",
)
"""Shown first, in this order; the others follow as they come."""
HIDDEN = ("step", "phase", "seconds")
MOST = 9
"""Charts of one phase."""
COLLAPSED = 0.2
"""Entropy below this share of what it began with says that the policy hardly varies any more."""


@dataclass(frozen=True)
class PhaseCurves:
    """One phase of training."""

    phase: str
    steps: int
    charts: tuple[tuple[str, Markup], ...]
    """(quantity, chart)."""
    alarms: tuple[str, ...]


def training_curves(phases: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[PhaseCurves]:
    """Curves of every phase that logged steps (see `Run.training`)."""
    found = []
    for phase, rows in phases.items():
        steps = [float(row.get("step", 0)) for row in rows]
        charts = [
            (key.replace("_", " "), curve(f"{phase}-{key}", key.replace("_", " "), steps, _values(rows, key), "s3"))
            for key in _quantities(rows)[:MOST]
        ]
        found.append(PhaseCurves(phase, len(rows), tuple(charts), tuple(_alarms(rows))))
    return found


def _quantities(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys with at least two numbers, the preferred ones first; times are shown elsewhere."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = [
        key for key in keys
        if key not in HIDDEN and not key.endswith("_seconds")
        and sum(value is not None for value in _values(rows, key)) >= 2
    ]
    return sorted(numeric, key=lambda key: PREFERRED.index(key) if key in PREFERRED else len(PREFERRED))


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    values = [row.get(key) for row in rows]
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None for v in values]


def _alarms(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for key in dict.fromkeys(key for row in rows for key in row):
        broken = [row.get("step") for row in rows if key in row and row[key] is None]
        if broken:
            listed = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
            yield f"{key.replace('_', ' ')} was not finite at step {listed}"
    entropy = [value for value in _values(rows, "entropy") if value is not None]
    if len(entropy) >= 5 and entropy[-1] < COLLAPSED * entropy[0]:
        yield f"entropy fell from {entropy[0]:.2f} to {entropy[-1]:.2f}: the policy hardly varies its answers any more"
