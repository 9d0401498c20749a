"""The algebra of rewards: typed functions of evidence, weighted sums, gates, limits, thresholds and minima.

    fix_bug = (0.6 * tests + 0.2 * impact + 0.1 * style).only_if(builds, untampered)

A missing value has two kinds. A part that is *not applicable* (`Score.unscored`) passes its weight to the other parts
of its sum, in proportion to their weights. Evidence that could *not be gathered* leaves the whole reward unscored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NoReturn, ParamSpec

import msgspec

from regrade.datasets.limited_calls import OutOfTimeError, call_within
from regrade.datasets.plurals import plural
from regrade.rewards.breakdown import NOT_APPLICABLE, Breakdown, Part, Role, scaled, total
from regrade.rewards.declaration import evidence_types
from regrade.rewards.errors import RewardError, blame
from regrade.rewards.evidence import End, EvidenceSet, TestRun
from regrade.rewards.score import Score, checked_weight
from regrade.rewards.source_digest import source_digest
from regrade.rewards.time_limit import VARIABLE, longest_seconds

P = ParamSpec("P")
OWN_FOLDER = __file__.removesuffix(Path(__file__).name)


class Judgement(msgspec.Struct, frozen=True):
    """The result of one node of a reward; its parts are scaled as if the node were the whole reward."""

    value: float | None
    why: str
    parts: tuple[Part, ...] = ()


class Reward(ABC):
    """A pure function of evidence. Add rewards, weight them (`0.6 * tests`), guard them with gates (`only_if`)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The reward's name in a breakdown."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[type]:
        """The types of evidence that the reward needs."""

    @abstractmethod
    def judge(self, evidence: EvidenceSet) -> Judgement:
        """The value and its parts. `evidence` contains all types in `needs` (see `evaluate`)."""

    def evaluate(self, evidence: EvidenceSet) -> Breakdown:
        """The verdict on the evidence of one patch.

        It is unscored if evidence is missing through no fault of the patch, or if no part applies.

        Raises:
            RewardError: a reward function raised, returned something other than a Score in [0, 1], or did not end in
                time (`longest_seconds`).
        """
        missing = _missing(self.needs, evidence)
        if missing:
            return Breakdown(None, "unscored", missing, evidence.assurance)
        try:
            seconds = longest_seconds()
            judgement = (
                call_within(seconds, lambda: self.judge(evidence)) if _has_own_code(self) else self.judge(evidence)
            )
        except RecursionError:
            raise RewardError("the reward is nested too deeply: compose it of fewer layers") from None
        except OutOfTimeError as error:
            raise RewardError(_blame_for_time(self, error)) from None
        parts = unfold(self, judgement)
        if judgement.value is None:
            return Breakdown(None, "unscored", f"{NOT_APPLICABLE}{judgement.why}", evidence.assurance, parts)
        return Breakdown(judgement.value, "scored", _cause(parts, evidence), evidence.assurance, parts)

    def only_if(self, *gates: Reward) -> OnlyIf:
        """This reward if every gate has the value 1 or is not applicable, else 0."""
        return OnlyIf(self, tuple(_reward(gate, "a gate of only_if") for gate in gates))

    def clip(self, low: float = 0.0, high: float = 1.0) -> Clip:
        """This reward, limited to [low, high]."""
        return Clip(self, float(low), float(high))

    def at_least(self, threshold: float) -> AtLeast:
        """1 if this reward reaches the threshold, else 0: turns any reward into a gate."""
        return AtLeast(self, float(threshold))

    def otherwise(self, value: float) -> Otherwise:
        """This reward, or a fixed value where it is not applicable.

        In a sum, the weight of a part that is not applicable goes to the other parts. With `otherwise`, it does not.
        """
        return Otherwise(self, float(value))

    def named(self, name: str) -> Named:
        """This reward under another name; a named sum stays one part of a larger sum."""
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
        raise RewardError("rewards cannot be subtracted: for a penalty, add a reward that decreases with the defect")

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
    """A reward made from a function by `@reward`. It can still be called like the function."""

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
    def file(self) -> str:
        """The file of the function."""
        return self._function.__code__.co_filename

    @property
    def source(self) -> str:
        """The digest of the function's source: see `source_digest`."""
        return source_digest(self._function)

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
        return self.__qualname__  # pickled by reference, like a function

    def __repr__(self) -> str:
        return f"<reward {self.name}>"


@dataclass(frozen=True)
class Sum(Reward):
    """A weighted sum of rewards. Its value lies between 0 and the sum of the weights."""

    terms: tuple[tuple[float, Reward], ...]

    @cached_property
    def name(self) -> str:
        return " + ".join(f"{weight:g} * {_bracketed(term)}" for weight, term in self.terms)

    @cached_property
    def needs(self) -> frozenset[type]:
        return _needs(*(term for _, term in self.terms))

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judged = [(weight, term, term.judge(evidence)) for weight, term in self.terms]
        applicable = sum([weight for weight, _, result in judged if result.value is not None])
        if applicable <= 0.0:
            why = "; ".join(f"{term.name}: {result.why}" for _, term, result in judged if result.value is None)
            return Judgement(
                None, why or "every weight is 0", tuple(_unweighted(term, result) for _, term, result in judged)
            )
        stretch = sum([weight for weight, _ in self.terms]) / applicable
        parts = tuple([_weighted(weight * stretch, term, result) for weight, term, result in judged])
        return Judgement(total(parts), _explain_renormalisation(stretch, judged), parts)


