"""What a task's reference patch shows: which means of verification the task allows, and answers to held-out inputs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from regrade.datasets.tasks import Task
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Worker
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.verification.answer_checks import AnswerTraits, answer_traits, repeatable_calls
from regrade.evaluators.verification.answer_equality import are_same, usable_inputs
from regrade.evaluators.verification.boundaries import (
    Boundary,
    boundary_for_calls,
    boundary_of,
    boundary_of_everything,
    merge_boundaries,
    without_oracles,
)
from regrade.evaluators.verification.held_out_inputs import (
    INPUTS_PER_FUNCTION,
    MIN_INPUTS,
    RECORDED_CALLS,
    Call,
    generate_inputs,
)
from regrade.evaluators.verification.input_strength import InputStrength, input_strength
from regrade.evaluators.verification.tripwires import run_tripwires
from regrade.evaluators.verification.two_process import WorkerPair
from regrade.rewards.assurance_level import AssuranceLevel

logger = logging.getLogger(__name__)
MIN_KILLED = 0.5
"""Least share of the reference's mutants that held-out inputs must detect. Some mutants change nothing."""


@dataclass(frozen=True)
class ReferenceVerification:
    """The verification of a task's reference patch."""

    confirmed: tuple[str, ...]
    """Tests that pass out of process."""
    unconfirmed: tuple[tuple[str, str], ...]
    """(test, reason) of the other tests."""
    inputs: str
    """Held-out inputs that the reference answers without an error, as JSON."""
    answers: str
    """Its answers, as JSON."""
    wrong_at_base: tuple[int, ...] = ()
    """Indexes of the inputs that the base commit answers otherwise."""
    mutants: int = 0
    """Mutants of the reference's functions, if there are held-out inputs."""
    killed: int = 0
    """Mutants that answer an input differently than the reference."""
    traits: AnswerTraits = field(default_factory=AnswerTraits)
    untested: tuple[tuple[str, str], ...] = ()
    """(test, reason) of the tests that neither pass out of process nor have a tripwire."""
    invalid: tuple[str, ...] = ()
    """Keys of the tripwires that the reference triggers."""

    def level(self, task: Task) -> AssuranceLevel:
        """The strongest level that the reference reaches."""
        if self.untested:
            return AssuranceLevel.IN_PROCESS
        if not self.is_confirmed(task):
            return AssuranceLevel.TRIPWIRED
        return AssuranceLevel.HELD_OUT if self.has_strong_inputs else AssuranceLevel.OUT_OF_PROCESS

    @property
    def has_strong_inputs(self) -> bool:
        """Are there held-out inputs, and do they detect enough of the bugs that could be in the functions?"""
        return bool(json.loads(self.inputs)) and self.killed >= MIN_KILLED * self.mutants

    def is_confirmed(self, task: Task) -> bool:
        """Do all FAIL_TO_PASS tests pass out of process?"""
        return bool(task.fail_to_pass) and set(task.fail_to_pass) <= set(self.confirmed)

    def obstacle(self, task: Task) -> str:
        """The reason why no patch of this task can be verified out of process; empty if one can."""
        reasons = dict(self.unconfirmed)
        missing = next((test for test in task.fail_to_pass if test not in self.confirmed), None)
        return "" if missing is None else f"{missing}: {reasons.get(missing) or 'it fails'}"


@dataclass(frozen=True)
class ReferenceWithoutInputs(ReferenceVerification):
    """That without held-out inputs, which takes a fraction of the time."""


@dataclass(frozen=True)
class WorkerSet:
    """The workers that verify, for one thread and environment."""

    pair: WorkerPair
    worker: Worker
    preparation: Preparation = UNPREPARED


