"""Scoring of rollouts of policies: rows are appended durably as they arrive, so a killed evaluation can continue.

Rows without a complete test run:
- An empty patch fixes nothing and breaks nothing. An unreadable answer, or a patch that does not apply, counts the
  same: the repository is unchanged. So breakage rates cover every attempt (intention to treat); `empty`, `well_formed`
  and `applied` distinguish the cases.
- An execution that crashes or exceeds a limit is breakage, even if every test before had passed.
- After an infrastructure failure the outcome is missing, also if the failure came before the answer. The next run of
  the same evaluation repeats such attempts.
- A patch of code that can't be built here counts like one that crashes (see `regrade.evaluators.execution.untestable`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from regrade.datasets.applying import changed_files
from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.side_effects import COLLATERAL, SideEffects
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.static.files import patched_files
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.episode_columns import columns_of_episode
from regrade.evaluators.storage.episode_file import add_episodes, episodes_path
from regrade.evaluators.storage.evidence_file import EvidenceFile
from regrade.evaluators.storage.rows import LOST, OPTIONAL, attempt, checked, table
from regrade.evaluators.storage.step_effects import forget_steps, steps_path
from regrade.rewards.algebra import Reward
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.errors import described_attempt, errors_of_attempt
from regrade.rewards.evidence import (
    DefaultVerification,
    Diff,
    End,
    EvidenceSet,
    Integrity,
    PatchText,
    TestRun,
    TestStatus,
    Verification,
)

CHUNK = 192
"""Rollouts a batch of the scorer: enough to keep workers busy, few enough to lose little on a kill."""


ALWAYS = frozenset({TestRun, Diff, Integrity, PatchText})
"""Evidence gathered whatever the reward needs: tampering is always reported, and later rewards may read the text."""


class EvidenceSource(Protocol):
    """The part of `regrade.evaluators.scoring.scorer.Scorer` that an evaluation uses."""

    def gather(self, jobs: Sequence[tuple[Task, Patch]], needs: Collection[type]) -> list[EvidenceSet]: ...


def evaluate(
    rollouts: Iterable[Rollout],
    tasks: Iterable[Task],
    scorer: EvidenceSource,
    reward: Reward,
    out: Path | None = None,
    *,
    also: Collection[type] = COLLATERAL,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Score each rollout on the whole suite; return one row each, in order (see `regrade.evaluators.storage.rows`).

    Args:
        rollouts: read lazily, `chunk` at a time, so generation and scoring can alternate.
        out: JSON lines; the evidence is stored beside it (see `regrade.evaluators.evaluation.rescoring`). Rows of the
            same attempt, patch, task and reward are reused, unless the infrastructure failed. None: no files.
        also: types of evidence to gather besides the reward's needs, for the columns of side effects.
        progress: called with the number of completed rollouts.

    Raises:
        UserError: a rollout belongs to none of `tasks`, or a line of `out` is not a row.
    """
    by_id = {task.id: task for task in tasks}
    latest = {attempt(row): row for row in (checked(journal.read(out), str(out)) if out else ())}
    recorded_rows = {_key(row): row for row in latest.values()}  # an older row of an attempt is outdated
    evidence_file = EvidenceFile(evidence_path(out)) if out else None
    needs = frozenset({*reward.needs, *also, *ALWAYS})
    effects = SideEffects()
    rows: list[dict[str, Any]] = []
    for group in _groups(rollouts, chunk):
        pairs = [(rollout, _task_of(rollout, by_id)) for rollout in group]
        keys = [_expected_key(rollout, task, reward) for rollout, task in pairs]
        fresh = [pair for pair, key in zip(pairs, keys, strict=True) if not _is_scored(recorded_rows.get(key))]
        scored = _score(fresh, scorer, reward, needs, evidence_file, effects)
        if out:  # before the rows: the episode of a row must not be missing
            episodes = (None if rollout.lost else rollout.episode for rollout, _ in fresh)
            _write_episodes(out, zip(scored, episodes, strict=True))
        if out and scored:
            journal.append(out, scored)
        recorded_rows.update((_key(row), row) for row in scored)
        rows.extend(recorded_rows[key] for key in keys)
        if progress:
            progress(len(rows))
    return table(rows)


def _write_episodes(out: Path, attempts: Iterable[tuple[dict[str, Any], Episode | None]]) -> None:
    told = [(row, episode) for row, episode in attempts if episode is not None]
    add_episodes(episodes_path(out), told)
    forget_steps(steps_path(out), (row for row, _ in told))


