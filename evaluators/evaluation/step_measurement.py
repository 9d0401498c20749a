"""What each change of an agent did to the full tests, measured after the fact.

The whole suite runs once on every distinct tree that an episode passed through: equal patches share their evidence, and
the last one is stored already. Stopped measurements continue where they stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrade.datasets.episodes import Episode
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.rollout_scoring import EvidenceSource, changes_nothing
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.episode_columns import columns_of_steps
from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path
from regrade.evaluators.storage.rows import attempt, checked
from regrade.evaluators.storage.step_effects import SHOWN_TESTS, StepEffect, add_steps, load_steps, steps_path
from regrade.rewards.evidence import End, EvidenceSet, TestRun

CHUNK = 32
"""Episodes a batch of the scorer."""

Row = Mapping[str, Any]
JobKey = tuple[str, str]
"""Digests of a task and of a patch."""


@dataclass(frozen=True)
class StepMeasurement:
    """Result of `measure_steps`."""

    attempts: int
    """Attempts with steps, measured now or before."""
    trees: int
    """Distinct trees that were given to the scorer now."""
    without_task: int = 0
    """Attempts of which no given task is the version that they were made at."""
    unknown: int = 0
    """Attempts of which a tree has no result; the next call repeats them."""


@dataclass(frozen=True)
class TreeState:
    """The results of the full suite on one tree."""

    fixed: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    end: End = End.COMPLETED
    unknown: str = ""

    @property
    def is_stopped(self) -> bool:
        return self.end is not End.COMPLETED


def measure_steps(
    out: Path,
    tasks: Iterable[Task],
    scorer: EvidenceSource,
    progress: Callable[[int, int], None] | None = None,
) -> StepMeasurement:
    """Run the full suite on every tree of the episodes beside a file of rows, and store what each change did.

    The rows get the columns `breaking_edits` and `breaking_edits_kept`.

    Args:
        out: rows of one policy; its episodes lie beside it.
        progress: called with the numbers of measured and of all attempts.

    Raises:
        UserError: a file is damaged.
    """
    episodes = EpisodeFile(episodes_path(out))
    rows = {attempt(row): row for row in checked(journal.read(out), str(out)) if row in episodes}
    by_digest = {task.digest: task for task in tasks}
    stored = load_steps(steps_path(out))
    missing = [row for key, row in rows.items() if not (key in stored and stored[key].is_result_of(row))]
    due = [row for row in missing if row["task_digest"] in by_digest]
    trees: set[JobKey] = set()
    for first in range(0, len(due), CHUNK):
        if progress:
            progress(len(rows) - len(missing) + first, len(rows))
        found = ((row, episodes.get(row)) for row in due[first : first + CHUNK])
        chunk = [(row, episode) for row, episode in found if episode is not None and episode.has_trees]
        states, executed = _states([(by_digest[row["task_digest"]], episode) for row, episode in chunk], scorer)
        trees |= executed
        add_steps(steps_path(out), ((row, effects_of(episode, _of_task(states, row))) for row, episode in chunk))
    if progress and rows:
        progress(len(rows), len(rows))
    measured = load_steps(steps_path(out))
    _write_columns(out, measured)
    return StepMeasurement(
        attempts=len(rows) - len(missing) + len(due),
        trees=len(trees),
        without_task=len(missing) - len(due),
        unknown=sum(not measured[attempt(row)].is_known for row in due if attempt(row) in measured),
    )


def effects_of(episode: Episode, states: Mapping[str, TreeState]) -> Iterator[StepEffect]:
    """The effect of each change of an episode.

    Args:
        states: digest of a patch -> the results on the patched tree.
    """
    before, last = TreeState(), states.get(episode.patch.digest, TreeState(unknown="it was not run"))
    for number, step in enumerate(episode.steps):
        if not step.is_change:
            continue
        after = states.get(step.patch_digest, TreeState(unknown="its patch is not stored"))
        yield _effect(number, before, after, last)
        before = after


def _effect(step: int, before: TreeState, after: TreeState, last: TreeState) -> StepEffect:
    unknown = before.unknown or after.unknown or last.unknown
    if unknown:
        return StepEffect(step=step, unknown=unknown)
    broken = after.broken - before.broken
    has_stopped = after.is_stopped and not before.is_stopped
    return StepEffect(
        step=step,
        fixed=len(after.fixed - before.fixed),
        unfixed=len(before.fixed - after.fixed),
        broken=len(broken),
        restored=len(before.broken - after.broken),
        tests=tuple(sorted(broken)[:SHOWN_TESTS]),
        fixed_now=len(after.fixed),
        broken_now=len(after.broken),
        end=after.end.value if after.is_stopped else "",
        has_stopped=has_stopped,
        is_kept=bool(broken & last.broken) or (has_stopped and last.is_stopped),
    )


def _states(
    pairs: Sequence[tuple[Task, Episode]], scorer: EvidenceSource
) -> tuple[dict[JobKey, TreeState], set[JobKey]]:
    """The results on every tree of the episodes, and which of them were given to the scorer."""
    trees = {
        (task.digest, digest): (task, patch)
        for task, episode in pairs
        for digest, patch in {**episode.patches, episode.patch.digest: episode.patch}.items()
    }
    states = {key: TreeState() for key, (task, patch) in trees.items() if changes_nothing(task, patch)}
    to_run = {key: tree for key, tree in trees.items() if key not in states}
    gathered = scorer.gather([*to_run.values()], {TestRun}) if to_run else []
    for (key, (task, _)), evidence in zip(to_run.items(), gathered, strict=True):
        states[key] = _state(as_failure(task, evidence))
    return states, set(to_run)


def _state(evidence: EvidenceSet) -> TreeState:
    run = evidence.records.get(TestRun)
    if not isinstance(run, TestRun):
        return TreeState(unknown=evidence.infrastructure.get(TestRun, "unknown reason"))
    if run.end is End.NOT_APPLIED:
        return TreeState()
    return TreeState(frozenset(run.fixed), frozenset(run.broken), run.end)


def _of_task(states: Mapping[JobKey, TreeState], row: Row) -> dict[str, TreeState]:
    return {patch: state for (task, patch), state in states.items() if task == row["task_digest"]}


def _write_columns(out: Path, measured: Mapping[tuple[Any, ...], Any]) -> None:
    """Add the columns of steps to the rows; the file is replaced at once, if any differ."""
    before = journal.read(out)
    after = []
    for row in before:
        steps = measured.get(attempt(row))
        after.append({**row, **columns_of_steps(steps.changes)} if steps is not None and steps.belongs_to(row) else row)
    if after != before:
        journal.write_atomically(out, "".join(json.dumps(row, allow_nan=False) + "\n" for row in after))