@dataclass(frozen=True)
class OnlyIf(Reward):
    """A reward with gates. If a gate is closed, the parts keep their values, and every contribution is 0."""

    inner: Reward
    gates: tuple[Reward, ...]

    @cached_property
    def name(self) -> str:
        if _has_label(self.inner):  # a breakdown lists the gates below it
            return self.inner.name
        return f"{_bracketed(self.inner)}.only_if({', '.join(gate.name for gate in self.gates)})"

    @cached_property
    def needs(self) -> frozenset[type]:
        return _needs(self.inner, *self.gates)

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judgement = self.inner.judge(evidence)
        parts = unfold(self.inner, judgement)
        gates = tuple([_gate(gate, gate.judge(evidence)) for gate in self.gates])
        closed = [gate for gate in gates if gate.closes]
        if closed:
            parts = tuple(part.silenced() for part in parts)
            return Judgement(0.0, "; ".join(f"closed by {gate.name}: {gate.why}" for gate in closed), parts + gates)
        return Judgement(judgement.value, judgement.why, parts + gates)


@dataclass(frozen=True)
class Clip(Reward):
    """A reward limited to an interval."""

    inner: Reward
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise RewardError(f"clip({self.low:g}, {self.high:g}): the lower limit must not exceed the upper limit")

    @cached_property
    def name(self) -> str:
        return f"{_bracketed(self.inner)}.clip({self.low:g}, {self.high:g})"

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judgement = self.inner.judge(evidence)
        if judgement.value is None:
            return judgement
        value = min(max(judgement.value, self.low), self.high)
        return _adjusted(self.inner, judgement, value, f"clip({self.low:g}, {self.high:g})")


@dataclass(frozen=True)
class AtLeast(Reward):
    """1 if a reward reaches a threshold, else 0."""

    inner: Reward
    threshold: float

    @cached_property
    def name(self) -> str:
        return f"{_bracketed(self.inner)}.at_least({self.threshold:g})"

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judgement = self.inner.judge(evidence)
        if judgement.value is None:
            return judgement
        value = 1.0 if judgement.value >= self.threshold else 0.0
        reason = f"{judgement.value:.3f} {'reaches' if value else 'is below'} {self.threshold:g}"
        parts = _adjusted(self.inner, judgement, value, f"at_least({self.threshold:g})").parts
        return Judgement(value, f"{reason} ({judgement.why})" if judgement.why else reason, parts)


@dataclass(frozen=True)
class Otherwise(Reward):
    """A reward with a value for patches to which it is not applicable."""

    inner: Reward
    value: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise RewardError(f"otherwise({self.value:g}): pass a value from 0 to 1, as of a Score")

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judgement = self.inner.judge(evidence)
        if judgement.value is not None:
            return judgement
        return Judgement(self.value, f"{NOT_APPLICABLE}{judgement.why}")


@dataclass(frozen=True)
class Minimum(Reward):
    """The smallest of several rewards, without those that are not applicable."""

    rewards: tuple[Reward, ...]

    @cached_property
    def name(self) -> str:
        return f"minimum({', '.join(term.name for term in self.rewards)})"

    @cached_property
    def needs(self) -> frozenset[type]:
        return _needs(*self.rewards)

    def judge(self, evidence: EvidenceSet) -> Judgement:
        judged = [(term, term.judge(evidence)) for term in self.rewards]
        values = [result.value for _, result in judged if result.value is not None]
        if not values:
            why = "; ".join(f"{term.name}: {result.why}" for term, result in judged)
            return Judgement(None, why, tuple(_unweighted(term, result) for term, result in judged))
        smallest = min(values)
        chosen = next(index for index, (_, result) in enumerate(judged) if result.value == smallest)
        parts = tuple(_weighted(float(index == chosen), *pair) for index, pair in enumerate(judged))
        return Judgement(smallest, f"smallest: {judged[chosen][0].name}", parts)


@dataclass(frozen=True)
class Named(Reward):
    """A reward under another name."""

    inner: Reward
    label: str

    @property
    def name(self) -> str:
        return self.label

    @property
    def needs(self) -> frozenset[type]:
        return self.inner.needs

    def judge(self, evidence: EvidenceSet) -> Judgement:
        if isinstance(self.inner, OnlyIf):  # the order of `named` and `only_if` makes no difference
            return OnlyIf(Named(self.inner.inner, self.label), self.inner.gates).judge(evidence)
        return self.inner.judge(evidence)


def reward(function: Callable[P, Score]) -> Function[P]:
    """Make a reward from a function. Its parameters are annotated with types of evidence; it returns a Score.

    Raises:
        RewardError: the signature has another form; the message states the change to make.
    """
    return Function(function)


