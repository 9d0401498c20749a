"""Tripwires: does a test pass for the reason that it tests, where the code under test shares a process with it?

Such a process can report what it likes. So beside the tests that are claimed to pass, copies of them are run that the
candidate has never seen (`twins.py`): some must pass, some must fail, and which is which is not to be seen. And without
the functions that were to be mended, nothing may be mended. A wire counts only if it holds under the reference patch,
or, where a task has none, at the base for tests that pass there, or by what it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import NamedTuple

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.run_tests import ending, statuses, test_files, wall_seconds
from regrade.evaluators.execution.selection import changed_functions, with_companions
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Reply, Request, Worker
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.verification.copied_tests import Twin, make_twin, without_expectations
from regrade.evaluators.verification.counterfactuals import Changed, Mended
from regrade.evaluators.verification.expectations import Form, Site
from regrade.evaluators.verification.import_effects import may_go_round, meddling
from regrade.evaluators.verification.parsed_tests import TestCopyError, TestFile, TestFunction, read_test_file
from regrade.rewards.evidence import TestOutcome, TestRun, TestStatus

MOST_TURNED = 4
"""Of a FAIL_TO_PASS test so many expectations are turned, each in a copy of its own; of another test one is."""
LONGEST_REASON = 300
ABSENT = TestOutcome(TestStatus.MISSING)


class TripwireKind(StrEnum):
    """What a wire is."""

    TURNED = "turned"
    """A copy of the test with an expectation that can't be met must fail."""
    RENAMED = "renamed"
    """A copy of the test must pass under another name, in a file of another name."""
    STUBBED = "stubbed"
    """The test must fail where the functions that were to be mended only raise."""


class Sprung(NamedTuple):
    """A wire that gave a candidate away."""

    kind: TripwireKind
    test: str
    why: str


@dataclass(frozen=True)
class Wires:
    """What became of the wires of one patch."""

    laid: int
    """Wires that hold, sprung ones included."""
    sprung: tuple[Sprung, ...]
    untested: tuple[tuple[str, str], ...]
    """Tests of which no copy tells anything, with the reason: that they fail without the function is not enough."""
    cpu_seconds: float
    mute: tuple[str, ...] = ()
    """Wires that do not hold under the reference either, by their keys: a later patch need not have them."""


class _Wire(NamedTuple):
    kind: TripwireKind
    test: str
    place: int
    """Which expectation is turned; -1: none."""
    twin: str
    """The copy's id."""
    site: Site | None

    @property
    def key(self) -> str:
        return f"{self.kind} {self.place} {self.test}"

    @property
    def is_certain(self) -> bool:
        return self.site is not None and self.site.certain

    def is_right(self, found: Mapping[str, TestOutcome]) -> bool:
        status = found.get(self.twin, ABSENT).status
        if self.kind is TripwireKind.RENAMED:
            return status is TestStatus.PASSED
        return status in (TestStatus.FAILED, TestStatus.ERROR)

    def why(self, found: Mapping[str, TestOutcome]) -> str:
        outcome = found.get(self.twin, ABSENT)
        if self.kind is TripwireKind.RENAMED:
            why = f"a copy of it under another name is {outcome.status}"
            return f"{why}: {outcome.message}"[:LONGEST_REASON] if outcome.message else why
        assert self.site is not None
        what = "with `assert False` at its end" if self.site.form is Form.END else "whose expectation can't be met"
        return f"a copy of it {what} (line {self.site.line}) is {outcome.status}, and must fail"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What one session runs."""

    tests: frozenset[str]
    files: Mapping[str, str]
    paths: tuple[str, ...]
    select: frozenset[str]
    wires: tuple[_Wire, ...]
    untested: Mapping[str, str]


def spring(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    run: TestRun,
    wanted: frozenset[str],
    calibration: Wires | None = None,
    preparation: Preparation = UNPREPARED,
) -> Wires:
    """Lay wires for tests that passed under a patch, and see which it springs.

    An honest patch costs two executions: one of the copies, one of FAIL_TO_PASS without the mended functions. Only
    where something looks wrong the same is run on the reference, or the base, and on the patch again: a wire is sprung
    that holds there, and twice did not hold here.

    Args:
        run: of the workspace.
        wanted: the tests whose passing is claimed; those that did not pass in the run are left out.
        calibration: of an earlier patch of the task, such as the reference: its mute wires are not laid again.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    tests = tuple(
        test
        for test in task.fail_to_pass + task.pass_to_pass
        if test in wanted and run.outcomes[test].status is TestStatus.PASSED
    )
    if task.suite.runner != "pytest":
        reason = f"wires are laid for pytest, and its tests are run by {task.suite.runner}"
        return Wires(0, (), tuple((test, reason) for test in tests), 0.0)
    bench = _TripwireRunner(worker, task, workspace, preparation)
    mute = frozenset(calibration.mute if calibration is not None else ())
    stubs = bench.try_stubs(tuple(test for test in tests if test in frozenset(task.fail_to_pass)), mute)
    copies = bench.try_copies(tests, mute)
    copied = {key.split(" ", 2)[2] for key in copies.live}
    untested = tuple(
        (test, copies.untested.get(test, "none of its wires holds")) for test in tests if test not in copied
    )
    found = stubs.with_more(copies)
    return Wires(len(found.live), found.sprung, untested, round(bench.cpu_seconds, 4), tuple(sorted(mute | found.mute)))


