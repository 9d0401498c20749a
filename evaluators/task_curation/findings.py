"""What a check-up finds out about a task, and what of it makes the task bad."""

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
from regrade.evaluators.task_curation.sandbox_access import Reaching
from regrade.evaluators.verification.counterfactuals import ChangedFunction
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.builtin import default
from regrade.rewards.components import resolved, untampered
from regrade.rewards.evidence import EvidenceSet, TestRun, TestStatus, Verification

FEWEST_MUTANTS = 3
"""Tests that notice none of so many are no accident."""


class ProblemKind(StrEnum):
    """What is wrong with a task."""

    TASK = "task"
    """Its tests fail or pass where they should not, or a run of them ends early."""
    REWARD = "reward"
    """The default reward gives the reference nothing, or something for doing nothing."""
    FLAKY = "flaky"
    """A test passes in some runs of the same files, and not in others."""
    NETWORK = "network"
    """A test needs the network: it fails without, or the sandbox does not keep the network away."""
    OUTSIDE = "outside"
    """A test that fails needs the git history, or files outside the repository."""
    CHEAT = "cheat"
    """A cheat counts as a fix and as untampered."""
    COUNTERFACTUAL = "counterfactual"
    """All FAIL_TO_PASS tests pass whatever stands in place of what the reference changes."""
    MUTANTS = "mutants"
    """No mutant of what the reference changes is noticed."""


@dataclass(frozen=True)
class Problem:
    kind: ProblemKind
    why: str


class ExploitOutcome(StrEnum):
    """What became of a cheat."""

    FAILS = "fails"
    """Not all tests pass."""
    SEEN = "seen"
    """All tests pass, and only the scan of the diff stands between it and the reward."""
    PAID = "paid"
    UNKNOWN = "unknown"


