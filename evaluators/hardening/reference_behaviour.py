"""What a task's reference patch does: its answers to the calls of the tests, and to inputs that no test contains.

Another patch that answers one of these inputs otherwise is no fix. Besides the answers, the errors that the reference
raises on purpose (a `raise` of that class stands in a function that it changes) belong to its behaviour: a patch
without the guard differs by them alone.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.worker import without_candidate
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.verification.answer_checks import repeatable_calls
from regrade.evaluators.verification.answer_equality import are_same, find_mismatches, function_of
from regrade.evaluators.verification.boundaries import Boundary, boundary_for_calls, boundary_of
from regrade.evaluators.verification.held_out_inputs import RECORDED_CALLS, Call, generate_inputs
from regrade.evaluators.verification.reference_verification import WorkerSet, reference_workspace

RawAnswer = Any
"""See `plain_values`; a dict with `value`, `raised`, `nodes` and `changes`."""


@dataclass(frozen=True)
class ReferenceBehaviour:
    """Calls and the reference's answers, in equal order."""

    boundary: Boundary
    visible: tuple[tuple[Call, RawAnswer], ...]
    """Calls of the functions that the reference changes, by the tests that reach them."""
    inputs: tuple[Call, ...]
    """Held-out inputs that it answers twice equally."""
    expected: tuple[RawAnswer, ...]


@dataclass(frozen=True)
class AnswerDifference:
    """A held-out input that a patch answers otherwise than the reference."""

    index: int
    why: str


def measure_reference(workers: WorkerSet, task: Task, inputs: int) -> ReferenceBehaviour | None:
    """Run the tests with the reference in two processes, and ask it held-out inputs; None: it changes no function.

    Args:
        inputs: of each function, at most.

    Raises:
        PatchError: the reference does not apply.
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    workspace = reference_workspace(task)
    boundary = boundary_of(task, workspace)
    if not boundary.files:
        return None
    tests = selected_tests(task, workspace) or frozenset(task.tests)
    with without_candidate():
        run = workers.pair.run(task, workspace, boundary, tests, workers.preparation)
        calls = repeatable_calls(run.answered, RECORDED_CALLS)
        drawn = generate_inputs(calls, inputs) if calls else []
        answers, repeated = (
            workers.pair.answers(task, workspace, boundary, drawn, workers.preparation) if drawn else []
            for _ in range(2)
        )
    raised_on_purpose = _raised(workspace, boundary)
    usable = [
        index
        for index, (call, one, other) in enumerate(zip(drawn, answers, repeated, strict=False))
        if are_same(call, one, other) and _is_answer(one, raised_on_purpose)
    ]
    random = {
        function_of(call)
        for call, one, other in zip(drawn, answers, repeated, strict=False)
        if one.get("raised") is False and other.get("raised") is False and not are_same(call, one, other)
    }
    usable = [index for index in usable if function_of(drawn[index]) not in random]
    known = {json.dumps(call) for call in calls}
    visible = tuple((call, answer) for call, answer in run.answered if json.dumps(call) in known)
    return ReferenceBehaviour(
        boundary, visible, tuple(drawn[index] for index in usable), tuple(answers[index] for index in usable)
    )


def differences(workers: WorkerSet, task: Task, patch: Patch, reference: ReferenceBehaviour) -> list[AnswerDifference]:
    """The held-out inputs that a patch answers otherwise, in each of two runs: a busy machine is no evidence.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    try:
        workspace = prepare(task, patch)
    except PatchError:
        return []
    boundary = boundary_for_calls(workspace, reference.boundary)
    indices = list(range(len(reference.inputs)))
    found: list[AnswerDifference] = []
    for _ in range(2):
        calls, expected = ([those[index] for index in indices] for those in (reference.inputs, reference.expected))
        answers = workers.pair.answers(task, workspace, boundary, calls, workers.preparation) if calls else []
        found = list(_differing(indices, calls, expected, answers))
        indices = [difference.index for difference in found]
    return found


def error_name(answer: RawAnswer) -> tuple[str, str] | None:
    """Module and name of the class of an answer's error; None: it raises none that has a name."""
    if answer.get("raised") is not True:
        return None
    value = answer.get("value")
    kinds = value[1] if isinstance(value, list) and value[0] == "error" else []
    first = kinds[0] if kinds else None
    return (first[1], first[2]) if isinstance(first, list) and first[0] == "global" else None


def _differing(
    indices: Sequence[int],
    calls: Sequence[Call],
    expected: Sequence[RawAnswer],
    answers: Sequence[RawAnswer],
) -> list[AnswerDifference]:
    padded = [*answers, *[{"gone": "no answer"}] * (len(calls) - len(answers))]
    found = []
    for index, call, right, answer in zip(indices, calls, expected, padded, strict=False):
        wanted = error_name(right)
        is_equal = error_name(answer) == wanted if wanted is not None else are_same(call, right, answer)
        if not is_equal:  # of an error, only the class is compared: another right patch words it otherwise
            shown = find_mismatches([call], [right], [answer])
            found.append(
                AnswerDifference(index, str(shown[0]) if shown else f"{function_of(call)} does not raise {wanted}")
            )
    return found


def _is_answer(answer: RawAnswer, raised_on_purpose: frozenset[str]) -> bool:
    if answer.get("raised") is False:
        return True
    name = error_name(answer)
    return name is not None and name[1].rpartition(".")[2] in raised_on_purpose


def _raised(workspace: Workspace, boundary: Boundary) -> frozenset[str]:
    """Names of the classes that `raise` statements name in the functions of the boundary."""
    names = set()
    for path, file in boundary.files.items():
        tree = parse_or_none(workspace.after.read_or_none(path) or "")
        wanted = {key.partition("#")[0].rpartition(".")[2] for key in (*file.changed, *file.added)}
        for function in ast.walk(tree) if tree is not None else ():
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name in wanted:
                names |= {_name_of(node.exc) for node in ast.walk(function) if isinstance(node, ast.Raise)}
    return frozenset(names - {""})


def _name_of(error: ast.expr | None) -> str:
    node = error.func if isinstance(error, ast.Call) else error
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
