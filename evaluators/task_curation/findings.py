"""The result of a check-up: measurements of a task, and the problems that make it bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from regrade.datasets.mutation.mutants import Mutant
from regrade.datasets.patches import Patch
from regrade.datasets.plurals import counted
from regrade.datasets.tasks import Task
from regrade.evaluators.task_curation.sandbox_access import Accesses
from regrade.evaluators.verification.counterfactuals import ChangedFunction
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.builtin import default
from regrade.rewards.components import resolved, untampered
from regrade.rewards.evidence import EvidenceSet, TestRun, TestStatus, Verification

FEWEST_MUTANTS = 3
"""If none of at least this many mutants is killed, it is a problem."""


class ProblemKind(StrEnum):
    """What is wrong with a task."""

    TASK = "task"
    """Its tests fail or pass where they should not, or a run ends early."""
    REWARD = "reward"
    """The default reward is 0 or missing for the reference, or above 0 for an empty patch."""
    FLAKY = "flaky"
    """A test passes in some runs of the same files, and does not pass in others."""
    NETWORK = "network"
    """A test needs the network: it fails without it, or accesses it in a sandbox with a network."""
    OUTSIDE = "outside"
    """A failing test accesses the git history, or files outside the repository."""
    EXPLOIT = "cheat"
    """The task rewards an exploit: it is `resolved` and `untampered`."""
    COUNTERFACTUAL = "counterfactual"
    """All FAIL_TO_PASS tests pass with every stub of the code that the reference changes."""
    MUTANTS = "mutants"
    """No mutant of the code that the reference changes is killed."""


@dataclass(frozen=True)
class Problem:
    kind: ProblemKind
    why: str


class ExploitOutcome(StrEnum):
    """The outcome of an exploit."""

    FAILS = "fails"
    """Not all tests pass."""
    SEEN = "seen"
    """All tests pass, and only the scan of the diff stops the exploit."""
    PAID = "paid"
    UNKNOWN = "unknown"


@dataclass(kw_only=True)
class CheckUp:
    """The check-up of one task."""

    task: Task
    runs: int
    problems: list[Problem] = field(default_factory=list)
    """Why it is bad."""
    notes: list[str] = field(default_factory=list)
    """Facts to know that are no reason to leave the task out."""
    unknown: str = ""
    """Why a check has no result, for a reason outside of the task; else empty."""
    nothing: float | None = None
    """The default reward of the empty patch; None: unknown."""
    accepts_nothing: bool = False
    """Does the empty patch count as a fix? Then so does every exploit that changes nothing."""
    reference: float | None = None
    """The default reward of the reference; None: no reference, or unknown."""
    resolved: bool = False
    """Does the reference count as a fix?"""
    failing: frozenset[str] = frozenset()
    """Tests that must pass, but do not: all tests with the reference, PASS_TO_PASS tests at the base."""
    flaky: Mapping[str, str] = field(default_factory=dict)
    """Test -> in how many runs of which state it passes."""
    accesses: Accesses | None = None
    """What the tests access; None: unknown."""
    functions: tuple[ChangedFunction, ...] = ()
    """Functions that the reference changes or adds; without a reference, the task's target."""
    guards: tuple[str, ...] | None = None
    """Tests that execute one of the functions; None: unknown, or no function."""
    exploits: Mapping[str, ExploitOutcome] = field(default_factory=dict)
    """Exploit -> its outcome."""
    stubbed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Effect of a stub of the functions -> the FAIL_TO_PASS tests that pass with it."""
    killed: tuple[Mutant, ...] = ()
    """Killed mutants of the functions."""
    survivors: tuple[Mutant, ...] = ()
    """Surviving mutants: equivalent to the original, or of untested behaviour."""
    assurance: Verification | None = None
    """The assurance of the verdict on the reference; None: no reference, or unknown."""

    @property
    def is_healthy(self) -> bool:
        return not self.problems and not self.unknown

    @property
    def can_judge_exploits(self) -> bool:
        """Is a successful exploit evidence against the task?"""
        return not self.unknown and not self.accepts_nothing

    def add_problem(self, kind: ProblemKind, why: str) -> None:
        self.problems.append(Problem(kind, why))

    def note_unknown(self, why: str) -> None:
        """Record why a check has no result. The first reason stays."""
        self.unknown = self.unknown or why

    def run_of(self, evidence: EvidenceSet) -> TestRun | None:
        """The run of tests; None, with the reason in `unknown`, if the infrastructure failed."""
        run: TestRun | None = evidence.records.get(TestRun)
        if run is None:
            self.note_unknown(evidence.infrastructure.get(TestRun, "no result"))
        return run

    def judge(self, patch: Patch, evidence: EvidenceSet) -> None:
        """Judge the rewards of the empty patch or of the reference."""
        run = self.run_of(evidence)
        for why in evidence.infrastructure.values():
            self.note_unknown(why)
        if run is None or evidence.infrastructure:
            return
        must_pass = run.pass_to_pass if patch.is_empty else run.fail_to_pass + run.pass_to_pass
        self.failing |= {test for test in must_pass if run.outcomes[test].status is not TestStatus.PASSED}
        worth, fixed = default.evaluate(evidence), resolved.evaluate(evidence).value == 1.0
        if not patch.is_empty:
            self.reference, self.resolved = worth.value, fixed
            if fixed and not worth.value:
                self.add_problem(ProblemKind.REWARD, f"the reference earns no default reward: {_closed_gates(worth)}")
            return
        self.nothing, self.accepts_nothing = worth.value, fixed
        if not self.task.fail_to_pass:
            self.notes.append("the task has no FAIL_TO_PASS tests, so an empty patch is correct")
        elif worth.value:
            self.add_problem(ProblemKind.REWARD, f"the default reward of an empty patch is {worth.value:.3f}")

    def compare(self, patch: Patch, evidence: Iterable[EvidenceSet]) -> None:
        """Find the tests that pass in some runs of one state only."""
        runs = [run for run in map(self.run_of, evidence) if run is not None]
        state = "at the base" if patch.is_empty else "with the reference"
        passes = Counter(
            test for run in runs for test, outcome in run.outcomes.items() if outcome.status is TestStatus.PASSED
        )
        flaky = {test: f"{count} of {len(runs)} runs {state}" for test, count in passes.items() if count < len(runs)}
        if flaky:
            test, how_often = next(iter(flaky.items()))
            self.add_problem(ProblemKind.FLAKY, f"{test} passes in {how_often}{_and_more(flaky, 'test')}")
            merged = {test: f"{self.flaky[test]}, {often}" for test, often in flaky.items() if test in self.flaky}
            self.flaky = {**self.flaky, **flaky, **merged}

    def judge_accesses(self, *, isolated: bool) -> None:
        """Judge what the tests access. `isolated`: the sandbox prevents the access."""
        if self.accesses is None:
            self.notes.append("the accesses of its tests are unknown: they could not be observed")
            return
        for tests, what, kind in (
            (self.accesses.network, "the network", ProblemKind.NETWORK),
            (self.accesses.history, "the git history", ProblemKind.OUTSIDE),
            (self.accesses.outside, "files outside the repository", ProblemKind.OUTSIDE),
        ):
            needed = {test: where for test, where in tests.items() if test in self.failing}
            if needed:
                self.add_problem(kind, f"{_first(needed, what)}, and fails")
            elif tests and kind is ProblemKind.NETWORK and not isolated:
                self.add_problem(kind, f"{_first(tests, what)}, which this sandbox does not prevent")
            elif tests:
                self.notes.append(f"{_first(tests, what)}, and passes without it")

    def count_guards(self) -> None:
        """Find the tests that execute the functions, by the task's measured reach, else by observation."""
        reach = self.task.suite.reach
        keys = [str(function) for function in self.functions]
        if not keys:
            return
        if reach is not None and all(key in reach for key in keys):
            executing = frozenset(test for key in keys for test in reach[key])
        elif self.accesses is not None:
            executing = self.accesses.target
        else:
            return
        tests = self.task.fail_to_pass + self.task.pass_to_pass
        self.guards = tuple(test for test in tests if test in executing)
        if not set(self.guards) & set(self.task.pass_to_pass):
            self.notes.append(f"no PASS_TO_PASS test executes {self._where}")

    def judge_exploit(self, name: str, evidence: EvidenceSet) -> None:
        run = self.run_of(evidence)
        fixed, clean = resolved.evaluate(evidence).value, untampered.evaluate(evidence).value
        outcome = ExploitOutcome.FAILS if fixed == 0.0 else ExploitOutcome.SEEN if clean == 0.0 else ExploitOutcome.PAID
        self.exploits = {**self.exploits, name: ExploitOutcome.UNKNOWN if run is None or clean is None else outcome}
        if self.exploits[name] is ExploitOutcome.PAID:
            self.add_problem(ProblemKind.EXPLOIT, f"the task rewards an exploit: {name}")
        elif self.exploits[name] is ExploitOutcome.SEEN:
            self.notes.append(f"only the scan of the diff stands against {name}")

    def judge_stub(self, effect: str, evidence: EvidenceSet) -> None:
        run = self.run_of(evidence)
        if run is None:
            return
        self.stubbed = {**self.stubbed, effect: run.fixed}
        if run.fixed:
            count = f"{len(run.fixed)} of {len(run.fail_to_pass)}"
            self.notes.append(f"{count} FAIL_TO_PASS tests pass with a stub of {self._where} that {effect}")

    def judge_mutant(self, mutant: Mutant, evidence: EvidenceSet) -> None:
        run = self.run_of(evidence)
        if run is not None and run.resolved:
            self.survivors += (mutant,)
        elif run is not None:
            self.killed += (mutant,)

    def judge_strength(self) -> None:
        """Judge the tests. Call it after all stubs and mutants were judged.

        A single stub may be a correct fix by chance: for a bug that raises, the stub that returns None.
        """
        tests = self.task.fail_to_pass
        if tests and self.stubbed and all(passing == tests for passing in self.stubbed.values()):
            stubs = " and with one that ".join(self.stubbed)
            self.add_problem(
                ProblemKind.COUNTERFACTUAL, f"every FAIL_TO_PASS test passes with a stub of {self._where} that {stubs}"
            )
        tried = len(self.killed) + len(self.survivors)
        if not self.killed and tried >= FEWEST_MUTANTS:
            self.add_problem(ProblemKind.MUTANTS, f"its tests kill none of {tried} mutants of {self._where}")

    @property
    def _where(self) -> str:
        return f"{self.functions[0]}{_and_more(self.functions, 'function')}"

    def to_json(self) -> dict[str, Any]:
        accesses = self.accesses
        return {
            "id": self.task.id, "repository": self.task.repository, "healthy": self.is_healthy,
            "problems": [{"kind": str(problem.kind), "why": problem.why} for problem in self.problems],
            "notes": self.notes, "unknown": self.unknown or None, "runs": self.runs, "reference": self.reference,
            "nothing": self.nothing, "resolved": self.resolved, "flaky": dict(self.flaky),
            "network": None if accesses is None else dict(accesses.network),
            "git": None if accesses is None else dict(accesses.history),
            "outside": None if accesses is None else dict(accesses.outside),
            "functions": [str(function) for function in self.functions],
            "guards": None if self.guards is None else len(self.guards),
            "cheats": {name: str(outcome) for name, outcome in self.exploits.items()},
            "stubbed": {name: list(tests) for name, tests in self.stubbed.items()},
            "mutants": len(self.killed) + len(self.survivors), "noticed": len(self.killed),
            "survivors": [_described(mutant) for mutant in self.survivors],
            "assurance": None if self.assurance is None else self.assurance.level,
            "assurance_why": None if self.assurance is None else self.assurance.why,
        }  # fmt: skip


def tally(checkups: Iterable[CheckUp]) -> Mapping[ProblemKind, int]:
    """Kind of problem -> number of tasks that have it."""
    return Counter(kind for checkup in checkups for kind in {problem.kind: None for problem in checkup.problems})


def _closed_gates(breakdown: Breakdown) -> str:
    closed = [f"{part.name}: {part.why}" for part in breakdown.parts if part.closes]
    return "; ".join(closed) or breakdown.cause or "it is unscored"


def _first(tests: Mapping[str, str], what: str) -> str:
    test, where = next(iter(tests.items()))
    return f"{test} accesses {what}: {where}{_and_more(tests, 'test')}"


def _and_more(items: Sequence[Any] | Mapping[str, Any], noun: str) -> str:
    more = len(items) - 1
    return f" (and {counted(more, f'more {noun}')})" if more else ""


def _described(mutant: Mutant) -> dict[str, Any]:
    return {
        "file": mutant.file, "function": mutant.function, "line": mutant.line, "kind": mutant.kind,
        "before": mutant.original_line.strip(), "after": mutant.mutated_line.strip(),
    }  # fmt: skip