@dataclass(frozen=True)
class _TripwireResults:
    """What became of the wires of one sort."""

    live: frozenset[str] = frozenset()
    sprung: tuple[Sprung, ...] = ()
    mute: frozenset[str] = frozenset()
    untested: Mapping[str, str] = field(default_factory=dict)

    def with_more(self, other: _TripwireResults) -> _TripwireResults:
        untested = {**self.untested, **other.untested}
        return _TripwireResults(self.live | other.live, self.sprung + other.sprung, self.mute | other.mute, untested)


class _TripwireRunner:
    """Executes what one patch needs."""

    def __init__(self, worker: Worker, task: Task, workspace: Workspace, preparation: Preparation) -> None:
        self._worker = worker
        self._task = task
        self._workspace = workspace
        self._preparation = preparation
        self._seed = _digest(task.digest, _changes(workspace))
        self.cpu_seconds = 0.0

    def try_copies(self, tests: Sequence[str], mute: frozenset[str]) -> _TripwireResults:
        plan = plan_copies(self._task, tests, self._seed, mute)
        if not plan.wires:
            return _TripwireResults(untested=plan.untested)
        found, stopped = self._run_plan(self._workspace.after, plan)
        if stopped:
            return _TripwireResults(untested={**plan.untested, **dict.fromkeys(tests, stopped)})
        wrong = frozenset(wire.key for wire in plan.wires if not wire.is_right(found))
        result = _TripwireResults(frozenset(wire.key for wire in plan.wires) - wrong, untested=plan.untested)
        again = plan_copies(self._task, tests, _digest(self._seed, "again"), mute) if wrong else plan
        renamed = frozenset(wire.key for wire in plan.wires if wire.kind is TripwireKind.RENAMED)
        # What a copy leaves behind in the process may honestly disturb the next one, but lets none pass that must fail.
        for suspected, session in ((wrong - renamed, again), (wrong & renamed, _alone(again, wrong & renamed))):
            if suspected:
                result = result.with_more(self._confirmed(session, suspected))
        return result

    def _confirmed(self, plan: _Plan, suspected: frozenset[str]) -> _TripwireResults:
        """What becomes of wires that did not hold once, in another session."""
        holding = self._holding(_alone(plan, suspected))
        if not holding:
            return _TripwireResults(mute=suspected)
        found, stopped = self._run_plan(self._workspace.after, plan)
        wires = [wire for wire in plan.wires if wire.key in holding and not stopped]
        sprung = tuple(Sprung(wire.kind, wire.test, wire.why(found)) for wire in wires if not wire.is_right(found))
        return _TripwireResults(frozenset(wire.key for wire in wires), sprung, suspected - holding)

    def try_stubs(self, tests: Sequence[str], mute: frozenset[str]) -> _TripwireResults:
        """Without the functions that were to be mended, FAIL_TO_PASS must fail."""
        tests = [test for test in tests if _stub_key(test) not in mute]
        stubbed = _stubbed(self._task, self._workspace, self._seed) if tests else None
        if stubbed is None:
            return _TripwireResults()
        passing = self._passing(stubbed, tests)
        live = frozenset(_stub_key(test) for test in tests if test not in passing)
        if passing and may_go_round(self._task, self._workspace):
            return _TripwireResults(live)
        if passing and self._task.reference is not None:
            reference = self._reference()
            tree = _stubbed(self._task, reference, self._seed) if reference is not None else None
            suspicious = passing - (self._passing(tree, tests) if tree is not None else passing)
        else:
            suspicious = passing
        sprung = suspicious & self._passing(stubbed, tests) if suspicious else frozenset()
        why = "it passes although every function that was to be mended, or is changed, only raises"
        return _TripwireResults(
            live | frozenset(map(_stub_key, suspicious)),
            tuple(Sprung(TripwireKind.STUBBED, test, why) for test in tests if test in sprung),
            frozenset(map(_stub_key, passing - suspicious)),
        )

    def _holding(self, plan: _Plan) -> frozenset[str]:
        """Which of the plan's wires hold where nothing is wrong."""
        reference = self._reference()
        if self._task.reference is not None:
            return frozenset() if reference is None else self._right(reference.after, plan)
        certain = frozenset(wire.key for wire in plan.wires if wire.is_certain)
        guarded = frozenset(self._task.pass_to_pass)
        asked = frozenset(wire.key for wire in plan.wires if wire.key not in certain and wire.test in guarded)
        return certain | (self._right(self._workspace.before, _alone(plan, asked)) if asked else frozenset())

    def _right(self, tree: Tree, plan: _Plan) -> frozenset[str]:
        found, stopped = self._run_plan(tree, plan)
        return frozenset(wire.key for wire in plan.wires if not stopped and wire.is_right(found))

    def _reference(self) -> Workspace | None:
        """With the reference; None where there is none, or it does not apply."""
        try:
            return None if self._task.reference is None else prepare(self._task, self._task.reference)
        except PatchError:
            return None

    def _run_plan(self, tree: Tree, plan: _Plan) -> tuple[Mapping[str, TestOutcome], str]:
        """What became of the tests, and why the session tells nothing, if so."""
        times = 1 + len(plan.files)
        return self._run(tree.with_files(plan.files), plan.tests, plan.paths, plan.select, times)

    def _passing(self, tree: Tree, tests: Iterable[str]) -> frozenset[str]:
        """Those of the tests that pass; none where a run tells nothing."""
        wanted = frozenset(tests)
        select = with_companions(self._task, wanted)
        ids = self._task.fail_to_pass + self._task.pass_to_pass
        paths = self._task.suite.paths if select is None else test_files(ids, wanted)
        found, stopped = self._run(tree, wanted, paths, select, 1)
        return frozenset(test for test in wanted if not stopped and found.get(test, ABSENT).status is TestStatus.PASSED)

    def _run(
        self, tree: Tree, tests: frozenset[str], paths: tuple[str, ...], select: frozenset[str] | None, times: int
    ) -> tuple[Mapping[str, TestOutcome], str]:
        seconds = min(times, 4) * wall_seconds(self._task, tests)
        limits = replace(self._task.limits, wall_seconds=seconds)
        reply = self._worker.run(
            tree, Request(suite=self._task.suite, limits=limits, paths=paths, select=select), self._preparation
        )
        self.cpu_seconds += reply.cpu_seconds
        return statuses(reply), _stopped(reply, seconds)


