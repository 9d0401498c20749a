"""The assurance level of a verdict: how much of it was observed where the candidate's code can't reach.

The candidate's code can forge any verdict of its own process. So passing tests are verified by the strongest of these
means that the task allows:

- `tripwired`: copies of the tests, unknown to the candidate, have the expected outcomes (`tripwires.py`).
- `out-of-process`: the tests pass in a process without the candidate's code (`two_process.py`).
- `held-out`: besides, the changed functions answer inputs that no test contains as the reference patch does.

A level also holds for what it says of the tests that passed before: each PASS_TO_PASS test that ran passes in a process
without the candidate's code, or has tripwires. Otherwise a candidate could hide there what it breaks.

The reference patch shows which means a task allows (`reference_verification.py`): a test that does not pass out of
process with the reference is no evidence there about any patch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from regrade.datasets.plurals import listed
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.worker import without_candidate
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.verification.answer_checks import (
    DEPENDS,
    AnswerTraits,
    answer_traits,
    doubts,
    is_by_number,
)
from regrade.evaluators.verification.answer_equality import find_mismatches
from regrade.evaluators.verification.boundaries import (
    Boundary,
    boundary_at,
    boundary_for_calls,
    boundary_of,
    keys_only_in,
    merge_boundaries,
    without_oracles,
)
from regrade.evaluators.verification.reference_verification import (
    ReferenceVerification,
    WorkerSet,
    confirmed_by_all_functions,
    is_right,
    reference_workspace,
)
from regrade.evaluators.verification.tripwires import run_tripwires
from regrade.evaluators.verification.two_process import NO_CALL, TwoProcessRun
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import TestRun, TestStatus, Verification

logger = logging.getLogger(__name__)
NO_TEST_TO_VERIFY = "no FAIL_TO_PASS test passes, so there is nothing to verify"


def verify(
    workers: WorkerSet, task: Task, workspace: Workspace, run: TestRun, reference: ReferenceVerification | None
) -> Verification:
    """Verify the verdict of a test run on a patch.

    Args:
        run: the outcomes of the tests in the candidate's own process.
        reference: None: the task has no reference.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    reachable = "" if reference is None else reference.level(task)
    if not run.fixed:
        return Verification(level=max(AssuranceLevel), reachable=reachable, why=NO_TEST_TO_VERIFY)
    verification, boundary = _verify_out_of_process(workers, task, workspace, run, reference, reachable)
    if boundary is None:
        return verification
    if verification.reaches(AssuranceLevel.OUT_OF_PROCESS):
        return _confirm_others(workers, task, workspace, run, reference, verification, boundary)
    return _verify_by_tripwires(workers, task, workspace, _passing(run), reference, verification)


