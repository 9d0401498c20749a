"""What a folder of variants contains so far: the rows of each on the held-out tasks, and what its trainings logged."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from regrade.evaluators.analysis.component_effects import DIFFERENT, GROUPS
from regrade.evaluators.storage.journal import read
from regrade.evaluators.storage.rows import table
from regrade.evaluators.storage.run import Run
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings
from regrade.policy_training.variants.settings import JUDGED, TRAINED, Variant, training_folder, variant_folder

LoggedSteps = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class VariantTraining:
    """What one training logged. A number that its log does not have is NaN."""

    seconds: float
    """Wall time, with the loading of the model and killed attempts."""
    steps: LoggedSteps
    attempts: int
    """Sampled to learn from."""
    is_given_up: bool
    """Did the guard give the training up?"""

    @property
    def alarms(self) -> Counter[str]:
        """Kind -> alarms of the guard."""
        return Counter(
            key.removeprefix("alarm/")
            for step in self.steps
            for key, value in step.items()
            if key.startswith("alarm/") and value is not None
        )

    @property
    def rollbacks(self) -> int:
        return int(max((step["rollbacks"] for step in self.steps if step.get("rollbacks")), default=0))

    @property
    def taken(self) -> int:
        """Optimizer steps."""
        return max((int(step["step"]) for step in self.steps), default=0)

    def mean(self, key: str) -> float:
        """Over the steps that have it."""
        values = self._values(key)
        return fmean(values) if values else math.nan

    def last(self, key: str) -> float:
        values = self._values(key)
        return values[-1] if values else math.nan

    @property
    def tokens_per_second(self) -> float:
        """Tokens of prompts and answers that were sampled from or learned from, each attempt's once, by the time of
        the steps."""
        spent = math.fsum(self._values("step_time"))
        return self.last("num_tokens") / spent if spent else math.nan

    @property
    def waiting_share(self) -> float:
        """Share of the steps' time in which tests ran and nothing else."""
        spent = math.fsum(self._values("step_time"))
        waited = math.fsum([*self._values("execution_seconds"), *self._values("waiting_seconds")])
        return waited / spent if spent and self._values("execution_seconds") else math.nan

    def total(self, key: str) -> float:
        """Over the steps; 0 if no step has it."""
        return math.fsum(self._values(key))

    @property
    def differing_groups(self) -> float:
        """Share of the groups with different rewards: of the others nothing is learned."""
        groups = math.fsum(self._values(GROUPS))
        return math.fsum(self._values(DIFFERENT)) / groups if groups else math.nan

    def _values(self, key: str) -> list[float]:
        return [float(step[key]) for step in self.steps if step.get(key) is not None]


@dataclass(frozen=True)
class VariantResult:
    """One variant over the seeds that are done."""

    variant: Variant
    rows: pd.DataFrame
    trainings: Mapping[int, VariantTraining]
    """Seed -> its training; empty for an untrained start."""

    @property
    def seeds(self) -> list[int]:
        return sorted(int(seed) for seed in self.rows["seed"].unique())


def load_variants(out: Path, variants: Mapping[str, Variant], seeds: Sequence[int] = ()) -> dict[str, VariantResult]:
    """Variant -> its result, of those that are judged with a seed at least.

    Args:
        seeds: which ones. Default: all in the folder.
    """
    results = {}
    for name, variant in variants.items():
        done = [seed for seed in _seeds(out, name) if not seeds or seed in seeds]
        if done:
            tables = [_rows(out, name, seed) for seed in done]
            trainings = {seed: _training(out, variant, seed) for seed in done if variant.settings is not None}
            results[name] = VariantResult(variant, pd.concat(tables, ignore_index=True), trainings)
    return results


def _seeds(out: Path, name: str) -> Iterator[int]:
    folders = (out / "variants").glob(f"{name}-s*")
    matches = (re.fullmatch(rf"{re.escape(name)}-s(\d+)", folder.name) for folder in folders)
    for seed in sorted(int(match[1]) for match in matches if match):
        folder = variant_folder(out, name, seed)
        if (folder / "manifest.json").exists() and Run.open(folder).finished(JUDGED):
            yield seed


def _rows(out: Path, name: str, seed: int) -> pd.DataFrame:
    path = Run.open(variant_folder(out, name, seed)).evaluation(name)
    return table(read(path), str(path))


def _training(out: Path, variant: Variant, seed: int) -> VariantTraining:
    assert variant.settings is not None
    run = Run.open(training_folder(out, variant.name, seed))
    algorithm, manifest = variant.settings.algorithm, run.manifest
    steps = run.training().get(algorithm, [])
    generations = sum(step.get("execution_seconds") is not None for step in steps)
    return VariantTraining(
        seconds=Run.open(variant_folder(out, variant.name, seed)).manifest.phases[TRAINED].seconds,
        steps=steps,
        attempts=generations * _attempts_per_generation(variant, int(manifest.configuration.get("tasks", 0))),
        is_given_up=not run.finished(algorithm),
    )


def _attempts_per_generation(variant: Variant, tasks: int) -> int:
    """A generation of fewer tasks than it could have has all of them."""
    match variant.settings:
        case OnlineSettings() as settings:
            prompts = min(settings.prompts_per_step, tasks)
            batches = min(settings.steps_per_generation, tasks // prompts) if prompts else 0
            return prompts * batches * settings.samples_per_prompt
        case PPOSettings() as settings:
            return min(settings.prompts_per_step, tasks) * settings.samples_per_prompt
    return 0