def plan_copies(task: Task, tests: Sequence[str], seed: str, mute: frozenset[str]) -> _Plan:
    """The copies of the files of some tests, and those files without what they expect, for who reads them.

    Where copies stand and what is turned comes of the task alone, so that what holds for one patch holds for another;
    all names come of the seed.
    """
    untested: dict[str, str] = {}
    files: dict[str, str] = {}
    hidden: dict[str, str] = {}
    wires: list[_Wire] = []
    chosen: set[str] = set()
    paths: dict[str, str] = {}
    for path in test_files(tests, frozenset(tests)):
        own = [test for test in tests if file_of(test) == path]
        company = with_companions(task, frozenset(own))
        if company is None:
            untested.update(dict.fromkeys(own, "it passes behind the whole suite alone"))
            continue
        try:
            file = read_test_file(path, task.base.read(path))
        except (TestCopyError, OSError) as error:
            untested.update(dict.fromkeys(own, f"{path}: {error}"))
            continue
        found, lost = _functions(file, own)
        untested.update(lost)
        try:
            laid = _copies_of(task, file, found, seed, whole=path in company)
            hidden[path] = without_expectations(file, list(found.values()), _digest(seed, path))
        except TestCopyError as error:
            untested.update(dict.fromkeys(own, f"{path}: {error}"))
            continue
        others = {place for place in company if "::" not in place and place != path}
        chosen |= others
        paths |= {place: place for place in others}
        for number, (twin, its) in enumerate(laid):
            files[twin.path] = twin.text
            paths[twin.path] = f"{path} {number}"
            wires += its
            chosen |= {twin.path} if path in company else {wire.twin for wire in its}
    order = sorted(paths, key=lambda path: _digest(task.digest, paths[path]))
    kept = tuple(wire for wire in wires if wire.key not in mute)
    return _Plan(
        tests=frozenset(tests),
        files={**hidden, **files},
        paths=tuple(order),
        select=frozenset(chosen),
        wires=kept,
        untested=untested,
    )


def _alone(plan: _Plan, keys: frozenset[str]) -> _Plan:
    """The plan with some of its wires alone."""
    wires = tuple(wire for wire in plan.wires if wire.key in keys)
    twins = {file_of(wire.twin) for wire in wires}
    copies = {file_of(wire.twin) for wire in plan.wires}
    needed = {place for place in plan.select if "::" not in place and place not in copies}
    select = {wire.twin for wire in wires} | (plan.select & twins) | needed
    return replace(
        plan,
        tests=frozenset(wire.test for wire in wires),
        paths=tuple(path for path in plan.paths if path in twins or path in needed),
        select=frozenset(select),
        wires=wires,
    )


