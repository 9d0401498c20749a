"""The results of a run, loaded once for all formats: policies with their figures, and comparisons."""

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
from regrade.evaluators.analysis.comparison import Comparison, compare, compare_family, noise_floor
from regrade.evaluators.analysis.metrics import Estimate, Metric, estimate
from regrade.evaluators.analysis.slices import slices, varying_traits
from regrade.evaluators.storage.journal import read
from regrade.evaluators.storage.manifest import Manifest, PolicyEntry, PolicyRole
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import Run
from regrade.reports.assurance import assurance_figures

ORDER: tuple[PolicyRole, ...] = ("baseline", "control", "candidate", "checkpoint", "upper bound", "scripted")
SHOWN = (m.FIX_AND_CLEAN, m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.NO_OP_RATE)
"""The figures in each table of policies."""
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
        """Its best temperature by the validation tasks; the lowest one with rows if that one has none."""
        best = self.entry.best_temperature
        return best if best in self.temperatures else self.temperatures[0]

    def at(self, temperature: float) -> pd.DataFrame:
        """Return its rows at one temperature."""
        return self._by_temperature[temperature]

    @cached_property
    def _by_temperature(self) -> dict[float, pd.DataFrame]:
        return {t: self.rows[self.rows["temperature"] == t] for t in self.temperatures}

    @property
    def best(self) -> pd.DataFrame:
        """The rows of the headline figures."""
        return self.at(self.temperature)

    def estimates(self, temperature: float | None = None, of: Sequence[Metric] = SHOWN) -> dict[str, Estimate]:
        """Return metric -> figure at a temperature; None: the policy's own best."""
        at = self.temperature if temperature is None else temperature
        for metric in of:
            if (at, metric.name) not in self._estimated:
                self._estimated[at, metric.name] = estimate(self.at(at), metric)
        return {metric.name: self._estimated[at, metric.name] for metric in of}

    @cached_property
    def _estimated(self) -> dict[tuple[float, str], Estimate]:
        return {}  # the page and the summary show some figures several times

    def has_best_temperature(self) -> bool:
        """Return whether its rows contain the best temperature of the manifest."""
        return self.entry.best_temperature in self.temperatures


@dataclass(frozen=True)
class Pair:
    """A candidate and the policy that it is compared with."""

    key: str
    """Such as `rl_vs_sft`."""
    baseline: PolicyResult
    candidate: PolicyResult
    best: Comparison
    """Each policy at its own best temperature."""

    @cached_property
    def by_temperature(self) -> dict[float, Comparison]:
        """Both at each shared temperature: a gain at one temperature alone may be mere sharpening."""
        shared = sorted(set(self.baseline.temperatures) & set(self.candidate.temperatures))
        return {t: compare(self.baseline.at(t), self.candidate.at(t), self.best.margin) for t in shared}


