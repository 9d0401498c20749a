"""What each change of an agent did to the full tests, stored beside the episodes: one JSON line an attempt.

    {"policy": ..., "task": ..., "temperature": ..., "sample": ..., "seed": ..., "task_digest": ...,
     "patch_digest": ..., "changes": [{"step": 3, "fixed": 1, "broken": 2, "tests": [ID, ...], ...}, ...]}
The agent never saw these results: `regrade.evaluators.evaluation.step_measurement` runs the whole suite afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.json_structs import converted
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import ATTEMPT, attempt

SHOWN_TESTS = 12
"""Ids stored of the tests that a change broke."""


class StepEffect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The difference that one change made to the results of the full suite."""

    step: int
    """Index of the step."""
    fixed: int = 0
    """FAIL_TO_PASS tests that pass after the change and did not before."""
    unfixed: int = 0
    """The reverse."""
    broken: int = 0
    """PASS_TO_PASS tests that the change broke."""
    restored: int = 0
    """Broken PASS_TO_PASS tests that pass again."""
    tests: tuple[str, ...] = ()
    """Ids of the first `SHOWN_TESTS` tests that the change broke."""
    fixed_now: int = 0
    broken_now: int = 0
    """Tests fixed, and broken, in the tree after the change, all changes taken together."""
    end: str = ""
    """How the execution ended if it did not complete: see `regrade.rewards.evidence.End`."""
    has_stopped: bool = False
    """Is the change the first after which the execution does not complete?"""
    is_kept: bool = False
    """Is anything that the change broke still broken in the tree that is handed in?"""
    unknown: str = ""
    """Why nothing is known: the infrastructure failed."""

    @property
    def is_breaking(self) -> bool:
        return self.broken > 0 or self.has_stopped


class MeasuredSteps(msgspec.Struct):
    """The effects of all changes of one attempt."""

    policy: str
    task: str
    temperature: float
    sample: int
    seed: int
    task_digest: str
    patch_digest: str
    changes: tuple[StepEffect, ...]

    @property
    def is_known(self) -> bool:
        return not any(change.unknown for change in self.changes)

    def belongs_to(self, row: Mapping[str, Any]) -> bool:
        """Are they of this row's answer to this version of the task?"""
        return (self.task_digest, self.patch_digest) == (row["task_digest"], row["patch_digest"])

    def is_result_of(self, row: Mapping[str, Any]) -> bool:
        """Need the row's attempt not be measured again?"""
        return self.is_known and self.belongs_to(row)


def steps_path(rows: Path) -> Path:
    """Path of the effects of a file of rows."""
    return rows.with_suffix(".steps")


def load_steps(path: Path) -> dict[tuple[Any, ...], MeasuredSteps]:
    """Attempt (see `rows.attempt`) -> its latest effects; empty if nothing was measured.

    Raises:
        UserError: a line is damaged.
    """
    found = {}
    for number, row in enumerate(journal.read(path), 1):
        advice = "delete that line; `regrade report RUN --steps` measures it again"
        measured = converted(row, MeasuredSteps, f"{path}, line {number}: damaged", advice)
        found[attempt(row)] = measured
    return found


def add_steps(path: Path, measured: Iterable[tuple[Mapping[str, Any], Iterable[StepEffect]]]) -> None:
    """Append (row of an attempt, the effects of its changes)."""
    lines = [
        {name: row[name] for name in (*ATTEMPT, "task_digest", "patch_digest")}
        | {"changes": [msgspec.to_builtins(effect) for effect in effects]}
        for row, effects in measured
    ]
    if lines:
        journal.append(path, lines)


def forget_steps(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Mark the effects of these attempts as outdated, since they were made again; nothing if nothing was measured."""
    if path.exists():
        outdated = {"task_digest": "", "patch_digest": "", "changes": []}
        journal.append(path, [{**{name: row[name] for name in ATTEMPT}, **outdated} for row in rows])