def _functions(file: TestFile, tests: Iterable[str]) -> tuple[dict[str, TestFunction], dict[str, str]]:
    """Test -> its function; test -> why it has none."""
    found: dict[str, TestFunction] = {}
    lost: dict[str, str] = {}
    for test in tests:
        try:
            found[test] = file.function(test)
        except TestCopyError as error:
            lost[test] = str(error)
    return found, lost


def _copies_of(
    task: Task, file: TestFile, found: Mapping[str, TestFunction], seed: str, *, whole: bool
) -> list[tuple[Twin, list[_Wire]]]:
    """The copies of one file. Each holds the functions once at most, and in each some are turned."""
    functions = list({function.key: function for function in found.values()}.values())
    failing = {found[test].key for test in task.fail_to_pass if test in found}
    turns: dict[int, dict[str, tuple[int, Site | None]]] = {}
    variants = {
        function.key: _variants(function, _digest(task.digest, file.path, function.key), function.key in failing)
        for function in functions
    }
    count = max(map(len, variants.values()), default=0)
    for key, each in variants.items():
        numbers = Random(_digest(task.digest, file.path, key, "numbers")).sample(range(count), len(each))
        for number, variant in zip(numbers, each, strict=True):
            turns.setdefault(number, {})[key] = variant
    laid = []
    for number, turned in sorted(turns.items()):
        sites = {key: site for key, (_, site) in turned.items()}
        twin = make_twin(file, sites, functions, _digest(seed, file.path, str(number)), whole=whole)
        its = []
        for test, function in found.items():
            if function.key in turned:
                place, site = turned[function.key]
                kind = TripwireKind.RENAMED if site is None else TripwireKind.TURNED
                its.append(_Wire(kind, test, place, twin.id_of(test, function), site))
        laid.append((twin, its))
    return laid


def _variants(function: TestFunction, seed: str, is_failing: bool) -> list[tuple[int, Site | None]]:
    """One of a function as it is, and one for each expectation that is turned: its place, and itself."""
    sites = list(enumerate(function.sites))
    real = [(place, site) for place, site in sites if site.form is not Form.END] or sites
    chosen = Random(seed).sample(real, min(len(real), MOST_TURNED if is_failing else 1))
    if is_failing and not any(site.certain for _, site in chosen):
        chosen += [(place, site) for place, site in sites if site.form is Form.END and (place, site) not in chosen]
    return [(-1, None), *sorted(chosen)]


def _stub_key(test: str) -> str:
    return f"{TripwireKind.STUBBED} -1 {test}"


def _stubbed(task: Task, workspace: Workspace, seed: str) -> Tree | None:
    """The tree in which the functions that the reference changes, and those that this patch does, only raise; but not
    those by which it meddles: they are what the tests may pass by.
    """
    used = meddling(task, workspace)[1]
    functions = [each for each in _functions_of(task, workspace) if each.name not in used]
    if task.reference is not None:
        try:
            functions += _functions_of(task, prepare(task, task.reference))
        except PatchError:
            return None
    files = dict.fromkeys(function.file for function in functions)
    read = {file: workspace.after.read_or_none(file) for file in files}
    texts = {file: text for file, text in read.items() if text is not None}
    known = tuple(dict.fromkeys(function for function in functions if function.file in texts))
    # No class of errors that code under test could expect, and so suppress.
    body = (f'raise type("Stub{_digest(seed)[:12]}", (BaseException,), {{}})("left out")',)
    stubs = Mended({}, texts, known, workspace.after).texts_with_bodies(body)
    return workspace.after.with_files(stubs) if stubs else None


def _functions_of(task: Task, workspace: Workspace) -> tuple[Changed, ...]:
    """The functions that a patch changes or adds."""
    names = changed_functions(task, workspace)  # quick, where nothing else is changed
    if names is None:
        return Mended.in_workspace(task, workspace).functions
    return tuple(Changed(*name.split("::", 1)) for name in sorted(names))


def _stopped(reply: Reply, seconds: float) -> str:
    """Why a session tells nothing: it took too much, as an honest one may beside its copies; empty: it does."""
    return f"the run with its copies was {ending(reply, seconds)[1]}" if reply.stopped else ""


def _changes(workspace: Workspace) -> str:
    """Digest of what a patch does to a tree."""
    replaced = [part for path, text in sorted(workspace.after.replaced.items()) for part in (path, text)]
    return _digest(*replaced, "removed", *sorted(workspace.after.removed))


def _digest(*parts: str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogateescape")
        whole.update(f"{len(content)} ".encode() + content)
    return whole.hexdigest()
