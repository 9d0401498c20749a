"""Labelled attempts: patches with what their execution showed, read from a run. Reward models learn from them.

A run holds them already, as rows with evidence (`evaluations/`, `evaluations-validation/`) and as the attempts of a
training (`attempts/`). Nothing is stored a second time.

Unscored attempts are left out, and a label that was not measured is missing, never false.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.evidence_file import EvidenceFile, evidence_path
from regrade.evaluators.storage.rows import checked, is_lost
from regrade.evaluators.storage.run import Run
from regrade.rewards.evidence import EvidenceSet


class Component(StrEnum):
    """A yes-or-no question about a patch, to which a reward model has one answer each."""

    FIXES = "fixes"
    """Do all FAIL_TO_PASS tests pass, without tampering?"""
    BREAKS = "breaks"
    """Does it break a PASS_TO_PASS test, or stop the execution?"""
    BUILDS = "builds"
    """Do the patched files compile and import?"""
    STYLE = "style"
    """Does it add a lint finding?"""
    COMPLEXITY = "complexity"
    """Does the cyclomatic complexity grow?"""
    CLEAN = "clean"
    """Does it fix, and break nothing?"""


class PatchOrigin(StrEnum):
    """Where an attempt came from."""

    REFERENCE = "reference"
    NO_OP = "no-op"
    MUTANT = "mutant"
    """The bug stays, and another one is planted in the same function."""
    NEAR_MISS = "near miss"
    """The bug is taken back, and another one is planted in the same function."""
    REWRITE = "rewrite"
    """The function is written otherwise, with the bug or without it."""
    CHEAT = "cheat"
    """The bug stays, and code is added that deceives the tests."""
    SAMPLED = "sampled"
    """A policy proposed it."""


SCRIPTED: Mapping[str, PatchOrigin] = MappingProxyType(
    {
        "reference": PatchOrigin.REFERENCE,
        "no-op": PatchOrigin.NO_OP,
        "mutants": PatchOrigin.MUTANT,
        "near-misses": PatchOrigin.NEAR_MISS,
        "rewrites": PatchOrigin.REWRITE,
        "cheats": PatchOrigin.CHEAT,
    }
)
"""Name of a scripted policy (`scripted` in the spec of its `PolicyEntry`) -> the origin of its patches."""


class EvidenceByType(Protocol):
    """Gathered or stored evidence (`EvidenceSet`, `StoredEvidence`), of which only some types are read."""

    def of(self, needs: frozenset[type]) -> EvidenceSet: ...


@dataclass(frozen=True, kw_only=True)
class ProposedPatch:
    """What is known of a patch before it is executed: all that a reward model may read."""

    task_id: str
    repository: str
    function: str
    """`file::qualified.name` of the function to fix; empty if unknown."""
    file: str
    instruction: str
    failure: str
    """The line and the error of one failing test; empty if unknown."""
    fail_to_pass: tuple[str, ...]
    patch: str
    """Unified diff; empty: no change."""
    evidence: EvidenceByType = field(repr=False, default_factory=EvidenceSet)
    """Gathered evidence. A model must read its static types only: the others are what it predicts."""
    task: Task | None = field(repr=False, default=None, compare=False)
    """With the files of the repository; None: they were not loaded."""
    log_probability: float | None = None
    """Of the answer under the policy that sampled it, the mean over its tokens; None: not stored."""

    @property
    def group(self) -> tuple[str, str]:
        """Repository and task: only attempts of one group are compared."""
        return self.repository, self.task_id

    @property
    def cluster(self) -> tuple[str, str]:
        """Repository and function: attempts of one cluster are not independent."""
        return self.repository, self.function or self.task_id


@dataclass(frozen=True, kw_only=True)
class LabelledAttempt(ProposedPatch):
    """A patch that was executed."""

    labels: Mapping[Component, bool]
    """A component that was not measured is missing."""
    reward: float
    """The executed reward."""
    origin: PatchOrigin
    policy: str
    """Name of the policy in its run."""


def labelled_attempts(run: Run, tasks: Iterable[Task] = ()) -> list[LabelledAttempt]:
    """The executed attempts of a run that was evaluated or trained, each distinct patch of a task once.

    Args:
        tasks: with the files of their repositories, for models that read them. They also describe the tasks of a run
            that stored no description of them.

    Raises:
        UserError: the run has no executed attempt, or a file of it is damaged.
    """
    by_id = {task.id: task for task in tasks}
    found = distinct([*_evaluated(run, by_id), *_trained(run, by_id)])
    if not found:
        raise UserError(
            f"{run.folder} has no executed attempts: give the folder of an evaluation or of a training that executed "
            "attempts"
        )
    return found


def distinct(attempts: Iterable[LabelledAttempt]) -> list[LabelledAttempt]:
    """Each patch of a task once, the first one: repeats would count an easy patch several times."""
    first: dict[tuple[str, str, str], LabelledAttempt] = {}
    for attempt in attempts:
        first.setdefault((*attempt.group, attempt.patch), attempt)
    return list(first.values())


def _evaluated(run: Run, tasks: Mapping[str, Task]) -> Iterator[LabelledAttempt]:
    descriptions, policies = run.tasks(), run.manifest.policies
    for folder in ("evaluations", "evaluations-validation"):
        for path in sorted((run.folder / folder).glob("*.jsonl")):
            evidence_file = EvidenceFile(evidence_path(path))
            for row in checked(journal.read(path), str(path)):
                if row["status"] != "scored" or row["reward"] is None or is_lost(row):
                    continue
                entry = policies.get(row["policy"])
                origin = SCRIPTED.get(str(entry.spec.get("scripted")) if entry else "", PatchOrigin.SAMPLED)
                stored = evidence_file.get((row["task_digest"], row["patch_digest"]))
                yield LabelledAttempt(
                    **_described(row["task"], descriptions.get(row["task"], {}), tasks.get(row["task"])),
                    repository=row["repository"],
                    function=row["function"] or "",
                    file=row["file"] or "",
                    patch=row["patch"] or "",
                    evidence=stored or EvidenceSet(),
                    log_probability=row.get("log_probability"),
                    labels=labels_of_row(row, origin),
                    reward=row["reward"],
                    origin=origin,
                    policy=row["policy"],
                )


def labels_of_row(row: Mapping[str, Any], origin: PatchOrigin = PatchOrigin.SAMPLED) -> dict[Component, bool]:
    """The labels of a row of an evaluation (see `regrade.evaluators.storage.rows`).

    A patch with a conclusive sign of tampering fixes nothing, nor does a cheat, whose tests say otherwise.
    """
    deceives = bool(row["tampering"]) or origin is PatchOrigin.CHEAT
    labels: dict[Component, Any] = {
        Component.FIXES: _and_not(row["fix"], deceives),
        Component.BREAKS: row["broke"],
        Component.BUILDS: row.get("built"),
        Component.STYLE: row.get("lint_added"),
        Component.COMPLEXITY: _positive(row.get("complexity_change")),
        Component.CLEAN: _and_not(row["clean_fix"], deceives),
    }
    if row["empty"]:  # nothing is gathered of a patch without a change
        labels |= {Component.STYLE: False, Component.COMPLEXITY: False}
    return {component: bool(value) for component, value in labels.items() if value is not None}


def _and_not(outcome: float | None, deceives: bool) -> bool | None:
    return None if outcome is None else bool(outcome) and not deceives


def _positive(number: float | None) -> bool | None:
    return None if number is None else number > 0


class _TrainedAttempt(msgspec.Struct):
    """A line of `attempts/`: see `regrade.policy_training.environments.attempts.ScoredAnswer`."""

    task_id: str
    reward: float
    verified: bool
    patch: str | None = None
    policy: str = ""
    fixes: bool | None = None
    breaks: bool | None = None
    builds: bool | None = None


def _trained(run: Run, tasks: Mapping[str, Task]) -> Iterator[LabelledAttempt]:
    """Attempts of older runs lack their patch; they are left out."""
    descriptions = run.tasks()
    for path in sorted((run.folder / "attempts").glob("*.jsonl")):
        for number, line in enumerate(journal.read(path), 1):
            stored = converted(line, _TrainedAttempt, f"{path}, line {number}: not an attempt", "delete that line")
            task, description = tasks.get(stored.task_id), descriptions.get(stored.task_id)
            if stored.patch is None:
                continue
            if task is None and description is None:
                raise UserError(
                    f"{path}: {run.folder} does not describe task {stored.task_id!r}: give the tasks of its training "
                    "with `tasks=`"
                )
            described = _described(stored.task_id, description or {}, task)
            yield LabelledAttempt(
                **described,
                repository=task.repository if task else str((description or {}).get("repository", "")),
                **_place(task, description or {}),
                patch=stored.patch,
                labels=labels_of_execution(
                    fixes=stored.fixes, breaks=stored.breaks, builds=stored.builds, clean=stored.verified
                ),
                reward=stored.reward,
                origin=PatchOrigin.SAMPLED,
                policy=stored.policy or path.stem,
            )


def labels_of_execution(
    *, fixes: bool | None, breaks: bool | None, builds: bool | None, clean: bool
) -> dict[Component, bool]:
    """The labels of an attempt of a training. `fixes` None: it was not executed, and then nothing says that it is not
    clean."""
    labels = {
        Component.FIXES: fixes,
        Component.BREAKS: breaks,
        Component.BUILDS: builds,
        Component.CLEAN: None if fixes is None and not clean else clean,
    }
    return {component: value for component, value in labels.items() if value is not None}


def _described(task_id: str, description: Mapping[str, Any], task: Task | None) -> dict[str, Any]:
    """The fields of a task, from its record or from itself."""
    if task is not None:
        return {
            "task_id": task_id,
            "instruction": task.instruction,
            "failure": task.failure,
            "fail_to_pass": task.fail_to_pass,
            "task": task.without_reference(),
        }
    return {
        "task_id": task_id,
        "instruction": description.get("instruction", ""),
        "failure": description.get("failure", ""),
        "fail_to_pass": tuple(description.get("fail_to_pass", ())),
    }


def _place(task: Task | None, description: Mapping[str, Any]) -> dict[str, str]:
    if task is not None and task.target is not None:
        return {"function": f"{task.target.file}::{task.target.function}", "file": task.target.file}
    function = str(description.get("function", ""))
    return {"function": function, "file": function.partition("::")[0]}


def proposed(task: Task, patch: Patch, evidence: EvidenceByType | None = None) -> ProposedPatch:
    """A patch that a model is to judge. `evidence`: static evidence, for models that read it."""
    return ProposedPatch(
        **_described(task.id, {}, task),
        repository=task.repository,
        **_place(task, {}),
        patch=patch.text,
        evidence=evidence or EvidenceSet(),
    )


def open_attempts(folders: Sequence[Path], tasks: Iterable[Task] = ()) -> list[LabelledAttempt]:
    """The attempts of several runs, each distinct patch of a task once. Raises UserError as `labelled_attempts`."""
    known = list(tasks)
    return distinct(attempt for folder in folders for attempt in labelled_attempts(Run.open(folder), known))
