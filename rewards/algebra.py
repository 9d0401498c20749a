"""The algebra of rewards: typed functions of evidence, weighted sums, gates, limits, thresholds and minima.

    fix_bug = (0.6 * tests + 0.2 * impact + 0.1 * style).only_if(builds, untampered)

Two ways of having no value are told apart. A part that is *not applicable* (`Score.unscored`) hands its weight to the
other parts of its sum, in proportion to theirs. Evidence that could *not be gathered* leaves the whole unscored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NoReturn, ParamSpec

import msgspec

from regrade.datasets.plurals import plural
from regrade.rewards.breakdown import NOT_APPLICABLE, Breakdown, Part, Role, scaled, total
from regrade.rewards.declaration import evidence_types
from regrade.rewards.errors import RewardError, blame
from regrade.rewards.evidence import End, EvidenceSet, TestRun
from regrade.rewards.score import Score, checked_weight

P = ParamSpec("P")


class Judgement(msgspec.Struct, frozen=True):
    """What one node of a reward says: its parts are scaled as if the node were the whole."""

    value: float | None
    why: str
    parts: tuple[Part, ...] = ()


class Reward(ABC):
    """A pure function of evidence. Add rewards, weigh them (`0.6 * tests`), put them behind gates (`only_if`)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the reward is called in a breakdown."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[type]:
        """The types of evidence that must be gathered for it."""

    @abstractmethod
    def judge(self, evidence: EvidenceSet) -> Judgement:
        """The value and its parts. All evidence in `needs` is there (see `evaluate`)."""

    def evaluate(self, evidence: EvidenceSet) -> Breakdown:
        """The verdict on the evidence of one patch.

        Unscored when evidence is missing for a reason that is not the patch's, or when no part applies.

        Raises:
            RewardError: a reward function raised or returned something other than a Score in [0, 1].
        """
        missing = _missing(self.needs, evidence)
        if missing:
            return Breakdown(None, "unscored", missing, evidence.assurance)
        try:
            judged = self.judge(evidence)
        except RecursionError:
            raise RewardError("the reward is nested too deeply: build it of fewer layers") from None
        parts = unfold(self, judged)
        if judged.value is None:
            return Breakdown(None, "unscored", f"{NOT_APPLICABLE}{judged.why}", evidence.assurance, parts)
        return Breakdown(judged.value, "scored", _cause(parts, evidence), evidence.assurance, parts)

    def only_if(self, *gates: Reward) -> OnlyIf:
        """This reward while every gate has the value 1 (or is not applicable), else 0."""
        return OnlyIf(self, tuple(_reward(gate, "a gate of only_if") for gate in gates))

    def clip(self, low: float = 0.0, high: float = 1.0) -> Clip:
        """This reward, kept within [low, high]."""
        return Clip(self, float(low), float(high))

    def at_least(self, threshold: float) -> AtLeast:
        """1 where this reward reaches the threshold, else 0: makes a gate out of any reward."""
        return AtLeast(self, float(threshold))

    def named(self, name: str) -> Named:
        """This reward under another name; a named sum stays one part of the sums that it enters."""
        return Named(self, name)

    def __add__(self, other: Reward) -> Sum:
        if not isinstance(other, Reward):
            return NotImplemented
        return Sum(_terms(self) + _terms(other))

    def __radd__(self, other: object) -> Reward:
        if other == 0:  # the start value of the built-in sum()
            return self
        return NotImplemented

    def __sub__(self, other: object) -> NoReturn:
        raise RewardError("rewards do not subtract: for a penalty, add a reward that falls as things get worse")

    def __neg__(self) -> NoReturn:
        self.__sub__(None)

    def __mul__(self, weight: float) -> Sum:
        if isinstance(weight, Reward):
            return NotImplemented
        factor = checked_weight(weight, self.name)
        terms = _terms(self)
        if len(terms) == 1:
            return Sum(((terms[0][0] * factor, terms[0][1]),))
        return Sum(((factor, self),))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Sum:
        return self * (1.0 / divisor)

    def __str__(self) -> str:
        return self.name


class Function(Reward, Generic[P]):
    """A reward made of a plain function by `@reward`. It can still be called like the function."""

    def __init__(self, function: Callable[P, Score]) -> None:
        self._function = function
        self._parameters = evidence_types(function)
        self._needs = frozenset(self._parameters.values())
        self._types = tuple(self._parameters.values())
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__qualname__ = function.__qualname__

    @property
    def name(self) -> str:
        return self._function.__name__

    @property
    def needs(self) -> frozenset[type]:
        return self._needs

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Score:
        return self._function(*args, **kwargs)

    def judge(self, evidence: EvidenceSet) -> Judgement:
        records = [evidence.records[kind] for kind in self._types]
        function: Callable[..., Score] = self._function
        try:
            score = function(*records)
        except (Exception, SystemExit) as error:
            raise RewardError(blame(self._function, error, records)) from error
        if not isinstance(score, Score):
            raise RewardError(f"reward {self.name!r} returned {score!r}: return a Score(value, why)")
        return Judgement(score.value, score.why)

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled by reference, as functions are

    def __repr__(self) -> str:
        return f"<reward {self.name}>"