def evidence_path(rows: Path) -> Path:
    """Path of the evidence of a file of rows."""
    return rows.with_suffix(".evidence")  # not .jsonl: `load_rows` reads every .jsonl file of a folder


def recorded(out: Path, tasks: Iterable[Task] | None = None) -> frozenset[tuple[Any, ...]]:
    """(policy, task, temperature, sample, seed) of the scored attempts, which need not be generated again.

    With `tasks`, only attempts at the current version of one of them: an edited task needs new attempts.
    """
    digests = None if tasks is None else {task.id: task.digest for task in tasks}
    return frozenset(
        attempt(row)
        for row in checked(journal.read(out), str(out))
        if _is_scored(row) and (digests is None or digests.get(row["task"]) == row["task_digest"])
    )


def _groups(rollouts: Iterable[Rollout], size: int) -> Iterator[list[Rollout]]:
    source = iter(rollouts)
    while group := list(islice(source, size)):
        yield group


def _task_of(rollout: Rollout, by_id: dict[str, Task]) -> Task:
    if rollout.task_id not in by_id:
        raise UserError(
            f"a rollout of policy {rollout.policy!r} is for task {rollout.task_id!r}, which is not among the "
            f"{len(by_id)} given tasks: evaluate with the tasks of the rollouts"
        )
    return by_id[rollout.task_id]


def _expected_key(rollout: Rollout, task: Task, reward: Reward) -> tuple[Any, ...]:
    name = (rollout.policy, rollout.task_id, float(rollout.temperature), rollout.sample, rollout.seed)
    return (*name, LOST if rollout.lost else rollout.patch.digest, task.digest, reward.name)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (*attempt(row), row["patch_digest"], row["task_digest"], row["reward_name"])


def _is_scored(row: dict[str, Any] | None) -> bool:
    return row is not None and row["status"] == "scored" and row["broke"] is not None


def _score(
    pairs: Sequence[tuple[Rollout, Task]],
    scorer: EvidenceSource,
    reward: Reward,
    needs: frozenset[type],
    evidence_file: EvidenceFile | None,
    effects: SideEffects,
) -> list[dict[str, Any]]:
    answered = [(rollout, task) for rollout, task in pairs if not rollout.lost]
    gathered = scorer.gather([(task, rollout.patch) for rollout, task in answered], needs) if answered else []
    gathered = [as_failure(task, evidence) for (_, task), evidence in zip(answered, gathered, strict=True)]
    if evidence_file is not None and answered:  # before the rows: a row without its evidence cannot be rescored
        patches = ((task, rollout.patch.digest) for rollout, task in answered)
        evidence_file.add((*patch, evidence) for patch, evidence in zip(patches, gathered, strict=True))
    remaining, rows = iter(gathered), []
    for rollout, task in pairs:
        if rollout.lost:
            rows.append(_lost_row(rollout, task, needs, reward, effects))
            continue
        evidence = next(remaining)
        with errors_of_attempt(described_attempt(rollout.policy, rollout.task_id, rollout.temperature, rollout.sample)):
            breakdown = reward.evaluate(evidence)
        rows.append(_row(rollout, task, evidence, breakdown, reward.name, effects))
    return rows


def _lost_row(
    rollout: Rollout, task: Task, needs: Collection[type], reward: Reward, effects: SideEffects
) -> dict[str, Any]:
    """The row of an attempt without an answer that counts: its outcome is unknown."""
    rollout = replace(rollout, patch=Patch(""), episode=None)
    nothing = EvidenceSet({}, dict.fromkeys(needs, rollout.lost))
    row = _row(rollout, task, nothing, reward.evaluate(nothing), reward.name, effects)
    unscored: dict[str, Any] = {"status": "unscored", "cause": rollout.lost, "reward": None, "parts": []}
    return {**row, **unscored, **dict.fromkeys(OPTIONAL), "patch_digest": LOST, **_unknown(task)}


