"""Is a reward fit to train on? Properties that every reward must have, tested on generated evidence.

    from regrade.rewards.conformance import check_reward

    def test_my_reward() -> None:
        assert not check_reward(fix_bug)

A violation contains the smallest evidence that hypothesis finds for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable, UnsatisfiedAssumption

from regrade.datasets.reproducible_draws import reproducible_draws
from regrade.rewards.algebra import Reward
from regrade.rewards.breakdown import Breakdown, total
from regrade.rewards.errors import OutOfBoundsError, RewardError
from regrade.rewards.evidence import (
    End,
    EvidenceSet,
    Integrity,
    Tampering,
    TestOutcome,
    TestRun,
    TestStatus,
)
from regrade.rewards.examples import evidence_sets

__all__ = ["Violation", "check_reward"]

TOLERANCE = 1e-9
BROKEN = (TestStatus.FAILED, TestStatus.ERROR, TestStatus.SKIPPED, TestStatus.MISSING)
"""Statuses of a broken test."""

Strategies = Mapping[type, "st.SearchStrategy[Any]"]


@dataclass(frozen=True)
class Violation:
    """A property that a reward lacks."""

    rule: str
    """Its name: a key of `RULES`."""
    problem: str
    """The behaviour of the reward, in words."""
    evidence: str
    """The smallest evidence found with that behaviour."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; given {self.evidence}"


class Untested(Enum):
    """A property that does not concern the reward: it needs other evidence, or raises for all evidence."""

    UNTESTED = "not tested"


UNTESTED = Untested.UNTESTED


class _PropertyError(AssertionError):
    """A reward violates a property on the evidence of one example."""

    def __init__(self, problem: str, evidence: EvidenceSet) -> None:
        super().__init__(problem)
        self.problem = problem
        self.evidence = evidence


def check_reward(
    reward: Reward,
    *,
    examples: int = 200,
    strategies: Strategies | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Violation, ...]:
    """The properties that the reward violates on `examples` pieces of evidence; empty: none.

    Args:
        examples: pieces of evidence for each property; the same ones in every call.
        strategies: evidence type -> hypothesis strategy, for your own types whose fields do not determine a strategy.
        progress: called with (properties tested, all properties).

    Raises:
        TypeError: a field of an evidence type has no strategy.
    """
    results = examine_reward(reward, examples=examples, strategies=strategies, progress=progress)
    return tuple(result for result in results.values() if isinstance(result, Violation))


def examine_reward(
    reward: Reward,
    *,
    examples: int = 200,
    strategies: Strategies | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, Violation | Untested | None]:
    """Rule -> its violation, None if the reward has the property, or UNTESTED. Arguments as in `check_reward`."""
    sets = evidence_sets(reward.needs, strategies or {})
    results: dict[str, Violation | Untested | None] = {}
    answered: list[EvidenceSet] = []
    """The examples of the first rule, if it holds: those of all rules that draw nothing further are the same."""
    is_silent = False
    """Was none of the examples of the first rule answered? Nothing that reads an answer can be tested then."""
    for tested, (name, rule) in enumerate(RULES.items(), 1):
        if (rule in CONCERNS and CONCERNS[rule] not in reward.needs) or (is_silent and rule is not _bounded):
            results[name] = UNTESTED
        elif rule not in DRAWING and answered and _holds(rule, reward, answered):
            results[name] = None
        else:
            seen: list[EvidenceSet] = []
            results[name] = _test_rule(name, rule, reward, sets, examples, seen)
            if rule is _answers and results[name] is None:
                answered = seen
            elif rule is _answers:
                is_silent = not any(_is_answered(reward, evidence) for evidence in seen)
        if progress is not None:
            progress(tested, len(RULES))
    return results


def _holds(rule: Rule, reward: Reward, examples: list[EvidenceSet]) -> bool:
    """Does the reward have the property on each example? If not, hypothesis finds the smallest one."""
    try:
        for evidence in examples:
            rule(reward, evidence, None)
    except (_PropertyError, UnsatisfiedAssumption):
        return False
    return True


def _test_rule(
    name: str,
    rule: Rule,
    reward: Reward,
    sets: st.SearchStrategy[EvidenceSet],
    examples: int,
    seen: list[EvidenceSet],
) -> Violation | Untested | None:
    """`seen` receives the evidence of each example."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @given(st.data(), sets)
    def attempt(data: st.DataObject, evidence: EvidenceSet) -> None:
        seen.append(deepcopy(evidence))  # as it was before the reward saw it
        rule(reward, evidence, data)

    try:
        with reproducible_draws():
            attempt()
    except _PropertyError as error:
        return Violation(name, error.problem, _describe_evidence(reward, error.evidence))
    except Unsatisfiable:  # the property concerns no evidence of this reward, such as one that needs no tests
        return UNTESTED
    return None


Rule = Callable[[Reward, EvidenceSet, Any], None]
"""Called with the reward, an example, and hypothesis' source of further values, for the rules of `DRAWING` alone."""


