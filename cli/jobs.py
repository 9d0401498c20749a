"""What `score` and `explain` share: patches from files, the task that they belong to, and scoring them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regrade.cli.console import progress
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch, PatchError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.probes import StaticProbe
    from regrade.rewards.breakdown import Breakdown


@dataclass(frozen=True)
class Verdict:
    """One scored patch."""

    source: str
    patch: Patch
    breakdown: Breakdown


@dataclass(frozen=True)
class Question:
    """What is asked of some patches: against which task, by which reward, and where they run."""

    repo: Path
    fail_to_pass: tuple[str, ...]
    tasks: Path | None
    task: str | None
    reward: str
    sandbox: str
    workers: int | None
    full: bool
    reward_model: Path | None = None
    time_limit: float = 600.0
    """Seconds for one run of a repository's tests as they are."""


def score_files(sources: Sequence[str], question: Question) -> list[Verdict]:
    """Score each patch file (`-`: standard input), in order.

    Raises:
        UserError: a file, the task, the reward or the sandbox is not to be had, or a patch does not apply.
    """
    from regrade.evaluators.scorer import Scorer
    from regrade.rewards.loading import load_reward

    patches = [read_patch(source) for source in sources]
    reward = load_reward(question.reward)
    task = find_task(question, dict(zip(sources, patches, strict=True)))
    probes = model_probes(question.reward_model)
    with (
        Scorer(workers=question.workers, sandbox=question.sandbox, probes=probes) as scorer,
        progress("scoring") as tell,
    ):
        jobs = [(task, patch) for patch in patches]
        breakdowns = scorer.score(jobs, reward, full=question.full, progress=tell)
    return [Verdict(*verdict) for verdict in zip(sources, patches, breakdowns, strict=True)]


def model_probes(folder: Path | None) -> Mapping[type, StaticProbe]:
    """What gathers the evidence of a trained reward model; nothing where none is named."""
    if folder is None:
        return {}
    try:
        from regrade.policy_training.predictions import RewardModelProbe
    except ImportError as error:
        raise UserError(
            f"a reward model needs {error.name}: install the extra `train` (pip install 'regrade[train]')"
        ) from error
    from regrade.rewards.evidence import Prediction

    return {Prediction: RewardModelProbe(folder)}


def read_patch(source: str) -> Patch:
    """The patch in a file, checked to be a unified diff. Raises UserError."""
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(
            f"patch {source!r} cannot be read: {error.strerror}; give a file with a unified diff, or -"
        ) from error
    patch = Patch(data.decode("utf-8", "surrogateescape"))
    try:
        _ = patch.files
    except PatchError as error:
        advice = "; `git diff > fix.diff` makes one" if patch.is_short else ""
        raise UserError(f"patch {source!r}: {error}{advice}") from error
    return patch


def find_task(question: Question, patches: Mapping[str, Patch]) -> Task:
    """The task asked for by id, or one made of the repository by running its tests. The patches apply to it.

    Raises:
        UserError: no such repository or task, or a patch does not apply: said before any test is run.
    """
    if question.tasks is None and question.task is None:
        return _local(question, patches)
    from regrade.cli.tasks import load, load_one

    source = "builtin" if question.tasks is None else str(question.tasks)
    if question.task is None:
        task, *others = load(source, None)
        if others:
            raise UserError(f"{source} holds {len(others) + 1} tasks, such as {task.id!r}: choose one with --task")
    else:
        task = load_one(source, question.task)
    check_applies(patches, task)
    return task


def _local(question: Question, patches: Mapping[str, Patch]) -> Task:
    from regrade.datasets.tasks import Task, Tree
    from regrade.evaluators.local import local_task

    repo = question.repo.resolve()
    if repo.is_dir():
        check_applies(patches, Task(str(repo), str(repo), Tree(repo), "", (), ()))
    with progress("running the repository's own tests") as tell:
        return local_task(
            question.repo,
            question.fail_to_pass,
            sandbox=question.sandbox,
            time_limit=question.time_limit,
            progress=tell,
        )


def check_applies(patches: Mapping[str, Patch], task: Task) -> None:
    """A person's patch that does not apply is a mistake, not a low score. Raises UserError naming file and line."""
    from regrade.evaluators.workspaces import prepare

    for source, patch in patches.items():
        try:
            prepare(task, patch)
        except PatchError as error:
            raise UserError(f"patch {source!r} does not apply to {task.repository}: {error}") from error