def _verify_out_of_process(
    workers: WorkerSet,
    task: Task,
    workspace: Workspace,
    run: TestRun,
    reference: ReferenceVerification | None,
    reachable: str,
) -> tuple[Verification, Boundary | None]:
    """The verification, and the functions that ran in the candidate's process; None: tripwires can't change it."""
    unassured = Verification(level=AssuranceLevel.IN_PROCESS, reachable=reachable)
    if reference is not None and not reference.is_confirmed(task):
        why = f"no patch can be verified out of process: {reference.obstacle(task)}"
        return replace(unassured, why=why), Boundary({})
    boundaries = _boundaries(task, workspace, reference)
    if not boundaries[0][0].files:
        return replace(unassured, why="the patch changes no function"), Boundary({})
    passing = _passing(run)
    if reference is not None:
        passing &= {*task.fail_to_pass, *reference.confirmed}
    # A busy machine is no evidence against a patch: only a second refutation counts.
    for boundary, watched in 2 * boundaries:
        logger.debug("verification in two processes: task %s, %d tests", task.id, len(passing))
        split = workers.pair.run(task, workspace, boundary, passing, workers.preparation)
        refuted = _refuted_tests(task, run, split, reference)
        if watched and not refuted:
            refuted = _mismatches_of_watched(workers, task, run, boundary, split, watched)
        if not refuted:
            break
    confirmed = tuple(sorted(split.passed))
    if refuted:
        obstacles = _obstacles_at_base(workers, task, boundary, split, refuted) if reference is None else {}
        if obstacles:
            refuted = {test: why for test, why in refuted.items() if test not in obstacles}
            test = min(obstacles)
            why = (
                f"this task does not allow out-of-process: at the base too, {test} does not run so: {obstacles[test]}; "
                "require tripwired at most"
            )
        else:
            why = _refutation(refuted, split, boundary)
        return replace(unassured, confirmed=confirmed, refuted=tuple(sorted(refuted.items())), why=why), boundary
    found = _doubts(workers, task, workspace, boundary, split, reference)
    if found and _doubts(workers, task, workspace, boundary, split, reference):
        why = f"the tests pass by answers that do not count: {found[0]}"
        refuted = dict.fromkeys(run.fixed, found[0])
        refutation = replace(unassured, confirmed=confirmed, refuted=tuple(sorted(refuted.items())), why=why)
        # Whether a fix may remember, only a reference shows.
        return refutation, boundary if reference is None and DEPENDS in found[0] else None
    why = f"{len(run.fixed)} FAIL_TO_PASS tests pass out of process"
    assured = Verification(level=AssuranceLevel.OUT_OF_PROCESS, reachable=reachable, confirmed=confirmed, why=why)
    if reference is None or not reference.has_strong_inputs:
        return assured, boundary
    return _verify_by_held_out_inputs(workers, task, workspace, reference, assured), boundary


def _confirm_others(
    workers: WorkerSet,
    task: Task,
    workspace: Workspace,
    run: TestRun,
    reference: ReferenceVerification | None,
    verification: Verification,
    boundary: Boundary,
) -> Verification:
    """The verification, if the PASS_TO_PASS tests that pass do so without the candidate's code, or have tripwires.

    Out of process, the tests ran on the base's version of all that is outside of the boundary. So where the patch
    changes more than that, none of them is evidence about it, and the patch's own functions join the boundary.
    """
    own = boundary_of(task, workspace)
    rest = _passing(run).intersection(task.pass_to_pass)
    is_covered = not own.beyond and not keys_only_in(own, boundary)
    confirmed = set(verification.confirmed)
    if not is_covered and not own.beyond:
        merged = without_oracles(merge_boundaries(boundary, own))
        confirmed = set(workers.pair.run(task, workspace, merged, rest, workers.preparation).passed)
        is_covered = not keys_only_in(own, merged)
    if is_covered:
        rest -= confirmed
    if not rest:
        return verification
    logger.debug("confirmation of PASS_TO_PASS by tripwires: task %s, %d tests", task.id, len(rest))
    confirmation = _verify_by_tripwires(workers, task, workspace, rest, reference, replace(verification, why=""))
    if confirmation.level == AssuranceLevel.TRIPWIRED:
        return verification
    return confirmation


def _boundaries(
    task: Task, workspace: Workspace, reference: ReferenceVerification | None
) -> list[tuple[Boundary, frozenset[str]]]:
    """The boundaries to try, in order, each with the functions to watch there.

    The first has the functions that the reference changes, whatever the patch changes. With other functions of its own
    the candidate could answer for an equality or an assertion of the repository, by which tests judge. If the tests do
    not pass so (the patch fixes callers of the reference's functions), the second adds its own functions, watched.
    Without a reference there is no answer to compare with, so the candidate answers no equality and no assertion.
    """
    own = boundary_of(task, workspace)
    if reference is None:
        return [(without_oracles(own), frozenset())]
    of_reference = boundary_at(workspace, boundary_of(task, reference_workspace(task)))
    boundaries = [(of_reference, frozenset[str]())]
    watched = keys_only_in(own, of_reference)
    if watched:
        boundaries.append((merge_boundaries(of_reference, own), watched))
    return boundaries