def verify_reference(
    workers: WorkerSet, task: Task, workspace: Workspace, tests: frozenset[str], *, with_inputs: bool = True
) -> ReferenceVerification:
    """Verify a task's reference patch, which is applied in the workspace, on these of the task's tests.

    Args:
        with_inputs: also draw held-out inputs.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    boundary = boundary_of(task, workspace)
    verified = _verify_reference_out_of_process(workers, task, workspace, boundary, tests, with_inputs)
    rest = tests
    if verified.is_confirmed(task):
        # Where the reference changes more than functions, the other tests ran on the base's version of it.
        rest = tests.difference(task.fail_to_pass if boundary.beyond else verified.confirmed)
    if not rest:
        return verified
    report = run_tripwires(workers.worker, task, workspace, rest, preparation=workers.preparation)
    confirmed = frozenset[str]()
    if verified.is_confirmed(task):
        confirmed = confirmed_by_all_functions(
            workers, task, workspace, boundary, [test for test, _ in report.untested]
        )
    untested = tuple((test, why) for test, why in report.untested if test not in confirmed)
    return replace(verified, untested=untested, invalid=report.invalid)


def confirmed_by_all_functions(
    workers: WorkerSet, task: Task, workspace: Workspace, own: Boundary, tests: Iterable[str]
) -> frozenset[str]:
    """Those of the tests that pass where all functions of the repository are the patch's, called remotely.

    For a patch that decorates functions or binds them again, or adds modules: what that does to any function is in the
    answers. A changed value or a changed class would not be.
    """
    tests = frozenset(tests)
    everything = boundary_of_everything(task, workspace) if tests and own.only_binds else None
    if everything is None:
        return frozenset()
    logger.debug("confirmation by all functions: task %s, %d tests", task.id, len(tests))
    everything = without_oracles(merge_boundaries(everything, own))  # a new method may hide one of a base class
    run = workers.pair.run(task, workspace, everything, tests, workers.preparation)
    return run.passed & run.called


def _verify_reference_out_of_process(
    workers: WorkerSet, task: Task, workspace: Workspace, boundary: Boundary, tests: frozenset[str], with_inputs: bool
) -> ReferenceVerification:
    kind = ReferenceVerification if with_inputs else ReferenceWithoutInputs
    pair, preparation = workers.pair, workers.preparation
    if not boundary.files:
        why = "the reference changes no function"
        return kind((), tuple((test, why) for test in sorted(tests)), "[]", "[]")
    split = pair.run(task, workspace, boundary, tests, preparation)
    if not split.passed.issuperset(task.fail_to_pass):  # a busy machine must not decide about a task
        repeated_run = pair.run(task, workspace, boundary, tests, preparation)
        split = max(split, repeated_run, key=lambda run: len(run.passed))
    traits = answer_traits(pair, task, workspace, boundary, split, preparation)
    calls = repeatable_calls(split.answered, RECORDED_CALLS) if with_inputs else []
    inputs = generate_inputs(calls, INPUTS_PER_FUNCTION) if with_inputs else []
    answers = repeated = []
    if inputs:
        answers = pair.answers(task, workspace, boundary, inputs, preparation)
        repeated = pair.answers(task, workspace, boundary, inputs, preparation)
    usable = usable_inputs(inputs, answers, repeated)
    inputs, answers = [inputs[index] for index in usable], [answers[index] for index in usable]
    wrong = _wrong_at_base(pair, task, boundary, inputs, answers, preparation) if len(usable) >= MIN_INPUTS else ()
    strength = InputStrength(0, 0)
    if not wrong:
        inputs, answers = [], []
    else:
        strength = input_strength(pair, task, workspace, boundary, inputs, answers, preparation)
    return kind(
        tuple(sorted(split.passed)),
        tuple(sorted({**split.inconclusive, **split.failed}.items())),
        json.dumps(inputs),
        json.dumps(answers),
        wrong,
        *strength,
        traits=traits,
    )


def _wrong_at_base(
    pair: WorkerPair, task: Task, boundary: Boundary, inputs: list[Call], expected: list[Any], preparation: Preparation
) -> tuple[int, ...]:
    """Indexes of the inputs that the base commit answers differently. Without one, the inputs show nothing about the
    bug."""
    base = Workspace(task.base, task.base)
    answers = pair.answers(task, base, boundary_for_calls(base, boundary), inputs, preparation)
    return tuple(index for index in range(len(inputs)) if not is_right(index, inputs, expected, answers))


def is_right(index: int, inputs: list[Call], expected: list[Any], answers: Sequence[Any]) -> bool:
    return index < len(answers) and are_same(inputs[index], expected[index], answers[index])


def reference_workspace(task: Task) -> Workspace:
    """The task with its reference applied. Raises PatchError."""
    assert task.reference is not None
    return prepare(task, task.reference)