@dataclass(frozen=True)
class Sum(Reward):
    """Weights x rewards. Its value lies between 0 and the sum of the weights."""

    terms: tuple[tuple[float, Reward], ...]

    @cached_property
    def name(self) -> str:
        return " + ".join(f"{weight:g} * {_bracketed(term)}" for weight, term in self.terms)

    @cached_property
    def needs(self) -> frozenset[type]:
        return _needs(*(term for _, term in self.terms))

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judged = [(weight, term, term.judge(evidence)) for weight, term in self.terms]
        applicable = sum([weight for weight, _, found in judged if found.value is not None])
        if applicable <= 0.0:
            why = "; ".join(f"{term.name}: {found.why}" for _, term, found in judged if found.value is None)
            return Judgement(None, why or "every weight is 0", tuple(_silent(term, found) for _, term, found in judged))
        stretch = sum([weight for weight, _ in self.terms]) / applicable
        parts = tuple([_weighted(weight * stretch, term, found) for weight, term, found in judged])
        return Judgement(total(parts), _renormalised(stretch, judged), parts)


@dataclass(frozen=True)
class OnlyIf(Reward):
    """A reward behind gates. While one is closed, the parts keep their values, and every contribution is 0."""

    inner: Reward
    gates: tuple[Reward, ...]

    @cached_property
    def name(self) -> str:
        if _has_label(self.inner):  # the gates have lines of their own below it
            return self.inner.name
        return f"{_bracketed(self.inner)}.only_if({', '.join(gate.name for gate in self.gates)})"

    @cached_property
    def needs(self) -> frozenset[type]:
        return _needs(self.inner, *self.gates)

    def judge(self, evidence: EvidenceSet) -> Judgement:
        found = self.inner.judge(evidence)
        parts = unfold(self.inner, found)
        gates = tuple([_gate(gate, gate.judge(evidence)) for gate in self.gates])
        closed = [gate for gate in gates if gate.closes]
        if closed:
            parts = tuple(part.silenced() for part in parts)
            return Judgement(0.0, "; ".join(f"closed by {gate.name}: {gate.why}" for gate in closed), parts + gates)
        return Judgement(found.value, found.why, parts + gates)


@dataclass(frozen=True)
class Clip(Reward):
    """A reward kept within limits."""

    inner: Reward
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise RewardError(f"clip({self.low:g}, {self.high:g}): the lower limit must not exceed the upper")

    @cached_property
    def name(self) -> str:
        return f"{_bracketed(self.inner)}.clip({self.low:g}, {self.high:g})"

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        found = self.inner.judge(evidence)
        if found.value is None:
            return found
        value = min(max(found.value, self.low), self.high)
        return _adjusted(self.inner, found, value, f"clip({self.low:g}, {self.high:g})")


@dataclass(frozen=True)
class AtLeast(Reward):
    """1 where a reward reaches a threshold, else 0."""

    inner: Reward
    threshold: float

    @cached_property
    def name(self) -> str:
        return f"{_bracketed(self.inner)}.at_least({self.threshold:g})"

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        found = self.inner.judge(evidence)
        if found.value is None:
            return found
        value = 1.0 if found.value >= self.threshold else 0.0
        reason = f"{found.value:.3f} {'reaches' if value else 'is below'} {self.threshold:g}"
        judged = _adjusted(self.inner, found, value, f"at_least({self.threshold:g})")
        return Judgement(value, f"{reason} ({found.why})" if found.why else reason, judged.parts)


@dataclass(frozen=True)
class Minimum(Reward):
    """The smallest of several rewards; those that are not applicable are left out."""

    rewards: tuple[Reward, ...]

    @cached_property
    def name(self) -> str:
        return f"minimum({', '.join(term.name for term in self.rewards)})"

    @cached_property
    def needs(self) -> frozenset[type]:
        return _needs(*self.rewards)

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judged = [(term, term.judge(evidence)) for term in self.rewards]
        values = [found.value for _, found in judged if found.value is not None]
        if not values:
            why = "; ".join(f"{term.name}: {found.why}" for term, found in judged)
            return Judgement(None, why, tuple(_silent(term, found) for term, found in judged))
        smallest = min(values)
        chosen = next(index for index, (_, found) in enumerate(judged) if found.value == smallest)
        parts = tuple(_weighted(float(index == chosen), *pair) for index, pair in enumerate(judged))
        return Judgement(smallest, f"the smallest: {judged[chosen][0].name}", parts)


