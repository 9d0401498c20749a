"""How sure a verdict is: what of it was seen where the candidate's code can't reach.

A verdict that is made in the candidate's own process is the candidate's to forge. So what passes there is tried again,
by the strongest of these means that the task allows:

- `tripwired`: copies of the tests that the candidate can't foresee come out as they must (`tripwires.py`).
- `out-of-process`: the tests pass in a process that holds none of the candidate's code (`split.py`).
- `held-out`: besides, the changed functions answer inputs that no test holds as the reference patch does.

What can be told of a task is found out with its reference patch: a test that does not pass out of process with the
reference says nothing there about any patch.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

from regrade.datasets.plurals import listed
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Worker
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.verification.answer_equality import differences, useful
from regrade.evaluators.verification.held_out_inputs import FEWEST, INPUTS, Call, new_inputs
from regrade.evaluators.verification.tripwires import spring
from regrade.evaluators.verification.two_process import (
    Boundary,
    TwoProcessRun,
    WorkerPair,
    boundary_at,
    boundary_of,
    joined,
    keys_beyond,
    without_judges,
)
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import TestRun, TestStatus, Verification

logger = logging.getLogger(__name__)
NOTHING_CLAIMED = "no FAIL_TO_PASS test passes, so there is nothing to verify"


@dataclass(frozen=True)
class ReferenceVerification:
    """What the reference patch shows about a task."""

    confirmed: tuple[str, ...]
    """Tests that pass out of process."""
    unconfirmed: tuple[tuple[str, str], ...]
    """The others, and why."""
    inputs: str
    """Held-out inputs that the reference answers without an error, as JSON."""
    answers: str
    """Its answers, as JSON."""

    def level(self, task: Task) -> AssuranceLevel:
        """The strongest level that a patch of this task can reach."""
        if not task.fail_to_pass or not set(task.fail_to_pass) <= set(self.confirmed):
            return AssuranceLevel.TRIPWIRED
        return AssuranceLevel.HELD_OUT if json.loads(self.inputs) else AssuranceLevel.OUT_OF_PROCESS

    def obstacle(self, task: Task) -> str:
        """Why a patch of this task can't be verified out of process; empty where it can."""
        others = dict(self.unconfirmed)
        missing = next((test for test in task.fail_to_pass if test not in self.confirmed), None)
        return "" if missing is None else f"{missing}: {others.get(missing) or 'it fails'}"


def calibrate(
    pair: WorkerPair, task: Task, workspace: Workspace, wanted: frozenset[str], preparation: Preparation = UNPREPARED
) -> ReferenceVerification:
    """What the reference, in its workspace, shows about the task and these of its tests.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    boundary = boundary_of(task, workspace)
    if not boundary.files:
        why = "the reference changes no function"
        return ReferenceVerification((), tuple((test, why) for test in sorted(wanted)), "[]", "[]")
    split = pair.run(task, workspace, boundary, wanted, preparation, observed=True)
    if not split.passed.issuperset(task.fail_to_pass):  # nor may it be a busy machine by which a task is judged
        again = pair.run(task, workspace, boundary, wanted, preparation, observed=True)
        split = max(split, again, key=lambda each: len(each.passed))
    inputs = new_inputs(split.calls, INPUTS)
    answers = repeated = []
    if inputs:
        answers = pair.answers(task, workspace, boundary, inputs, preparation)
        repeated = pair.answers(task, workspace, boundary, inputs, preparation)
    places = useful(inputs, answers, repeated)
    if len(places) < FEWEST or not _tell_apart(pair, task, boundary, inputs, answers, places, preparation):
        places = []
    return ReferenceVerification(
        tuple(sorted(split.passed)),
        tuple(sorted({**split.uncrossed, **split.failed}.items())),
        json.dumps([inputs[place] for place in places]),
        json.dumps([answers[place] for place in places]),
    )


def _tell_apart(
    pair: WorkerPair,
    task: Task,
    boundary: Boundary,
    inputs: list[Call],
    answers: list[Any],
    places: list[int],
    preparation: Preparation,
) -> bool:
    """Does the base answer any of the inputs otherwise? Else they show nothing of what was to be mended."""
    asked = [inputs[place] for place in places]
    expected = [answers[place] for place in places]
    found = pair.answers(task, Workspace(task.base, task.base), boundary, asked, preparation)
    return bool(differences(asked, expected, found, range(len(asked))))


@dataclass(frozen=True)
class Means:
    """By what a verdict is verified, for one thread and environment."""

    pair: WorkerPair
    worker: Worker
    preparation: Preparation = UNPREPARED


def verify(
    means: Means, task: Task, workspace: Workspace, run: TestRun, calibration: ReferenceVerification | None
) -> Verification:
    """How sure the run's verdict on the patch is.

    Args:
        run: what the tests said in the candidate's own process.
        calibration: None: the task has no reference.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    reachable = "" if calibration is None else calibration.level(task)
    if not run.fixed:
        return Verification(level=max(AssuranceLevel), reachable=reachable, why=NOTHING_CLAIMED)
    found = _out_of_process(means, task, workspace, run, calibration, reachable)
    if found.reaches(AssuranceLevel.OUT_OF_PROCESS):
        return found
    return _tripwired(means, task, workspace, run, found)