@dataclass(frozen=True)
class Results:
    """The content of a report: a run, its policies with rows, and their comparisons."""

    run: Run
    manifest: Manifest
    policies: tuple[PolicyResult, ...]
    """Baseline first, without the policies that have no rows."""
    pairs: tuple[Pair, ...]
    """Each candidate against each baseline, then against each control."""
    remarks: tuple[str, ...]
    """Notes on missing and unreadable data."""

    @property
    def n_tasks(self) -> int:
        return int(pd.concat([policy.rows["task"] for policy in self.policies]).nunique()) if self.policies else 0

    @cached_property
    def assurance(self) -> dict[str, Any]:
        """The levels of the verdicts, their cost, and what they do not exclude."""
        return assurance_figures(self.manifest, [policy.rows for policy in self.policies])

    def of_role(self, *roles: PolicyRole) -> list[PolicyResult]:
        return [policy for policy in self.policies if policy.role in roles]

    @property
    def tabled(self) -> list[PolicyResult]:
        """The policies with a row in tables and charts: all but the checkpoints of a series."""
        return [policy for policy in self.policies if not policy.entry.series] or list(self.policies)

    @cached_property
    def series(self) -> dict[str, list[PolicyResult]]:
        """Training run -> its evaluated checkpoints, by step."""
        by_training: dict[str, list[PolicyResult]] = {}
        for policy in self.policies:
            if policy.entry.series and policy.entry.step is not None:
                by_training.setdefault(policy.entry.series, []).append(policy)
        return {
            name: sorted(by_training[name], key=lambda policy: policy.entry.step or 0) for name in sorted(by_training)
        }

    @cached_property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task id -> its record in the run."""
        return self.run.tasks()

    @cached_property
    def slices(self) -> dict[str, dict[str, dict[str, pd.DataFrame]]]:
        """Trait in which the tasks differ -> its value -> policy (no checkpoint) -> rows at its best temperature."""
        compared = [policy for policy in self.policies if policy.role != "checkpoint"]
        rows_of_all = pd.concat([policy.best for policy in compared or self.policies])
        by_trait: dict[str, dict[str, dict[str, pd.DataFrame]]] = {}
        for trait in varying_traits(rows_of_all, self.tasks):
            parts: dict[str, dict[str, pd.DataFrame]] = {value: {} for value in slices(rows_of_all, self.tasks, trait)}
            for policy in compared:
                for value, rows in slices(policy.best, self.tasks, trait).items():
                    parts[value][policy.name] = rows
            by_trait[trait] = parts
        return by_trait

    @cached_property
    def noise_floor(self) -> Comparison | None:
        """The baseline against itself (A/A) at its temperature with most attempts; None with one attempt per task."""
        for policy in self.of_role("baseline", "control", "candidate"):
            most = max(policy.temperatures, key=lambda t: len(policy.at(t)))
            comparison = noise_floor(policy.at(most))
            if comparison is not None:
                return replace(comparison, baseline=policy.label, candidate=f"{policy.label}, temperature {most:g}")
        return None


def load_results(folder: Path) -> Results:
    """Load a run and compare its policies with the declared margin.

    Raises:
        UserError: the folder is no run, or none of its policies was evaluated.
    """
    run = Run.open(folder)
    manifest = run.manifest
    margin, notes = comparability.check(folder, folder, mixed_versions=True)
    policies, remarks = [], [*notes]
    for name, entry in manifest.policies.items():
        rows = table(read(run.evaluation(name)), str(run.evaluation(name)))
        if not len(rows):
            remarks.append(f"{entry.label or name} has no evaluation on the tasks.")
            continue
        policy = PolicyResult(name, entry, rows)
        policies.append(policy)
        if not policy.has_best_temperature():
            remarks.append(
                f"{policy.label} has no rows at its best temperature, {entry.best_temperature:g}: "
                f"the report shows its figures at {policy.temperature:g}."
            )
    if not policies:
        raise UserError(f"{folder}: no policy of this run has been evaluated yet; evaluate one, or resume the run")
    policies.sort(key=lambda policy: ORDER.index(policy.role))
    return Results(run, manifest, tuple(policies), tuple(_pairs(policies, margin)), tuple(remarks))


def _pairs(policies: list[PolicyResult], margin: float) -> list[Pair]:
    """Each candidate against each baseline, then each control. The candidates against one of them are a family."""
    pairs, candidates = [], _of(policies, "candidate")
    for role in ("baseline", "control"):
        others = _of(policies, role)
        families = [compare_family(other.best, [one.best for one in candidates], margin) for other in others]
        for place, candidate in enumerate(candidates):
            for other, family in zip(others, families, strict=True):
                key = f"{_short(candidate, policies)}_vs_{_short(other, policies)}"
                pairs.append(Pair(key, other, candidate, family[place]))
    return pairs


def _of(policies: list[PolicyResult], role: str) -> list[PolicyResult]:
    return [policy for policy in policies if policy.role == role]


def _short(policy: PolicyResult, policies: list[PolicyResult]) -> str:
    """`rl`, `sft` or `control` for the only policy of its role: the summaries of all runs then have the same keys."""
    short = {"candidate": "rl", "baseline": "sft", "control": "control"}[policy.role]
    return short if len(_of(policies, policy.role)) == 1 else policy.name