@dataclass(frozen=True)
class Named(Reward):
    """A reward under a name of its own."""

    inner: Reward
    label: str

    @property
    def name(self) -> str:
        return self.label

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        if isinstance(self.inner, OnlyIf):  # it says the same whether the name or the gates were given first
            return OnlyIf(Named(self.inner.inner, self.label), self.inner.gates).judge(evidence)
        return self.inner.judge(evidence)


def reward(function: Callable[P, Score]) -> Function[P]:
    """Make a reward of a function whose parameters are annotated with types of evidence and that returns a Score.

    Raises:
        RewardError: the signature says something else; the message says what to change.
    """
    return Function(function)


def minimum(*rewards: Reward) -> Minimum:
    """The smallest of the rewards."""
    if not rewards:
        raise RewardError("minimum() of no reward: name at least one")
    return Minimum(tuple(_reward(each, "an argument of minimum") for each in rewards))


def unfold(owner: Reward, judged: Judgement) -> tuple[Part, ...]:
    """The top parts of a judgement: those of a composition, or the reward itself where it has none."""
    if judged.parts:
        return judged.parts
    return (_weighted(1.0, owner, judged),)


def _missing(needs: frozenset[type], evidence: EvidenceSet) -> str:
    """Why the whole must stay unscored; empty when all evidence is there."""
    if not evidence.infrastructure and needs <= evidence.records.keys():
        return ""
    causes = [
        f"{kind.__name__}: {evidence.infrastructure.get(kind, 'was not gathered')}"
        for kind in needs
        if kind in evidence.infrastructure or kind not in evidence.records
    ]
    return "; ".join(sorted(causes))


def _cause(parts: tuple[Part, ...], evidence: EvidenceSet) -> str | None:
    """What the patch itself did that stopped the run or closed a gate."""
    run = evidence.records.get(TestRun)
    if isinstance(run, TestRun) and run.end is not End.COMPLETED:
        return f"{run.end.value}: {run.detail}" if run.detail else run.end.value
    closed = [part for part in parts if part.closes]
    return "; ".join(f"{part.name}: {part.why}" for part in closed) or None


def _terms(term: Reward) -> tuple[tuple[float, Reward], ...]:
    return term.terms if isinstance(term, Sum) else ((1.0, term),)


def _needs(*rewards: Reward) -> frozenset[type]:
    return frozenset().union(*(each.needs for each in rewards))


def _weighted(weight: float, term: Reward, found: Judgement) -> Part:
    if found.value is None:
        return _silent(term, found)
    return Part(
        term.name,
        found.value,
        weight,
        weight * found.value,
        found.why,
        scaled(found.parts, weight),
    )


def _silent(term: Reward, found: Judgement) -> Part:
    """A part that takes no part in the whole."""
    return Part(term.name, found.value, 0.0, 0.0, found.why, scaled(found.parts, 0.0))


def _gate(gate: Reward, found: Judgement) -> Part:
    return Part(gate.name, found.value, 0.0, 0.0, found.why, scaled(found.parts, 0.0), Role.GATE)


def _adjusted(inner: Reward, found: Judgement, value: float, label: str) -> Judgement:
    before = found.value or 0.0
    parts = unfold(inner, found)
    if value != before:
        reason = f"{before:.3f} becomes {value:.3f}"
        parts += (Part(label, None, 0.0, value - before, reason, role=Role.ADJUSTMENT),)
    return Judgement(value, found.why, parts)


def _renormalised(stretch: float, judged: Iterable[tuple[float, Reward, Judgement]]) -> str:
    if stretch == 1.0:
        return ""
    missing = [term.name for weight, term, found in judged if found.value is None and weight]
    return f"weights x {stretch:.3f}, since {' and '.join(missing)} {plural(len(missing), 'does', 'do')} not apply"


def _has_label(term: Reward) -> bool:
    return isinstance(term, Named) or (isinstance(term, OnlyIf) and _has_label(term.inner))


def _bracketed(term: Reward) -> str:
    return f"({term.name})" if isinstance(term, Sum) else term.name


def _reward(value: object, where: str) -> Reward:
    if isinstance(value, Reward):
        return value
    raise RewardError(f"{where} is {value!r}, which is no reward: decorate the function with @reward")