def _out_of_process(
    means: Means,
    task: Task,
    workspace: Workspace,
    run: TestRun,
    calibration: ReferenceVerification | None,
    reachable: str,
) -> Verification:
    claimed = frozenset(test for test, outcome in run.outcomes.items() if outcome.status is TestStatus.PASSED)
    if calibration is not None:
        if reachable == AssuranceLevel.TRIPWIRED:
            return Verification(
                level=AssuranceLevel.IN_PROCESS,
                reachable=reachable,
                why=f"nothing passes elsewhere: {calibration.obstacle(task)}",
            )
        claimed &= {*task.fail_to_pass, *calibration.confirmed}
    boundaries = _boundaries(task, workspace, calibration)
    if not boundaries[0][0].files:
        return Verification(level=AssuranceLevel.IN_PROCESS, reachable=reachable, why="the patch changes no function")
    # A machine that was busy is no reason to doubt a patch: what is found twice counts.
    for boundary, watched in 2 * boundaries:
        logger.debug("verification in two processes: task %s, %d tests", task.id, len(claimed))
        split = means.pair.run(task, workspace, boundary, claimed, means.preparation, watched=watched)
        against = _against(task, run, split, calibration)
        if watched and not against:
            against = _otherwise(means, task, run, boundary, split)
        if not against:
            break
    confirmed = tuple(sorted(split.passed))
    if against:
        refuted = tuple(sorted(against.items()))
        return Verification(
            level=AssuranceLevel.IN_PROCESS,
            reachable=reachable,
            confirmed=confirmed,
            refuted=refuted,
            why=_why(against, boundary),
        )
    inputs = [] if calibration is None else json.loads(calibration.inputs)
    if not inputs:
        why = f"{len(run.fixed)} FAIL_TO_PASS tests pass where the patch can't reach"
        return Verification(level=AssuranceLevel.OUT_OF_PROCESS, reachable=reachable, confirmed=confirmed, why=why)
    assert calibration is not None
    return _held_out(
        means,
        task,
        workspace,
        calibration,
        Verification(level=AssuranceLevel.OUT_OF_PROCESS, reachable=reachable, confirmed=confirmed),
    )


def _boundaries(
    task: Task, workspace: Workspace, calibration: ReferenceVerification | None
) -> list[tuple[Boundary, frozenset[str]]]:
    """Where the candidate's code may begin, the first choice first, and the functions to be watched there.

    At the functions that the reference changes, whatever the patch changes. Were it asked for others as well, it could
    answer for an equality or an assertion of the repository's, by which tests judge. Only if the tests do not pass so
    (the patch mends what calls the reference's functions) it is, and then these are watched. Without a reference there
    is nothing to watch by, so no equality and no assertion is asked of it.
    """
    own = boundary_of(task, workspace)
    if calibration is None:
        return [(without_judges(own), frozenset())]
    reference = boundary_at(workspace, boundary_of(task, reference_workspace(task)))
    found = [(reference, frozenset[str]())]
    beyond = keys_beyond(own, reference)
    if beyond:
        found.append((joined(reference, own), beyond))
    return found