def _doubts(
    workers: WorkerSet,
    task: Task,
    workspace: Workspace,
    boundary: Boundary,
    split: TwoProcessRun,
    reference: ReferenceVerification | None,
) -> list[str]:
    """Reasons why the answers of the patch to the tests do not count: see `answer_checks.py`."""
    pair, preparation = workers.pair, workers.preparation
    if reference is not None:
        trusted = reference_workspace(task)
        of_reference = boundary_of(task, trusted)
        split = split.without(keys_only_in(boundary, of_reference))  # these were compared with the reference
        return doubts(pair, task, workspace, trusted, boundary, split, reference.traits, preparation)
    base = Workspace(task.base, task.base)
    split = split.without(frozenset(key for file in boundary.files.values() for key in file.added))
    found = doubts(pair, task, workspace, base, boundary, split, AnswerTraits(), preparation)
    if not found:
        return found
    with without_candidate():
        there = boundary_at(base, boundary)
        at_base = pair.run(task, base, there, frozenset(task.tests), preparation)
        traits = answer_traits(pair, task, base, there, at_base, preparation)
    return doubts(pair, task, workspace, base, boundary, split, traits, preparation)


def _mismatches_of_watched(
    workers: WorkerSet,
    task: Task,
    run: TestRun,
    boundary: Boundary,
    split: TwoProcessRun,
    watched: frozenset[str],
) -> dict[str, str]:
    """Test -> evidence against the patch: its watched functions answer the tests differently than with the reference.

    A function that needs functions of the tests, or returns functions, can't be compared.
    """
    test = min(run.fixed)
    answered = [each for each in split.answered if each[0][0][1] in watched]
    uncompared = [call[0][1] for call, answer in answered if is_by_number((call, answer))]
    if uncompared or split.unrecorded & watched:
        name = min([*uncompared, *(split.unrecorded & watched)]).partition("#")[0]
        return {test: f"the reference does not change {name}, and its answers can't be compared"}
    calls = [call for call, _ in answered]
    reference = reference_workspace(task)
    with without_candidate():
        boundary = boundary_for_calls(reference, boundary)
        answers = workers.pair.answers(task, reference, boundary, calls, workers.preparation) if calls else []
    expected = [{name: value for name, value in answer.items() if name != "values"} for answer in answers]
    if len(expected) < len(calls):
        return {test: "the reference does not answer the calls of functions that it does not change"}
    mismatches = find_mismatches(calls, expected, [answer for _, answer in answered])
    return {test: f"with the reference, {mismatches[0]}"} if mismatches else {}


def _verify_by_tripwires(
    workers: WorkerSet,
    task: Task,
    workspace: Workspace,
    passing: frozenset[str],
    reference: ReferenceVerification | None,
    verification: Verification,
) -> Verification:
    """The level `tripwired`, if each of these tests has a tripwire and none is triggered; else `in-process`."""
    logger.debug("verification by tripwires: task %s, %d tests", task.id, len(passing))
    invalid = frozenset(reference.invalid if reference is not None else ())
    report = run_tripwires(workers.worker, task, workspace, passing, invalid, workers.preparation)
    before = f"; {verification.why}" if verification.why else ""
    unassured = replace(verification, level=AssuranceLevel.IN_PROCESS)
    if report.triggered:
        _, test, why = report.triggered[0]
        more = f" (and {len(report.triggered) - 1} more)" if len(report.triggered) > 1 else ""
        triggered = tuple((test, f"{kind}: {why}") for kind, test, why in report.triggered)
        return replace(unassured, why=f"{test}: {why}{more}", sprung=triggered)
    untested = dict(report.untested)
    if untested.keys() <= set(task.pass_to_pass) - set(task.fail_to_pass):
        own = boundary_of(task, workspace)
        for confirmed in confirmed_by_all_functions(workers, task, workspace, own, untested):
            del untested[confirmed]
    if untested:
        test = min(untested.keys() & set(task.fail_to_pass) or untested)
        why = f"{len(untested)} of the tests that pass are not confirmed: {test}: {untested[test]}{before}"
        return replace(unassured, unconfirmed=tuple(sorted(untested)), why=why)
    why = f"{report.valid} tripwires behave as expected{before}"
    return replace(verification, level=AssuranceLevel.TRIPWIRED, why=why)