def _assume(condition: object) -> None:
    """Leave the example out. As hypothesis' `assume`, which warns where no example of its own is tried (`_holds`)."""
    if not condition:
        raise UnsatisfiedAssumption


def _judge(reward: Reward, evidence: EvidenceSet) -> Breakdown:
    """The verdict for all rules but `_answers` and `_bounded`, which report rewards that raise."""
    try:
        return reward.evaluate(evidence)
    except RewardError:
        _assume(False)
        raise


def _answers(reward: Reward, evidence: EvidenceSet, _data: Any) -> None:
    """It returns a Score for any evidence."""
    try:
        reward.evaluate(evidence)
    except RewardError as error:
        raise _PropertyError(str(error), evidence) from error


def _is_answered(reward: Reward, evidence: EvidenceSet) -> bool:
    try:
        reward.evaluate(evidence)
    except RewardError:
        return False
    return True


def _bounded(reward: Reward, evidence: EvidenceSet, _data: Any) -> None:
    """Its value lies in [0, 1], or it is unscored: trainers and gates require it."""
    try:
        value = reward.evaluate(evidence).value
    except RewardError as error:
        if isinstance(error.__cause__, OutOfBoundsError):  # a Score refuses such a value
            raise _PropertyError(str(error), evidence) from error
        _assume(False)
        raise
    if value is not None and not (math.isfinite(value) and -TOLERANCE <= value <= 1.0 + TOLERANCE):
        raise _PropertyError(f"its value is {value:g}, outside [0, 1]", evidence)


def _adds_up(reward: Reward, evidence: EvidenceSet, _data: Any) -> None:
    """The contributions of its parts add up to its value."""
    breakdown = _judge(reward, evidence)
    value, added = breakdown.value, total(breakdown.parts)
    if value is not None and abs(added - value) > TOLERANCE:
        raise _PropertyError(f"its parts add up to {added:g}, its value is {value:g}", evidence)


def _deterministic(reward: Reward, evidence: EvidenceSet, _data: Any) -> None:
    """Equal evidence has equal verdicts, including the reasons."""
    first, second = _judge(reward, evidence), _judge(reward, deepcopy(evidence))
    if first != second:
        raise _PropertyError(f"its verdict on equal evidence is first {_short(first)}, then {_short(second)}", evidence)


def _pure(reward: Reward, evidence: EvidenceSet, _data: Any) -> None:
    """It accesses no file, process or network, and leaves its evidence as it is."""
    before = deepcopy(evidence)
    _judge(reward, evidence)  # the first call may import modules
    if evidence != before:
        raise _PropertyError("it changes its evidence, which others judge too", before)
    with _record_accesses() as accesses:
        _judge(reward, evidence)
    if accesses:
        raise _PropertyError(f"it accesses files, processes or the network: {accesses[0]}", evidence)