def _otherwise(means: Means, task: Task, run: TestRun, boundary: Boundary, split: TwoProcessRun) -> dict[str, str]:
    """What is to be said against a patch whose watched functions answer the tests otherwise than with the reference.

    One that needs the tests' functions, or returns functions, can't be compared.
    """
    test = min(run.fixed)
    if split.unwatched:
        return {test: f"the reference does not change {split.unwatched[0].partition('#')[0]}, whose answers are open"}
    calls = [call for call, _ in split.watched]
    answers = means.pair.answers(task, reference_workspace(task), boundary, calls, means.preparation) if calls else []
    expected = [{name: value for name, value in answer.items() if name != "values"} for answer in answers]
    if len(expected) < len(calls):
        return {test: "the reference does not answer what functions that it does not change are asked"}
    apart = differences(calls, expected, [answer for _, answer in split.watched], range(len(calls)))
    return {test: f"with the reference, {apart[0]}"} if apart else {}


def _tripwired(means: Means, task: Task, workspace: Workspace, run: TestRun, found: Verification) -> Verification:
    """The next weaker level, where it holds."""
    claimed = frozenset(test for test, outcome in run.outcomes.items() if outcome.status is TestStatus.PASSED)
    logger.debug("verification by tripwires: task %s, %d tests", task.id, len(claimed))
    wires = spring(means.worker, task, workspace, run, claimed, None, means.preparation)
    if wires.sprung:
        _, test, why = wires.sprung[0]
        more = f" (and {len(wires.sprung) - 1} more)" if len(wires.sprung) > 1 else ""
        return replace(
            found,
            why=f"{test}: {why}{more}",
            sprung=tuple((test, f"{kind}: {why}") for kind, test, why in wires.sprung),
        )
    bare = dict(wires.untested).keys() & set(run.fixed)
    if bare:
        test = min(bare)
        return replace(found, why=f"{test}: {dict(wires.untested)[test]}; {found.why}")
    return replace(found, level=AssuranceLevel.TRIPWIRED, why=f"{wires.laid} tripwires hold; {found.why}")


def _held_out(
    means: Means, task: Task, workspace: Workspace, calibration: ReferenceVerification, found: Verification
) -> Verification:
    """Whether the patch answers the held-out inputs as the reference does."""
    inputs: list[Any] = json.loads(calibration.inputs)
    expected = json.loads(calibration.answers)
    # The functions that the reference changes are asked, whatever the patch changes.
    boundary = boundary_of(task, reference_workspace(task))
    apart: list[Any] = []
    for _ in range(2):
        logger.debug("verification by held-out inputs: task %s, %d inputs", task.id, len(inputs))
        answers = means.pair.answers(task, workspace, boundary, inputs, means.preparation)
        apart = differences(inputs, expected, answers, range(len(inputs)))
        if not apart:
            why = f"{len(inputs)} held-out inputs are answered as by the reference"
            return replace(found, level=AssuranceLevel.HELD_OUT, why=why, inputs=len(inputs))
    why = f"{len(apart)} of {len(inputs)} held-out inputs are not answered as by the reference, such as {apart[0]}"
    return replace(found, why=why, inputs=len(inputs))


def reference_workspace(task: Task) -> Workspace:
    """The task's reference, applied. Raises PatchError."""
    assert task.reference is not None
    return prepare(task, task.reference)


def _against(
    task: Task, run: TestRun, split: TwoProcessRun, calibration: ReferenceVerification | None
) -> dict[str, str]:
    """Test -> why its passing in the candidate's process is not believed.

    All FAIL_TO_PASS tests that pass there must pass out of process; of the others those that do with the reference.
    """
    others = {**split.uncrossed, **split.failed}
    must = set(run.fixed)
    if calibration is not None:
        must |= set(calibration.confirmed).intersection(task.pass_to_pass)
    return {test: why for test, why in others.items() if test in must}


def _why(against: dict[str, str], boundary: Boundary) -> str:
    tests = sorted(against)
    beyond = f" (the patch also changes {', '.join(boundary.beyond)})" if boundary.beyond else ""
    return f"{listed(tests, 1)} passes in the candidate's process only: {against[tests[0]] or 'it fails'}{beyond}"
