"""Is a reward fit to train on? A kit of properties that every reward must have, tried on generated evidence.

    from regrade.rewards.conformance import check_reward

    def test_my_reward() -> None:
        assert not check_reward(fix_bug)

A property that fails is shown with the smallest evidence that hypothesis finds for it.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from regrade.rewards.algebra import Reward
from regrade.rewards.breakdown import Breakdown, total
from regrade.rewards.errors import RewardError
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

TOLERANCE = 1e-9
LOST = (TestStatus.FAILED, TestStatus.ERROR, TestStatus.SKIPPED, TestStatus.MISSING)
"""What may become of a test that passed."""

Strategies = Mapping[type, "st.SearchStrategy[Any]"]


@dataclass(frozen=True)
class Violation:
    """A property that a reward lacks."""

    rule: str
    """Its name: a key of `RULES`."""
    problem: str
    """What the reward did, in words."""
    evidence: str
    """The smallest evidence found on which it does so."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem}; given {self.evidence}"


class Untested(Enum):
    """A property that says nothing about the reward: it needs no such evidence, or gives no answer to any."""

    UNTESTED = "not tested"


UNTESTED = Untested.UNTESTED


class _PropertyError(AssertionError):
    """A property does not hold on the evidence of this example."""

    def __init__(self, problem: str, evidence: EvidenceSet) -> None:
        super().__init__(problem)
        self.problem = problem
        self.evidence = evidence


def check_reward(
    reward: Reward, *, examples: int = 200, strategies: Strategies | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Violation, ...]:  # fmt: skip
    """The properties that the reward lacks; none: it has them all, as far as `examples` pieces of evidence can tell.

    Args:
        examples: pieces of evidence for each property. The same ones are made each time.
        strategies: evidence type -> hypothesis strategy, for types of your own that cannot be made from the types of
            their fields.
        progress: called with (properties tried, properties in all).
    """
    found = examine_reward(reward, examples=examples, strategies=strategies, progress=progress)
    return tuple(result for result in found.values() if isinstance(result, Violation))


def examine_reward(
    reward: Reward, *, examples: int = 200, strategies: Strategies | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, Violation | Untested | None]:  # fmt: skip
    """Rule -> the property that the reward lacks, None where it has it, or UNTESTED. Arguments as in `check_reward`."""
    sets = evidence_sets(reward.needs, strategies or {})
    found: dict[str, Violation | Untested | None] = {}
    for tried, (name, rule) in enumerate(RULES.items(), 1):
        found[name] = _try(name, rule, reward, sets, examples)
        if progress is not None:
            progress(tried, len(RULES))
    return found


def _try(
    name: str, rule: Rule, reward: Reward, sets: st.SearchStrategy[EvidenceSet], examples: int
) -> Violation | Untested | None:
    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink), report_multiple_bugs=False,
    )  # fmt: skip
    @given(st.data(), sets)
    def attempt(data: st.DataObject, evidence: EvidenceSet) -> None:
        rule(reward, evidence, data)

    try:
        attempt()
    except _PropertyError as lack:
        return Violation(name, lack.problem, _described(reward, lack.evidence))
    except Unsatisfiable:  # no evidence that the property speaks of, such as a reward that needs no tests
        return UNTESTED
    return None


Rule = Callable[[Reward, EvidenceSet, "st.DataObject"], None]


def _judge(reward: Reward, evidence: EvidenceSet) -> Breakdown:
    """What the rules that are about something else see: rewards that raise are reported by one rule."""
    try:
        return reward.evaluate(evidence)
    except RewardError:
        assume(False)
        raise


def _answers(reward: Reward, evidence: EvidenceSet, _data: st.DataObject) -> None:
    """It returns a Score for any evidence."""
    try:
        reward.evaluate(evidence)
    except RewardError as error:
        raise _PropertyError(str(error), evidence) from error


def _bounded(reward: Reward, evidence: EvidenceSet, _data: st.DataObject) -> None:
    """Its value lies in [0, 1], or it is unscored: trainers and gates count on it."""
    value = _judge(reward, evidence).value
    if value is not None and not (math.isfinite(value) and -TOLERANCE <= value <= 1.0 + TOLERANCE):
        raise _PropertyError(f"its value is {value:g}, outside [0, 1]", evidence)


def _adds_up(reward: Reward, evidence: EvidenceSet, _data: st.DataObject) -> None:
    """The contributions of its parts add up to its value."""
    found = _judge(reward, evidence)
    if found.value is not None and abs(total(found.parts) - found.value) > TOLERANCE:
        raise _PropertyError(f"its parts add up to {total(found.parts):g}, its value is {found.value:g}", evidence)


def _deterministic(reward: Reward, evidence: EvidenceSet, _data: st.DataObject) -> None:
    """Equal evidence has equal verdicts, reasons included."""
    first, again = _judge(reward, evidence), _judge(reward, deepcopy(evidence))
    if first != again:
        raise _PropertyError(f"equal evidence was judged {_short(first)}, then {_short(again)}", evidence)


def _pure(reward: Reward, evidence: EvidenceSet, _data: st.DataObject) -> None:
    """It touches no file, process or network."""
    _judge(reward, evidence)  # the first time, it may import something
    with _watched() as touched:
        _judge(reward, evidence)
    if touched:
        raise _PropertyError(f"it touched the world outside: {touched[0]}", evidence)


