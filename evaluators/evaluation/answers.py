"""Answers of policies that are slow or cost money to ask, kept from the moment they are there.

An answer waits for others before it is scored. Were the run killed meanwhile, it would have to be paid for again.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.json_structs import converted
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Trial
from regrade.evaluators.storage import journal

Key = tuple[str, str, float, int, int]
"""Task, its digest, temperature, sample, seed."""


class _Answer(msgspec.Struct):
    task: str
    task_digest: str
    temperature: float
    sample: int
    seed: int
    patch: str
    prompt: str
    completion: str
    well_formed: bool
    tokens: int
    seconds: float


class Answers:
    """A file of answers of one policy, each a line. May be added to by several threads."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file holds something else."""
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[Key, _Answer] = {}
        for number, row in enumerate(journal.read(path), 1):
            answer = converted(row, _Answer, f"{path}, line {number}: no answer of a policy", "delete that line")
            self._known[answer.task, answer.task_digest, answer.temperature, answer.sample, answer.seed] = answer

    def get(self, trial: Trial, seed: int) -> Rollout | None:
        """The answer that was given to this trial, if it was."""
        key = (trial.task.id, trial.task.digest, float(trial.temperature), trial.sample, seed)
        found = self._known.get(key)
        if found is None:
            return None
        return Rollout(
            task_id=trial.task.id, policy="", temperature=trial.temperature, sample=trial.sample, seed=seed,
            patch=Patch(found.patch), prompt=found.prompt, completion=found.completion, well_formed=found.well_formed,
            tokens=found.tokens, seconds=found.seconds,
        )  # fmt: skip

    def add(self, trial: Trial, rollout: Rollout) -> None:
        """Keep an answer; one that was lost is none."""
        if rollout.lost:
            return
        values: dict[str, Any] = asdict(rollout)
        row = {name: values[name] for name in _Answer.__struct_fields__ if name in values}
        row |= {"task": trial.task.id, "task_digest": trial.task.digest, "patch": rollout.patch.text}
        with self._lock:
            journal.append(self._path, [row])
