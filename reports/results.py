"""What a run found, read once for all who show it: the policies with their figures, and who was compared with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis import comparability
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Comparison, compare, noise_floor
from regrade.evaluators.analysis.metrics import Estimate, Metric, estimate
from regrade.evaluators.analysis.slices import slices, varying_traits
from regrade.evaluators.storage.journal import read
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import Manifest, PolicyEntry, PolicyRole, Run

ORDER: tuple[PolicyRole, ...] = ("baseline", "control", "candidate", "checkpoint", "upper bound", "scripted")
SHOWN = (m.FIX_AND_CLEAN, m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.NO_OP_RATE)
"""The figures that stand in every table of policies."""
GREEDY = 0.0


@dataclass(frozen=True)
class PolicyResult:
    """One policy and its rows on the held-out tasks."""

    name: str
    entry: PolicyEntry
    rows: pd.DataFrame
    """All temperatures (see `regrade.evaluators.storage.rows`)."""

    @property
    def label(self) -> str:
        return self.entry.label or self.name

    @property
    def role(self) -> PolicyRole:
        return self.entry.role

    @cached_property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(sorted(float(value) for value in self.rows["temperature"].unique()))

    @property
    def temperature(self) -> float:
        """Its own best, as chosen on validation tasks; the lowest one tried if there are no rows at that one."""
        best = self.entry.best_temperature
        return best if best in self.temperatures else self.temperatures[0]

    def at(self, temperature: float) -> pd.DataFrame:
        """Its rows at one temperature."""
        return self._by_temperature[temperature]

    @cached_property
    def _by_temperature(self) -> dict[float, pd.DataFrame]:
        return {t: self.rows[self.rows["temperature"] == t] for t in self.temperatures}

    @property
    def best(self) -> pd.DataFrame:
        """The rows that the headline figures rest on."""
        return self.at(self.temperature)

    def estimates(self, temperature: float | None = None, of: Sequence[Metric] = SHOWN) -> dict[str, Estimate]:
        """Metric -> figure at a temperature; None: the policy's own best."""
        at = self.temperature if temperature is None else temperature
        for metric in of:
            if (at, metric.name) not in self._estimated:
                self._estimated[at, metric.name] = estimate(self.at(at), metric)
        return {metric.name: self._estimated[at, metric.name] for metric in of}

    @cached_property
    def _estimated(self) -> dict[tuple[float, str], Estimate]:
        return {}  # a page and a summary show the same figures several times

    def is_at_its_best(self) -> bool:
        """False if its rows lack the temperature that the manifest calls best."""
        return self.entry.best_temperature in self.temperatures


@dataclass(frozen=True)
class Pair:
    """A candidate against what it must beat."""

    key: str
    """Such as `rl_vs_sft`."""
    baseline: PolicyResult
    candidate: PolicyResult
    best: Comparison
    """Each at its own best temperature."""

    @cached_property
    def by_temperature(self) -> dict[float, Comparison]:
        """Both at one temperature, for each that both were tried at: a gain at one alone may be mere sharpening."""
        shared = sorted(set(self.baseline.temperatures) & set(self.candidate.temperatures))
        return {t: compare(self.baseline.at(t), self.candidate.at(t), self.best.margin) for t in shared}