def _unscored(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Missing evidence leaves it unscored, never 0."""
    missing = data.draw(st.sampled_from(sorted(reward.needs, key=lambda kind: kind.__qualname__)))
    records = {kind: record for kind, record in evidence.records.items() if kind is not missing}
    lost = EvidenceSet(records, {missing: "the worker died"}, evidence.assurance)
    if (value := _judge(reward, lost).value) is not None:
        raise _PropertyError(f"if {missing.__name__} cannot be gathered, it is {value:g} and not unscored", lost)


def _breaking_never_pays(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Its value never rises if a passing test breaks: it fails, has an error, is skipped or is missing."""
    run = _run_of(evidence)
    passing = [test for test in run.pass_to_pass if run.outcomes[test].status is TestStatus.PASSED]
    _assume(passing)
    test = data.draw(st.sampled_from(passing))
    status = data.draw(st.sampled_from(BROKEN))
    worse = _with_outcome(evidence, run, test, TestOutcome(status, "AssertionError"))
    _must_not_rise(reward, evidence, worse, f"if {test} is {status.value}")


def _fixing_never_costs(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Its value never falls if a failing test is fixed, named or not."""
    run = _run_of(evidence)
    failing = [test for test in run.fail_to_pass if run.outcomes[test].status is TestStatus.FAILED]
    unnamed = [test for test in run.unnamed if test not in run.also_fixed]
    _assume(failing or unnamed)
    test = data.draw(st.sampled_from(failing + unnamed))
    if test in unnamed:
        fixed = replace(run, also_fixed=(*run.also_fixed, test))
        better = replace(evidence, records={**evidence.records, TestRun: fixed})
    else:
        better = _with_outcome(evidence, run, test, TestOutcome(TestStatus.PASSED))
    _must_not_rise(reward, better, evidence, f"if {test} is not fixed")


def _stopping_never_pays(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Its value never rises if the patch hangs, crashes or exhausts the run before any test has ended."""
    run = _run_of(evidence)
    end = data.draw(st.sampled_from((End.TIMEOUT, End.MEMORY, End.CRASHED)))
    outcomes = dict.fromkeys(run.outcomes, TestOutcome(TestStatus.MISSING))
    stopped = replace(run, outcomes=outcomes, end=end, also_fixed=())
    worse = replace(evidence, records={**evidence.records, TestRun: stopped})
    _must_not_rise(reward, evidence, worse, f"if the run ends early ({end.value})")


def _tampering_never_pays(reward: Reward, evidence: EvidenceSet, _data: Any) -> None:
    """Its value never rises if the patch tampers with the evaluation."""
    integrity = evidence.records.get(Integrity)
    _assume(isinstance(integrity, Integrity))
    assert isinstance(integrity, Integrity)
    sign = Tampering("exits early", "a.py", 1, "os._exit(0)", conclusive=True)
    tampered = replace(integrity, signs=(*integrity.signs, sign))
    worse = replace(evidence, records={**evidence.records, Integrity: tampered})
    _must_not_rise(reward, evidence, worse, "if the patch tampers with the evaluation")


RULES: Mapping[str, Rule] = {
    "answers": _answers,
    "pure": _pure,
    "bounded": _bounded,
    "adds up": _adds_up,
    "deterministic": _deterministic,
    "unscored": _unscored,
    "breaking never pays": _breaking_never_pays,
    "fixing never costs": _fixing_never_costs,
    "stopping never pays": _stopping_never_pays,
    "tampering never pays": _tampering_never_pays,
}
"""Name -> property; its docstring states the requirement."""
DRAWING = frozenset({_unscored, _breaking_never_pays, _fixing_never_costs, _stopping_never_pays})
"""Rules that draw values beside the evidence."""
CONCERNS: Mapping[Rule, type] = {
    **dict.fromkeys((_breaking_never_pays, _fixing_never_costs, _stopping_never_pays), TestRun),
    _tampering_never_pays: Integrity,
}
"""Rule -> the evidence that it is about: it does not concern a reward that needs none of that."""


def _run_of(evidence: EvidenceSet) -> TestRun:
    run = evidence.records.get(TestRun)
    _assume(isinstance(run, TestRun) and run.end is End.COMPLETED)
    assert isinstance(run, TestRun)
    return run


def _with_outcome(evidence: EvidenceSet, run: TestRun, test: str, outcome: TestOutcome) -> EvidenceSet:
    changed = replace(run, outcomes={**run.outcomes, test: outcome})
    return replace(evidence, records={**evidence.records, TestRun: changed})


def _must_not_rise(reward: Reward, before: EvidenceSet, after: EvidenceSet, when: str) -> None:
    first, second = _judge(reward, before).value, _judge(reward, after).value
    if first is not None and second is not None and second > first + TOLERANCE:
        raise _PropertyError(f"it rises from {first:g} to {second:g} {when}", before)


def _short(breakdown: Breakdown) -> str:
    value = "unscored" if breakdown.value is None else f"{breakdown.value!r}"
    return f"{value} ({'; '.join(part.why for part in breakdown.parts)})"


def _describe_evidence(reward: Reward, evidence: EvidenceSet, limit: int = 600) -> str:
    records = [repr(evidence.records[kind]) for kind in reward.needs if kind in evidence.records]
    text = ", ".join(sorted(records))
    return text if len(text) <= limit else f"{text[:limit]}..."


# ------------------------------------------------------------ accesses of a reward to files, processes and networks

OUTSIDE = ("open", "os.", "shutil.", "socket.", "subprocess.", "sqlite3.", "tempfile.", "urllib.", "winreg.")
"""Prefixes of Python's audit events for accesses outside the process."""

_accesses: ContextVar[list[str] | None] = ContextVar("accesses", default=None)
"""Of the call being watched, also in the thread that a reward with a time limit runs in."""


@contextmanager
def _record_accesses() -> Iterator[list[str]]:
    """Collect the audit events of `OUTSIDE` in this context."""
    _install_hook()
    accesses: list[str] = []
    token = _accesses.set(accesses)
    try:
        yield accesses
    finally:
        _accesses.reset(token)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    accesses = _accesses.get()
    if accesses is not None and event.startswith(OUTSIDE):
        accesses.append(f"{event}({', '.join(map(repr, arguments[:1]))})")


_installed: list[bool] = []


def _install_hook() -> None:
    """Install the audit hook once: Python cannot remove it, and an inactive hook costs little."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hook)
