"""Labelled attempts: read from what a run stores anyway, with the labels that the execution showed."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.labelled_attempts import (
    Component,
    LabelledAttempt,
    PatchOrigin,
    labelled_attempts,
)
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.attempts import judge, write_attempts
from regrade.policy_training.environments.labelled import labelled
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.rewards import default
from regrade.rewards.evidence import Diff, Impact, TestRun


def rollout(task: Task, patch: Patch, policy: str, sample: int = 0) -> Rollout:
    return Rollout(task_id=task.id, policy=policy, temperature=0.0, sample=sample, seed=0, patch=patch)


def broken(task: Task) -> Patch:
    """Does not import any more."""
    text = task.base.read("library.py")
    return Patch.between({"library.py": text}, {"library.py": text + "\nimport missing_module_of_no_name\n"})


def reference(task: Task) -> Patch:
    assert task.reference is not None
    return task.reference


@pytest.fixture
def run(tasks: list[Task], scorer: Scorer, tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.record_tasks(tasks)
    run.add_policy("right", "scripted", spec={"scripted": "reference"})
    run.add_policy("cheats", "scripted", spec={"scripted": "cheats"})
    run.add_policy("model", "candidate", spec={"model": "m"})
    answers = {
        "right": [reference(tasks[0])],
        "cheats": [reference(tasks[0]), reference(tasks[1])],  # as if their tests were deceived
        "model": [Patch(""), broken(tasks[0]), broken(tasks[0])],
    }
    for policy, patches in answers.items():
        of = tasks if policy == "cheats" else [tasks[0]] * len(patches)
        rollouts = [rollout(task, patch, policy, n) for n, (task, patch) in enumerate(zip(of, patches, strict=True))]
        evaluate(rollouts, tasks, scorer, default, run.evaluation(policy))
    return run


def test_an_evaluation_gives_labels_origins_and_stored_evidence(run: Run, tasks: list[Task]) -> None:
    found = labelled_attempts(run)
    by_origin: dict[PatchOrigin, list[LabelledAttempt]] = {}
    for attempt in found:
        by_origin.setdefault(attempt.origin, []).append(attempt)
    # Files are read in alphabetical order: the cheat's patch at the first task is seen before the equal reference.
    assert {origin: len(attempts) for origin, attempts in by_origin.items()} == {
        PatchOrigin.CHEAT: 2,
        PatchOrigin.SAMPLED: 2,
    }
    cheat = by_origin[PatchOrigin.CHEAT][1]
    assert cheat.labels[Component.BREAKS] is False
    assert cheat.labels[Component.FIXES] is cheat.labels[Component.CLEAN] is False
    empty, fault = by_origin[PatchOrigin.SAMPLED]
    assert empty.patch == ""
    assert empty.labels[Component.CLEAN] is empty.labels[Component.STYLE] is False
    assert fault.labels == {
        Component.FIXES: False, Component.BREAKS: True, Component.BUILDS: False, Component.STYLE: True,
        Component.COMPLEXITY: False, Component.CLEAN: False,
    }  # fmt: skip
    assert fault.function == f"{tasks[0].target.file}::{tasks[0].target.function}"
    assert (fault.instruction, fault.fail_to_pass) == (tasks[0].instruction, tasks[0].fail_to_pass)
    records = fault.evidence.of(frozenset({Diff, TestRun})).records
    assert records[Diff].added_lines == 2
    assert Impact not in records
    assert fault.task is None
    assert labelled_attempts(run, tasks)[-1].task.base.read("library.py")
    assert labelled_attempts(run, tasks)[-1].task.reference is None


def test_a_training_gives_the_same_labels_as_while_it_runs(tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    patches = [reference(tasks[0]), broken(tasks[0]), Patch("")]
    rollouts = [rollout(tasks[0], patch, "sampler", number) for number, patch in enumerate(patches)]
    attempts = judge(rollouts, {task.id: task for task in tasks}, scorer, DEFAULT_TRAINING_REWARD)
    live = labelled(attempts, {task.id: task for task in tasks})
    assert [attempt.labels[Component.CLEAN] for attempt in live] == [True, False, False]
    assert [attempt.labels[Component.BREAKS] for attempt in live] == [False, True, False]
    run = Run(tmp_path / "training")
    write_attempts(run.folder / "attempts" / "round-1.jsonl", attempts)
    with pytest.raises(UserError, match="give the tasks of its training"):
        labelled_attempts(run)
    assert labelled_attempts(run, tasks) == live
    run.record_tasks(tasks)
    assert [attempt.labels for attempt in labelled_attempts(run)] == [attempt.labels for attempt in live]
    assert [attempt.cluster for attempt in labelled_attempts(run)] == [attempt.cluster for attempt in live]


def test_a_run_without_executed_attempts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no executed attempts"):
        labelled_attempts(Run(tmp_path / "empty"))