def _row(
    rollout: Rollout, task: Task, evidence: EvidenceSet, breakdown: Breakdown, reward_name: str, effects: SideEffects
) -> dict[str, Any]:
    target = task.target
    outcome = _unless_unassured(_outcome(rollout.patch, task, evidence), breakdown)
    empty, broken = outcome["empty"], outcome["broken_tests"]
    integrity: Integrity | None = evidence.records.get(Integrity)
    records = evidence.records
    verification: Verification | None = records.get(Verification, records.get(DefaultVerification))
    return {
        "policy": rollout.policy,
        "task": task.id,
        "repository": task.repository,
        "function": f"{target.file}::{target.function}" if target else "",
        "file": target.file if target else "",
        "temperature": float(rollout.temperature),
        "sample": rollout.sample,
        "seed": rollout.seed,
        "task_digest": task.digest,
        "patch_digest": rollout.patch.digest,
        "reward_name": reward_name,
        "patch": rollout.patch.text,
        "completion": rollout.completion,
        "well_formed": rollout.well_formed,
        "status": breakdown.status,
        "cause": breakdown.cause,
        "reward": breakdown.value,
        "tampering": sum(sign.conclusive for sign in integrity.signs) if integrity else None,
        "tampering_kinds": list(integrity.kinds) if integrity else [],
        "tokens": rollout.tokens,
        "generation_seconds": rollout.seconds,
        "changed_lines": _changed_lines(task, rollout.patch),
        "parts": breakdown.to_json()["parts"],
        "verification_seconds": verification.seconds if verification else None,
        **outcome,
        **effects.columns(task, rollout.patch, evidence, empty=empty, broken_tests=broken),
        **columns_of_episode(rollout.episode),
    }


def _outcome(patch: Patch, task: Task, evidence: EvidenceSet) -> dict[str, Any]:
    """The columns that depend on the tests."""
    run: TestRun | None = evidence.records.get(TestRun)
    applied = run is None or run.end is not End.NOT_APPLIED
    empty = not applied or changes_nothing(task, patch)
    tests = {"fail_to_pass": len(task.fail_to_pass), "guarded": len(task.pass_to_pass)}
    counts = {**tests, "empty": empty, "applied": applied}
    seconds = run.seconds if run else 0.0
    if empty:
        end = run.end.value if run else End.COMPLETED.value
        nothing = {"fix": 0, "fixed": 0, "broken": 0, "broke": 0, "clean_fix": 0, "newly_skipped": 0}
        return {**counts, **nothing, "end": end, "broken_tests": [], "execution_seconds": seconds}
    if run is None:
        return _unknown(task)
    broken = run.broken
    broke = bool(broken) or run.end is not End.COMPLETED
    fix = len(run.fixed) == len(run.fail_to_pass) if run.fail_to_pass else None  # no FAIL_TO_PASS tests: unknown
    skipped = sum(run.outcomes[test].status is TestStatus.SKIPPED for test in broken)
    return {
        **counts,
        "fix": None if fix is None else int(fix),
        "fixed": len(run.fixed),
        "broken": len(broken),
        "broke": int(broke),
        "clean_fix": None if fix is None else int(fix and not broke),
        "newly_skipped": skipped,
        "end": run.end.value,
        "broken_tests": list(broken),
        "execution_seconds": seconds,
    }


def _unknown(task: Task) -> dict[str, Any]:
    """The columns that depend on the tests, without an outcome."""
    unknown = dict.fromkeys(("fix", "fixed", "broken", "broke", "clean_fix", "newly_skipped"))
    tests = {"fail_to_pass": len(task.fail_to_pass), "guarded": len(task.pass_to_pass)}
    facts = {"empty": False, "applied": True, "end": "", "broken_tests": [], "execution_seconds": 0.0}
    return {**tests, **facts, **unknown}


def _unless_unassured(outcome: dict[str, Any], breakdown: Breakdown) -> dict[str, Any]:
    """The outcome; without a fix, if the verdict falls short of the assurance level that the reward requires."""
    is_unassured = any(part.closes and part.name.startswith("assured") for part in breakdown.parts)
    if not is_unassured or not outcome["fixed"]:
        return outcome
    return {**outcome, "fixed": 0, "fix": 0, "clean_fix": 0}


def _changed_lines(task: Task, patch: Patch) -> int:
    """Lines that the patch removes and adds: the difference of the files, whatever its hunks repeat."""
    try:
        return sum(len(file.removed) + len(file.added) for file in patched_files(task.base, patch))
    except (PatchError, OSError):
        return 0  # see `applied`


def changes_nothing(task: Task, patch: Patch) -> bool:
    """Has the tree after the patch the same content?"""
    try:
        return not changed_files(task.base, patch)
    except (PatchError, OSError):
        return patch.is_empty
