"""How much do held-out inputs show? The share of the reference's mutants that they distinguish from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from regrade.datasets.mutation.mutants import Mutant, Mutations, shuffled
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.worker import UNPREPARED, Preparation
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.verification.answer_equality import find_mismatches
from regrade.evaluators.verification.boundaries import Boundary
from regrade.evaluators.verification.held_out_inputs import Call
from regrade.evaluators.verification.two_process import WorkerPair

MUTANTS = 12
"""Mutants of the reference, over all of its functions."""


class InputStrength(NamedTuple):
    """Mutants of the reference's functions, and those that answer an input differently."""

    mutants: int
    killed: int


def input_strength(
    pair: WorkerPair,
    task: Task,
    workspace: Workspace,
    boundary: Boundary,
    inputs: list[Call],
    expected: Sequence[Any],
    preparation: Preparation = UNPREPARED,
) -> InputStrength:
    """Plant single-line bugs in the functions that the reference changes, and count those that the inputs detect.

    Args:
        workspace: with the reference applied.
        expected: the reference's answers.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    mutated = list(_mutated_workspaces(workspace, boundary))
    killed = sum(
        bool(find_mismatches(inputs, expected, pair.answers(task, mutant, boundary, inputs, preparation)))
        for mutant in mutated
    )
    return InputStrength(len(mutated), killed)


def _mutated_workspaces(workspace: Workspace, boundary: Boundary) -> Iterator[Workspace]:
    by_function: list[list[Mutant]] = []
    for path, file in sorted(boundary.files.items()):
        names = {key.partition("#")[0] for key in (*file.changed, *file.added)}
        mutations = Mutations(workspace.after.read_or_none(path) or "", path)
        by_function += [
            [mutant for mutant in shuffled(mutations.of(function), 0) if mutations.differs(mutant)]
            for function in mutations.functions
            if function.name in names
        ]
    share = max(1, MUTANTS // max(1, len(by_function)))
    for mutant in [mutant for mutants in by_function for mutant in mutants[:share]][:MUTANTS]:
        after = replace(workspace.after, replaced={**workspace.after.replaced, mutant.file: mutant.source})
        yield replace(workspace, after=after)