def _verify_by_held_out_inputs(
    workers: WorkerSet, task: Task, workspace: Workspace, reference: ReferenceVerification, verification: Verification
) -> Verification:
    """The next stronger level, if the patch answers the held-out inputs as the reference does."""
    inputs: list[Any] = json.loads(reference.inputs)
    expected = json.loads(reference.answers)
    # The calls go to the functions that the reference changes, whatever the patch changes.
    boundary = boundary_for_calls(workspace, boundary_of(task, reference_workspace(task)))
    mismatches: list[Any] = []
    for _ in range(2):
        logger.debug("verification by held-out inputs: task %s, %d inputs", task.id, len(inputs))
        answers = workers.pair.answers(task, workspace, boundary, inputs, workers.preparation)
        mismatches = find_mismatches(inputs, expected, answers)
        wrong = reference.wrong_at_base
        corrected = sum(is_right(index, inputs, expected, answers) for index in wrong)
        verification = replace(verification, inputs=len(inputs), wrong_at_base=len(wrong), corrected=corrected)
        if not mismatches:
            detected = f"they detect {reference.killed} of {reference.mutants} bugs planted in the reference"
            why = f"{len(inputs)} held-out inputs get the reference's answers; {detected}"
            return replace(verification, level=AssuranceLevel.HELD_OUT, why=why)
    why = f"{len(mismatches)} of {len(inputs)} held-out inputs get other answers than the reference's: {mismatches[0]}"
    return replace(verification, why=why)


def _passing(run: TestRun) -> frozenset[str]:
    return frozenset(test for test, outcome in run.outcomes.items() if outcome.status is TestStatus.PASSED)


def _refuted_tests(
    task: Task, run: TestRun, split: TwoProcessRun, reference: ReferenceVerification | None
) -> dict[str, str]:
    """Test -> reason why its pass in the candidate's process does not count.

    All FAIL_TO_PASS tests that pass there must pass out of process, and of the other tests those that do with the
    reference.
    """
    required = set(run.fixed)
    if reference is not None:
        required |= set(reference.confirmed).intersection(task.pass_to_pass)
    return {test: why for test, why in {**split.inconclusive, **split.failed}.items() if test in required}


def _obstacles_at_base(
    workers: WorkerSet, task: Task, boundary: Boundary, split: TwoProcessRun, refuted: Mapping[str, str]
) -> dict[str, str]:
    """Test -> reason why it does not run out of process with the code of the base either, so that the task is at fault.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    tests = frozenset(test for test in refuted if split.inconclusive.get(test, NO_CALL) != NO_CALL)
    if not tests:
        return {}
    base = Workspace(task.base, task.base)
    with without_candidate():
        run = workers.pair.run(task, base, boundary_at(base, boundary), tests, workers.preparation)
    return {test: why for test, why in run.inconclusive.items() if why != NO_CALL}


def _refutation(refuted: dict[str, str], split: TwoProcessRun, boundary: Boundary) -> str:
    tests = sorted(refuted)
    beyond = f" (the patch also changes {', '.join(boundary.beyond)})" if boundary.beyond else ""
    what = "does not run out of process" if tests[0] in split.inconclusive else "passes in the candidate's process only"
    return f"{listed(tests, 1)} {what}: {refuted[tests[0]] or 'it fails'}{beyond}"