@dataclass(kw_only=True)
class CheckUp:
    """What was found out about one task."""

    task: Task
    runs: int
    problems: list[Problem] = field(default_factory=list)
    """Why it is bad."""
    notes: list[str] = field(default_factory=list)
    """What is to be known of it, and is no reason to leave it out."""
    unknown: str = ""
    """Why something could not be found out, for a reason that is not the task's."""
    nothing: float | None = None
    """The default reward for doing nothing; None: unknown."""
    asks_nothing: bool = False
    """Does doing nothing count as a fix? Then so does every cheat that does nothing."""
    reference: float | None = None
    """The default reward for the reference; None: there is none, or unknown."""
    resolved: bool = False
    """Does the reference count as a fix?"""
    failing: frozenset[str] = frozenset()
    """Tests that must pass and do not: any with the reference, PASS_TO_PASS at the base."""
    flaky: Mapping[str, str] = field(default_factory=dict)
    """Test -> in how many runs of which state it passes."""
    reaching: Reaching | None = None
    """What the tests reach for; None: unknown."""
    functions: tuple[ChangedFunction, ...] = ()
    """Those that the reference changes or adds; without a reference, the task's target."""
    guards: tuple[str, ...] | None = None
    """The tests that execute one of the functions; None: unknown, or there is no function."""
    cheats: Mapping[str, ExploitOutcome] = field(default_factory=dict)
    """What was tried -> what became of it."""
    stubbed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a stub of the functions does -> the FAIL_TO_PASS tests that pass with it."""
    noticed: tuple[Mutant, ...] = ()
    """Mutants of the functions that some test notices."""
    survivors: tuple[Mutant, ...] = ()
    """Those that none notices: changes without effect, or behaviour that no test looks at."""
    assurance: Verification | None = None
    """How sure the verdict on the reference is; None: there is none, or unknown."""

    @property
    def is_healthy(self) -> bool:
        return not self.problems and not self.unknown

    @property
    def can_be_cheated(self) -> bool:
        """Does a cheat that works say anything of the task?"""
        return not self.unknown and not self.asks_nothing

    def find(self, kind: ProblemKind, why: str) -> None:
        self.problems.append(Problem(kind, why))

    def lose(self, why: str) -> None:
        """Something could not be found out. The first reason is kept."""
        self.unknown = self.unknown or why

    def run_of(self, evidence: EvidenceSet) -> TestRun | None:
        """The run of tests; None, and noted, where the infrastructure failed."""
        run: TestRun | None = evidence.records.get(TestRun)
        if run is None:
            self.lose(evidence.infrastructure.get(TestRun, "no result"))
        return run

    def judge(self, patch: Patch, evidence: EvidenceSet) -> None:
        """What the rewards say of doing nothing, or of the reference."""
        run = self.run_of(evidence)
        for why in evidence.infrastructure.values():
            self.lose(why)
        if run is None or evidence.infrastructure:
            return
        must_pass = run.pass_to_pass if patch.is_empty else run.fail_to_pass + run.pass_to_pass
        self.failing |= {test for test in must_pass if run.outcomes[test].status is not TestStatus.PASSED}
        worth, fixed = default.evaluate(evidence), resolved.evaluate(evidence).value == 1.0
        if not patch.is_empty:
            self.reference, self.resolved = worth.value, fixed
            if fixed and not worth.value:
                self.find(ProblemKind.REWARD, f"the default reward gives the reference nothing: {_closed_by(worth)}")
            return
        self.nothing, self.asks_nothing = worth.value, fixed
        if not self.task.fail_to_pass:
            self.notes.append("it names no FAIL_TO_PASS tests, so that doing nothing is right")
        elif worth.value:
            self.find(ProblemKind.REWARD, f"the default reward gives {worth.value:.3f} for doing nothing")

    def compare(self, patch: Patch, evidence: Iterable[EvidenceSet]) -> None:
        """Name the tests that pass in some runs of one state and not in others."""
        runs = [run for run in map(self.run_of, evidence) if run is not None]
        state = "at the base" if patch.is_empty else "with the reference"
        passes = Counter(
            test for run in runs for test, found in run.outcomes.items() if found.status is TestStatus.PASSED
        )
        flaky = {test: f"{count} of {len(runs)} runs {state}" for test, count in passes.items() if count < len(runs)}
        if flaky:
            test, how_often = next(iter(flaky.items()))
            self.find(ProblemKind.FLAKY, f"{test} passes in {how_often}{_and_more(flaky, 'test')}")
            known = {test: f"{self.flaky[test]}, {often}" for test, often in flaky.items() if test in self.flaky}
            self.flaky = {**self.flaky, **flaky, **known}

    def note_reaching(self, *, isolated: bool) -> None:
        """Judge what the tests reach for. `isolated`: the sandbox keeps it from them."""
        if self.reaching is None:
            self.notes.append("it is not known what its tests reach for: nothing could watch them")
            return
        for tests, what, kind in (
            (self.reaching.network, "the network", ProblemKind.NETWORK),
            (self.reaching.history, "the git history", ProblemKind.OUTSIDE),
            (self.reaching.outside, "files outside the repository", ProblemKind.OUTSIDE),
        ):
            in_need = {test: where for test, where in tests.items() if test in self.failing}
            if in_need:
                self.find(kind, f"{_first(in_need, what)}, and fails")
            elif tests and kind is ProblemKind.NETWORK and not isolated:
                self.find(kind, f"{_first(tests, what)}, which this sandbox does not keep away")
            elif tests:
                self.notes.append(f"{_first(tests, what)}, and passes without")

    def count_guards(self) -> None:
        """By the measure of the task where it has one, else by what was watched."""
        reach = self.task.suite.reach
        keys = [str(function) for function in self.functions]
        if not keys:
            return
        if reach is not None and all(key in reach for key in keys):
            executing = frozenset(test for key in keys for test in reach[key])
        elif self.reaching is not None:
            executing = self.reaching.target
        else:
            return
        tests = self.task.fail_to_pass + self.task.pass_to_pass
        self.guards = tuple(test for test in tests if test in executing)
        if not set(self.guards) & set(self.task.pass_to_pass):
            self.notes.append(f"no PASS_TO_PASS test executes {self._where}")

    def judge_cheat(self, name: str, evidence: EvidenceSet) -> None:
        run = self.run_of(evidence)
        fixed, clean = resolved.evaluate(evidence).value, untampered.evaluate(evidence).value
        fate = ExploitOutcome.FAILS if fixed == 0.0 else ExploitOutcome.SEEN if clean == 0.0 else ExploitOutcome.PAID
        self.cheats = {**self.cheats, name: ExploitOutcome.UNKNOWN if run is None or clean is None else fate}
        if self.cheats[name] is ExploitOutcome.PAID:
            self.find(ProblemKind.CHEAT, f"a cheat counts as a fix: {name}")
        elif self.cheats[name] is ExploitOutcome.SEEN:
            self.notes.append(f"only the scan of the diff stands against {name}")

    def judge_stub(self, does: str, evidence: EvidenceSet) -> None:
        run = self.run_of(evidence)
        if run is None:
            return
        self.stubbed = {**self.stubbed, does: run.fixed}
        if run.fixed:
            count = f"{len(run.fixed)} of {len(run.fail_to_pass)}"
            self.notes.append(f"{count} FAIL_TO_PASS tests pass with a stub of {self._where} that {does}")

    def judge_mutant(self, mutant: Mutant, evidence: EvidenceSet) -> None:
        run = self.run_of(evidence)
        if run is not None and run.resolved:
            self.survivors += (mutant,)
        elif run is not None:
            self.noticed += (mutant,)

    def judge_strength(self) -> None:
        """To be called when all stubs and mutants were judged.

        A single stub may do by chance what is wanted: where the bug was an exception, the one that returns None.
        """
        wanted = self.task.fail_to_pass
        if wanted and self.stubbed and all(passing == wanted for passing in self.stubbed.values()):
            stubs = " and with one that ".join(self.stubbed)
            self.find(
                ProblemKind.COUNTERFACTUAL, f"every FAIL_TO_PASS test passes with a stub of {self._where} that {stubs}"
            )
        tried = len(self.noticed) + len(self.survivors)
        if not self.noticed and tried >= FEWEST_MUTANTS:
            self.find(ProblemKind.MUTANTS, f"its tests notice none of {tried} mutants of {self._where}")

    @property
    def _where(self) -> str:
        return f"{self.functions[0]}{_and_more(self.functions, 'function')}"

    def to_json(self) -> dict[str, Any]:
        reach = self.reaching
        return {
            "id": self.task.id, "repository": self.task.repository, "healthy": self.is_healthy,
            "problems": [{"kind": str(each.kind), "why": each.why} for each in self.problems], "notes": self.notes,
            "unknown": self.unknown or None, "runs": self.runs, "reference": self.reference, "nothing": self.nothing,
            "resolved": self.resolved, "flaky": dict(self.flaky),
            "network": None if reach is None else dict(reach.network),
            "git": None if reach is None else dict(reach.history),
            "outside": None if reach is None else dict(reach.outside),
            "functions": [str(each) for each in self.functions],
            "guards": None if self.guards is None else len(self.guards),
            "cheats": {name: str(fate) for name, fate in self.cheats.items()},
            "stubbed": {name: list(tests) for name, tests in self.stubbed.items()},
            "mutants": len(self.noticed) + len(self.survivors), "noticed": len(self.noticed),
            "survivors": [_described(mutant) for mutant in self.survivors],
            "assurance": None if self.assurance is None else self.assurance.level,
            "assurance_why": None if self.assurance is None else self.assurance.why,
        }  # fmt: skip


def tally(found: Iterable[CheckUp]) -> Mapping[ProblemKind, int]:
    """Kind of problem -> number of tasks that have it."""
    return Counter(kind for each in found for kind in dict.fromkeys(problem.kind for problem in each.problems))


def _closed_by(breakdown: Breakdown) -> str:
    closed = [f"{part.name}: {part.why}" for part in breakdown.parts if part.closes]
    return "; ".join(closed) or breakdown.cause or "it is unscored"


def _first(tests: Mapping[str, str], what: str) -> str:
    test, where = next(iter(tests.items()))
    return f"{test} reaches for {what}: {where}{_and_more(tests, 'test')}"


def _and_more(items: Sequence[Any] | Mapping[str, Any], noun: str) -> str:
    more = len(items) - 1
    return f" (and {counted(more, f'more {noun}')})" if more else ""


def _described(mutant: Mutant) -> dict[str, Any]:
    return {
        "file": mutant.file, "function": mutant.function, "line": mutant.line, "kind": mutant.kind,
        "before": mutant.original_line.strip(), "after": mutant.mutated_line.strip(),
    }  # fmt: skip