@dataclass(frozen=True)
class Results:
    """All that a report shows of a run."""

    run: Run
    manifest: Manifest
    policies: tuple[PolicyResult, ...]
    """Baseline first; policies without rows are left out."""
    pairs: tuple[Pair, ...]
    """Each candidate against each baseline, then against each control."""
    remarks: tuple[str, ...]
    """What could not be read or shown."""

    @property
    def n_tasks(self) -> int:
        return int(pd.concat([policy.rows["task"] for policy in self.policies]).nunique()) if self.policies else 0

    def of_role(self, *roles: PolicyRole) -> list[PolicyResult]:
        return [policy for policy in self.policies if policy.role in roles]

    @property
    def tabled(self) -> list[PolicyResult]:
        """The policies that tables and charts show one by one: all but the checkpoints of a series."""
        return [policy for policy in self.policies if not policy.entry.series] or list(self.policies)

    @cached_property
    def series(self) -> dict[str, list[PolicyResult]]:
        """Training -> its checkpoints that were evaluated, by step."""
        found: dict[str, list[PolicyResult]] = {}
        for policy in self.policies:
            if policy.entry.series and policy.entry.step is not None:
                found.setdefault(policy.entry.series, []).append(policy)
        return {name: sorted(found[name], key=lambda policy: policy.entry.step or 0) for name in sorted(found)}

    @cached_property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task id -> what the run has of it."""
        return self.run.tasks()

    @cached_property
    def slices(self) -> dict[str, dict[str, dict[str, pd.DataFrame]]]:
        """Trait by which the tasks differ -> its value -> policy -> its rows there, at its own best temperature.

        Checkpoints are left out.
        """
        compared = [policy for policy in self.policies if policy.role != "checkpoint"]
        every = pd.concat([policy.best for policy in compared or self.policies])
        found: dict[str, dict[str, dict[str, pd.DataFrame]]] = {}
        for trait in varying_traits(every, self.tasks):
            parts: dict[str, dict[str, pd.DataFrame]] = {value: {} for value in slices(every, self.tasks, trait)}
            for policy in compared:
                for value, rows in slices(policy.best, self.tasks, trait).items():
                    parts[value][policy.name] = rows
            found[trait] = parts
        return found

    @cached_property
    def noise_floor(self) -> Comparison | None:
        """The baseline against itself (A/A), at the temperature with the most attempts a task; None with one a task."""
        for policy in self.of_role("baseline", "control", "candidate"):
            most = max(policy.temperatures, key=lambda t: len(policy.at(t)))
            found = noise_floor(policy.at(most))
            if found is not None:
                return replace(found, baseline=policy.label, candidate=f"{policy.label}, temperature {most:g}")
        return None


def load_results(folder: Path) -> Results:
    """Read a run, its comparisons with the margin that was declared for it.

    Raises:
        UserError: it is no run, or none of its policies was evaluated.
    """
    run = Run.open(folder)
    manifest = run.manifest
    margin, notes = comparability.check(folder, folder, mixed_versions=True)
    policies, remarks = [], [*notes]
    for name, entry in manifest.policies.items():
        rows = table(read(run.evaluation(name)), str(run.evaluation(name)))
        if not len(rows):
            remarks.append(f"{entry.label or name} has not been evaluated on the tasks.")
            continue
        policy = PolicyResult(name, entry, rows)
        policies.append(policy)
        if not policy.is_at_its_best():
            remarks.append(
                f"{policy.label} has no rows at its best temperature, {entry.best_temperature:g}: "
                f"its figures are those at {policy.temperature:g}."
            )
    if not policies:
        raise UserError(f"{folder}: no policy of this run has been evaluated yet; evaluate one, or let the run go on")
    policies.sort(key=lambda policy: ORDER.index(policy.role))
    return Results(run, manifest, tuple(policies), tuple(_pairs(policies, margin)), tuple(remarks))


def _pairs(policies: list[PolicyResult], margin: float) -> list[Pair]:
    found = []
    for role in ("baseline", "control"):
        for candidate in _of(policies, "candidate"):
            for other in _of(policies, role):
                key = f"{_short(candidate, policies)}_vs_{_short(other, policies)}"
                found.append(Pair(key, other, candidate, compare(other.best, candidate.best, margin)))
    return found


def _of(policies: list[PolicyResult], role: str) -> list[PolicyResult]:
    return [policy for policy in policies if policy.role == role]


def _short(policy: PolicyResult, policies: list[PolicyResult]) -> str:
    """`rl`, `sft` and `control` where a role has one policy, so that every run's summary has the same keys."""
    short = {"candidate": "rl", "baseline": "sft", "control": "control"}[policy.role]
    return short if len(_of(policies, policy.role)) == 1 else policy.name