def minimum(*rewards: Reward) -> Minimum:
    """The smallest of the rewards."""
    if not rewards:
        raise RewardError("minimum() has no argument: pass at least one reward")
    return Minimum(tuple(_reward(argument, "an argument of minimum") for argument in rewards))


def unfold(owner: Reward, judgement: Judgement) -> tuple[Part, ...]:
    """The top parts of a judgement: those of a composition, or the reward itself."""
    return judgement.parts or (_weighted(1.0, owner, judgement),)


def own_code(whole: Reward) -> Iterator[Function[Any] | Reward]:
    """Of a composition, the reward functions and the rewards of classes that are not of this package."""
    pending: list[object] = [whole]
    while pending:
        node = pending.pop()
        if isinstance(node, Function):
            if not node.file.startswith(OWN_FOLDER):
                yield node
        elif isinstance(node, Reward):
            if not type(node).__module__.startswith(f"{__package__}."):
                yield node
            pending.extend(vars(node).values())
        elif isinstance(node, tuple):
            pending.extend(node)


def _has_own_code(whole: Reward) -> bool:
    """Does it run code of a user's? The functions and classes of this package end at once, and need no watch."""
    return next(own_code(whole), None) is not None


def _blame_for_time(whole: Reward, error: OutOfTimeError) -> str:
    """Which reward function, or reward of the user's own class, did not end, and at which line."""
    running = [frame.f_locals["self"] for frame in error.frames if frame.f_code is Function.judge.__code__]
    name, file = whole.name, type(whole).judge.__code__.co_filename
    if running:
        name, file = running[0].name, running[0].file
    line = next((frame.f_lineno for frame in error.frames if frame.f_code.co_filename == file), None)
    where = f" (it is at {Path(file).name}:{line})" if line else ""
    return (
        f"reward {name!r} did not end within {error.seconds:g} s{where}: a reward is a quick function of its evidence; "
        f"if it needs longer, set {VARIABLE} to seconds"
    )


def _missing(needs: frozenset[type], evidence: EvidenceSet) -> str:
    """The reason to leave the reward unscored; empty if all evidence is present."""
    if not evidence.infrastructure and needs <= evidence.records.keys():
        return ""
    causes = [
        f"{kind.__name__}: {evidence.infrastructure.get(kind, 'was not gathered')}"
        for kind in needs
        if kind in evidence.infrastructure or kind not in evidence.records
    ]
    return "; ".join(sorted(causes))


def _cause(parts: tuple[Part, ...], evidence: EvidenceSet) -> str | None:
    """The act of the patch that stopped the run or closed a gate."""
    run = evidence.records.get(TestRun)
    if isinstance(run, TestRun) and run.end is not End.COMPLETED:
        return f"{run.end.value}: {run.detail}" if run.detail else run.end.value
    closed = [part for part in parts if part.closes]
    return "; ".join(f"{part.name}: {part.why}" for part in closed) or None


def _terms(term: Reward) -> tuple[tuple[float, Reward], ...]:
    return term.terms if isinstance(term, Sum) else ((1.0, term),)


def _needs(*rewards: Reward) -> frozenset[type]:
    return frozenset().union(*(term.needs for term in rewards))


def _weighted(weight: float, term: Reward, judgement: Judgement) -> Part:
    if judgement.value is None:
        return _unweighted(term, judgement)
    contribution = weight * judgement.value
    return Part(term.name, judgement.value, weight, contribution, judgement.why, scaled(judgement.parts, weight))


def _unweighted(term: Reward, judgement: Judgement) -> Part:
    """A part without weight."""
    return Part(term.name, judgement.value, 0.0, 0.0, judgement.why, scaled(judgement.parts, 0.0))


def _gate(gate: Reward, judgement: Judgement) -> Part:
    return Part(gate.name, judgement.value, 0.0, 0.0, judgement.why, scaled(judgement.parts, 0.0), Role.GATE)


def _adjusted(inner: Reward, judgement: Judgement, value: float, label: str) -> Judgement:
    before = judgement.value or 0.0
    parts = unfold(inner, judgement)
    if value != before:
        reason = f"{before:.3f} becomes {value:.3f}"
        parts += (Part(label, None, 0.0, value - before, reason, role=Role.ADJUSTMENT),)
    return Judgement(value, judgement.why, parts)


def _explain_renormalisation(stretch: float, judged: Iterable[tuple[float, Reward, Judgement]]) -> str:
    if stretch == 1.0:
        return ""
    missing = [term.name for weight, term, result in judged if result.value is None and weight]
    return f"weights x {stretch:.3f}: {' and '.join(missing)} {plural(len(missing), 'is', 'are')} not applicable"


def _has_label(term: Reward) -> bool:
    return isinstance(term, Named) or (isinstance(term, OnlyIf) and _has_label(term.inner))


def _bracketed(term: Reward) -> str:
    return f"({term.name})" if isinstance(term, Sum) else term.name


def _reward(value: object, where: str) -> Reward:
    if isinstance(value, Reward):
        return value
    raise RewardError(f"{where} is {value!r}, not a reward: decorate the function with @reward")