def _unscored(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """What could not be found out leaves it unscored, never 0."""
    gone = data.draw(st.sampled_from(sorted(reward.needs, key=lambda kind: kind.__qualname__)))
    records = {kind: record for kind, record in evidence.records.items() if kind is not gone}
    lost = EvidenceSet(records, {gone: "the worker died"}, evidence.assurance)
    if (value := _judge(reward, lost).value) is not None:
        raise _PropertyError(
            f"without {gone.__name__}, for no fault of the patch, it is {value:g} and not unscored", lost
        )


def _breaking_never_pays(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Its value never rises when a test that passed breaks: fails, ends in an error, is skipped or is gone."""
    run = _run_of(evidence)
    passing = [test for test in run.pass_to_pass if run.outcomes[test].status is TestStatus.PASSED]
    assume(passing)
    test = data.draw(st.sampled_from(passing))
    status = data.draw(st.sampled_from(LOST))
    worse = _with_outcome(evidence, run, test, TestOutcome(status, "AssertionError"))
    _must_not_rise(reward, evidence, worse, f"when {test} is {status.value}")


def _mending_never_costs(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Its value never falls when a test that failed is mended."""
    run = _run_of(evidence)
    failing = [test for test in run.fail_to_pass if run.outcomes[test].status is TestStatus.FAILED]
    assume(failing)
    test = data.draw(st.sampled_from(failing))
    better = _with_outcome(evidence, run, test, TestOutcome(TestStatus.PASSED))
    _must_not_rise(reward, better, evidence, f"when {test} is left unmended")


def _stopping_never_pays(reward: Reward, evidence: EvidenceSet, data: st.DataObject) -> None:
    """Its value never rises when the patch hangs, crashes or exhausts the run before any test has ended."""
    run = _run_of(evidence)
    end = data.draw(st.sampled_from((End.TIMEOUT, End.MEMORY, End.CRASHED)))
    outcomes = dict.fromkeys(run.outcomes, TestOutcome(TestStatus.MISSING))
    stopped = replace(run, outcomes=outcomes, end=end)
    worse = replace(evidence, records={**evidence.records, TestRun: stopped})
    _must_not_rise(reward, evidence, worse, f"when the run ends by {end.value}")


def _tampering_never_pays(reward: Reward, evidence: EvidenceSet, _data: st.DataObject) -> None:
    """Its value never rises when the patch is seen to reach for the verdict."""
    integrity = evidence.records.get(Integrity)
    assume(isinstance(integrity, Integrity))
    assert isinstance(integrity, Integrity)
    sign = Tampering("exits early", "a.py", 1, "os._exit(0)", conclusive=True)
    caught = replace(integrity, signs=(*integrity.signs, sign))
    worse = replace(evidence, records={**evidence.records, Integrity: caught})
    _must_not_rise(reward, evidence, worse, "when the patch reaches for the verdict")


RULES: Mapping[str, Rule] = {
    "answers": _answers,
    "bounded": _bounded,
    "adds up": _adds_up,
    "deterministic": _deterministic,
    "pure": _pure,
    "unscored": _unscored,
    "breaking never pays": _breaking_never_pays,
    "mending never costs": _mending_never_costs,
    "stopping never pays": _stopping_never_pays,
    "tampering never pays": _tampering_never_pays,
}
"""Name -> property; each says in its docstring what it demands."""


def _run_of(evidence: EvidenceSet) -> TestRun:
    run = evidence.records.get(TestRun)
    assume(isinstance(run, TestRun) and run.end is End.COMPLETED)
    assert isinstance(run, TestRun)
    return run


def _with_outcome(evidence: EvidenceSet, run: TestRun, test: str, outcome: TestOutcome) -> EvidenceSet:
    changed = replace(run, outcomes={**run.outcomes, test: outcome})
    return replace(evidence, records={**evidence.records, TestRun: changed})


def _must_not_rise(reward: Reward, before: EvidenceSet, after: EvidenceSet, when: str) -> None:
    first, second = _judge(reward, before).value, _judge(reward, after).value
    if first is not None and second is not None and second > first + TOLERANCE:
        raise _PropertyError(f"it rises from {first:g} to {second:g} {when}", before)


def _short(found: Breakdown) -> str:
    value = "unscored" if found.value is None else f"{found.value!r}"
    return f"{value} ({'; '.join(part.why for part in found.parts)})"


def _described(reward: Reward, evidence: EvidenceSet, limit: int = 600) -> str:
    needed = [repr(evidence.records[kind]) for kind in reward.needs if kind in evidence.records]
    text = ", ".join(sorted(needed))
    return text if len(text) <= limit else f"{text[:limit]}..."


# ------------------------------------------------------------ what a reward touches

OUTSIDE = ("open", "os.", "shutil.", "socket.", "subprocess.", "sqlite3.", "tempfile.", "urllib.", "winreg.")
"""Beginnings of the names of Python's audit events that reach beyond the process."""

_watching = threading.local()


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Collects, in this thread, the audit events of `OUTSIDE`."""
    _install_hook()
    found: list[str] = []
    _watching.found = found
    try:
        yield found
    finally:
        del _watching.found


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    found = getattr(_watching, "found", None)
    if found is not None and event.startswith(OUTSIDE):
        found.append(f"{event}({', '.join(map(repr, arguments[:1]))})")


_installed: list[bool] = []


def _install_hook() -> None:
    """An audit hook cannot be removed; one that watches nothing costs little."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hook)
