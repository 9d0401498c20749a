"""Answers of slow or paid policies, stored as soon as they arrive.

An answer waits for a batch before it is scored. If the run is killed meanwhile, a stored answer is not paid for twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Trial
from regrade.evaluators.storage import journal

Key = tuple[str, str, float, int, int]
"""Task, its digest, temperature, sample, seed."""


class _StoredAnswer(msgspec.Struct):
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
    episode: StoredEpisode | None = None


class Answers:
    """A file of answers of one policy, one JSON line each. Several threads may add answers."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if a line of the file is not an answer."""
        self._path = path
        self._lock = threading.Lock()
        self._stored: dict[Key, _StoredAnswer] = {}
        for number, row in enumerate(journal.read(path), 1):
            where = f"{path}, line {number}: not an answer of a policy"
            answer = converted(row, _StoredAnswer, where, "delete that line")
            if answer.episode is not None and answer.episode.patch not in answer.episode.patches:
                raise UserError(f"{where}: its episode lacks the patch at the end; delete that line")
            self._stored[answer.task, answer.task_digest, answer.temperature, answer.sample, answer.seed] = answer

    def get(self, trial: Trial, seed: int) -> Rollout | None:
        """The stored answer to this trial; None if there is none."""
        key = (trial.task.id, trial.task.digest, float(trial.temperature), trial.sample, seed)
        answer = self._stored.get(key)
        if answer is None:
            return None
        return Rollout(
            task_id=trial.task.id,
            policy="",
            temperature=trial.temperature,
            sample=trial.sample,
            seed=seed,
            patch=Patch(answer.patch),
            prompt=answer.prompt,
            completion=answer.completion,
            well_formed=answer.well_formed,
            tokens=answer.tokens,
            seconds=answer.seconds,
            episode=answer.episode.episode() if answer.episode else None,
        )

    def add(self, trial: Trial, rollout: Rollout) -> None:
        """Store an answer; lost rollouts are skipped."""
        self.add_all([(trial, rollout)])

    def add_all(self, answers: Sequence[tuple[Trial, Rollout]]) -> None:
        """Store several answers, flushed to disk once."""
        rows = [_row(trial, rollout) for trial, rollout in answers if not rollout.lost]
        if rows:
            with self._lock:
                journal.append(self._path, rows)


def _row(trial: Trial, rollout: Rollout) -> dict[str, Any]:
    stored = [name for name in _StoredAnswer.__struct_fields__ if hasattr(rollout, name) and name != "episode"]
    row: dict[str, Any] = {name: getattr(rollout, name) for name in stored}
    row |= {"task": trial.task.id, "task_digest": trial.task.digest, "patch": rollout.patch.text}
    if rollout.episode is not None:
        row["episode"] = StoredEpisode.of(rollout.episode).to_json()
    return row
