"""Builds a task set: repositories, task sources, and what is left out, into one folder that is complete or absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.formats.task_sets import SetTask, check_writable, patch_to, write_task_set
from regrade.datasets.leak_free_splits import Unit, leak_free_splits
from regrade.datasets.plurals import listed
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.arguments import checked_path
from regrade.evaluators.task_curation.built_repository import BuiltRepository
from regrade.evaluators.task_curation.difficulty import DifficultyFacts
from regrade.evaluators.task_curation.set_card import card
from regrade.evaluators.task_curation.task_sources import SOURCES, TaskSource
from regrade.evaluators.task_curation.yields import YieldReport

DUPLICATE, UNREADABLE = "equal to another task", "its files are not UTF-8"


@dataclass(frozen=True)
class BuiltSet:
    """A written task set."""

    folder: Path
    tasks: tuple[Task, ...]
    yields: YieldReport


def chosen_sources(sources: Sequence[str | TaskSource]) -> dict[str, TaskSource]:
    """Name -> source: the named ones in their own order, then the functions; all of `SOURCES` for no source.

    Raises:
        UserError: a name is unknown.
    """
    names = [each for each in sources if isinstance(each, str)]
    unknown = next((name for name in names if name not in SOURCES), None)
    if unknown is not None:
        raise UserError(f"no task source {unknown!r}: choose from {', '.join(SOURCES)}")
    chosen = {name: source for name, source in SOURCES.items() if not sources or name in names}
    functions = [each for each in sources if not isinstance(each, str)]
    return chosen | {getattr(each, "__name__", repr(each)): each for each in functions}


def write_tasks(
    repositories: Sequence[BuiltRepository],
    out: str | Path,
    *,
    sources: Sequence[str | TaskSource] = (),
    split_by: Unit = "module",
    seed: int = 0,
) -> BuiltSet:
    """Search the sources in each repository, and write one task set. The same arguments write the same tasks.

    Args:
        sources: names in `SOURCES`, or functions of your own from a repository to validated tasks; empty: all of
            `SOURCES`.
        split_by: tasks that change the same repository, module or function are in the same split.
        seed: of the splits.

    Raises:
        UserError: `out` holds other things, a source is unknown, or no candidate is a valid task.
    """
    folder = checked_path("out", out)
    check_writable(folder)
    chosen = chosen_sources(sources)
    yields, tasks, facts = YieldReport(), list[Task](), list[dict[str, Any]]()
    bases: set[tuple[object, ...]] = set()
    for repository in (replace(each, yields=yields) for each in repositories):
        described = DifficultyFacts(repository)
        for name, source in chosen.items():
            yields.source = name
            for task in source(repository):
                if reason := _left_out(task, bases):
                    yields.drop(task.kind, reason)
                    continue
                bases.add(_identity(task))
                tasks.append(task)
                facts.append(described.of(task))
    wrong = {task: patch for repository in repositories for task, patch in repository.wrong_fixes.items()}
    flaky = {repository.name: repository.baseline.flaky for repository in repositories}
    if not tasks:
        reasons = yields.total().dropped.most_common(3)
        why = listed([f"{count} candidates: {reason}" for reason, count in reasons], 3) or "there is no candidate"
        raise UserError(f"no task of {listed([each.origin for each in repositories], 3)} is valid ({why})")
    twice = next((name for name, count in Counter(task.id for task in tasks).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"two tasks have the id {twice!r}: a task source must give each task an id of its own")
    splits = leak_free_splits(tasks, split_by, seed)
    members = [
        SetTask(task, flaky[task.repository], split, wrong.get(task.id), fact)
        for task, split, fact in zip(tasks, splits, facts, strict=True)
    ]
    text = card(repositories, members, yields, split_by=split_by, seed=seed)
    write_task_set(folder, members, text, yields.to_json())
    return BuiltSet(folder, tuple(tasks), yields)


def _identity(task: Task) -> tuple[object, ...]:
    """Two tasks with the same bug and the same view of it are one; without a bug, those with the same target."""
    return task.base.digest, task.shown, None if task.fail_to_pass else task.target


def _left_out(task: Task, bases: Collection[tuple[object, ...]]) -> str:
    """Why a valid task is not part of the set; empty: it is."""
    if _identity(task) in bases:
        return DUPLICATE
    try:
        f"{patch_to(task).text}{task.reference.text if task.reference else ''}".encode()
    except UnicodeEncodeError:
        return UNREADABLE
    return ""
