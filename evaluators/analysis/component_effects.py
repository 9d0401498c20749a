"""What each component of a composed reward does to the attempts of a group: its effect on what they are paid.

A trainer that compares attempts sees of a reward only how they differ. So the value V_i that attempt i of a group is
paid is split into effects of the components that add up to its difference from the group's mean. With leaves l of the
reward, their values v, their weights w with all gates open, and their weights a now (a = w, or 0 behind a closed gate):

    V_i = sum_l a_li v_li + (what limits, thresholds and prices of steps add)
    m_l = sum_i a_li v_li / sum_i a_li            the leaf's mean where it is paid
    effect of the leaf l     a_li (v_li - m_l)
    effect of the gate g     - sum_l (w_li - a_li) m_l / (closed gates of l), over the leaves behind g, if g is closed
    effect of the weights    sum_l w_li m_l       differs if a part is not applicable, or another one is the minimum

So a gate has what all attempts behind it have in common, and a leaf has what differs among those that it pays: the law
of total variance. A leaf that is constant where it is paid has no effect, whatever gates are before it; what two closed
gates both withhold, they share (Shapley's value of a conjunction).

An attempt that is paid a fixed value for a cause (a price, as of breakage) differs from the mean of the others by that
price alone. All effects are centred in the group. Then, with the group's centred values D_i:

    share of k = sum_i e_ki D_i / sum_i D_i^2     (the shares of a group add up to 1)
    k decides in a group if its share there is above one half
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from regrade.rewards.breakdown import Part, Role

WEIGHTS, LIMITS, STEP_COSTS = "weights", "limits", "cost(steps)"
"""Components of no leaf: which parts apply or are the minimum, the limits of a training value, an agent's steps."""
NOTHING = 1e-9
"""Smaller differences are rounding."""
HALF = 0.5 + 1e-9
PREFIX = "reward/"
GROUPS, DIFFERENT = f"{PREFIX}groups", f"{PREFIX}different_groups"
"""Groups that a step compares, and those of them whose attempts are paid differently."""


def gate_name(gate: str) -> str:
    """The component of a gate."""
    return f"only_if({gate})"


def price_name(cause: str) -> str:
    """The component of a cause that is paid a value of its own, such as `breakage`."""
    return f"price({cause})"


@dataclass(frozen=True, kw_only=True)
class PaidAttempt:
    """A scored attempt, as a trainer pays it."""

    value: float
    """What it is paid in all, an agent's steps included."""
    parts: tuple[Part, ...] = ()
    """Of the reward's verdict; empty if it was not executed."""
    cause: str = ""
    """What is paid a value of its own in the place of the reward's; empty: the reward is paid."""
    scale: float = 1.0
    """Factor of the reward's value."""
    offset: float = 0.0
    """Added to every value of the reward."""
    step_costs: float = 0.0
    """What an agent's steps cost, at most 0."""
    is_resolved: bool = False
    """Is it a clean fix, by execution, without tampering?"""
    broke: bool = False
    """Does it break a test, or fail to compile?"""


class _Term(NamedTuple):
    """A leaf of a breakdown, or what a limit or a threshold adds (as its value, with weight 1)."""

    value: float | None
    weight: float
    active: float
    """The weight now: 0 behind a closed gate."""
    closed_by: tuple[str, ...]
    is_leaf: bool

    @property
    def paid(self) -> float:
        return self.active * (self.value or 0.0)


ABSENT = _Term(None, 0.0, 0.0, (), is_leaf=True)
NOTHING_ADDED = _Term(0.0, 1.0, 1.0, (), is_leaf=False)


@dataclass
class _Terms:
    """One attempt's terms by (name, number of the leaf with that name), and the values of its gates."""

    attempt: PaidAttempt
    of: dict[tuple[str, int], _Term] = field(default_factory=dict)
    gates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._walk(self.attempt.parts, ())

    def _walk(self, parts: Sequence[Part], closers: tuple[str, ...]) -> None:
        gates = [part for part in parts if part.role is Role.GATE]
        for gate in gates:
            if gate.value is not None:
                name = gate_name(gate.name)
                self.gates[name] = min(gate.value, self.gates.get(name, 1.0))
        closed = (*closers, *(gate_name(gate.name) for gate in gates if gate.closes))
        for part in parts:
            if part.role is Role.GATE:
                continue
            if any(inner.role is not Role.GATE for inner in part.parts):
                self._walk(part.parts, closed)
            else:
                self._add(part, closed)

    def _add(self, part: Part, closed: tuple[str, ...]) -> None:
        number = sum(name == part.name for name, _ in self.of)
        scale = self.attempt.scale
        is_product = abs(part.contribution - part.weight * (part.value or 0.0)) < NOTHING
        if part.role is Role.PART and (is_product or closed):
            weight = 0.0 if part.value is None else part.weight * scale
            term = _Term(part.value, weight, 0.0 if closed else weight, closed, is_leaf=True)
        else:
            term = _Term(part.contribution * scale, 1.0, 0.0 if closed else 1.0, closed, is_leaf=False)
        self.of[part.name, number] = term

    @property
    def limits(self) -> float:
        """What the limits of the training value add."""
        attempt = self.attempt
        if attempt.cause:
            return 0.0
        rest = attempt.value - attempt.step_costs - attempt.offset - sum(term.paid for term in self.of.values())
        return rest if abs(rest) > NOTHING else 0.0

    def number(self, name: str) -> float | None:
        """What is shown of a component: a leaf's value, a gate's; of a price, whether it is paid; else what is added.
        None if it does not apply."""
        attempt = self.attempt
        if name in self.gates:
            return self.gates[name]
        if name == STEP_COSTS:
            return attempt.step_costs
        if name == LIMITS:
            return self.limits
        if name.startswith("price("):
            return float(name == price_name(attempt.cause))
        values = [term.value for (own, _), term in self.of.items() if own == name and term.value is not None]
        return sum(values) / len(values) if values else None

    def pays(self, name: str) -> bool:
        """Is a leaf's contribution above 0?"""
        if self.attempt.cause:
            return False
        return sum(term.paid for (own, _), term in self.of.items() if own == name) > NOTHING


def effects(group: Sequence[PaidAttempt]) -> dict[str, list[float]]:
    """Component -> its effect on each attempt, centred; the effects of an attempt add up to its difference from the
    group's mean. A component without any effect may be absent."""
    return _effects([_Terms(attempt) for attempt in group])


def _effects(group: Sequence[_Terms]) -> dict[str, list[float]]:
    rewarded = [row for row, terms in enumerate(group) if not terms.attempt.cause]
    found: dict[str, list[float]] = {}
    for name, row, amount in _effects_of_terms(group, rewarded):
        found.setdefault(name, [0.0] * len(group))[row] += amount
    for amounts in found.values():  # an attempt with a price differs from the mean of the others by that alone
        _centre(amounts, rewarded)
    outcomes = [terms.attempt.value - terms.attempt.step_costs for terms in group]
    usual = _mean([outcomes[row] for row in rewarded])
    for row, terms in enumerate(group):
        if terms.attempt.cause:
            found.setdefault(price_name(terms.attempt.cause), [0.0] * len(group))[row] += outcomes[row] - usual
    found[STEP_COSTS] = [terms.attempt.step_costs for terms in group]
    for amounts in found.values():
        _centre(amounts, range(len(group)))
    return {name: [0.0 if abs(each) < NOTHING else each for each in amounts] for name, amounts in found.items()}


def _effects_of_terms(group: Sequence[_Terms], rewarded: Sequence[int]) -> Iterator[tuple[str, int, float]]:
    """(component, row, amount) of the leaves, the gates, the weights and the limits; not centred."""
    for key in dict.fromkeys(key for row in rewarded for key in group[row].of):
        is_leaf = next(group[row].of[key].is_leaf for row in rewarded if key in group[row].of)
        terms = [group[row].of.get(key, ABSENT if is_leaf else NOTHING_ADDED) for row in rewarded]
        mean = _mean_where_paid(terms)
        for row, term in zip(rewarded, terms, strict=True):
            if term.value is not None:
                yield key[0], row, term.active * (term.value - mean)
            yield WEIGHTS, row, term.weight * mean
            for gate in term.closed_by:
                yield gate, row, -(term.weight - term.active) * mean / len(term.closed_by)
    for row in rewarded:
        yield LIMITS, row, group[row].limits


def _mean_where_paid(terms: Sequence[_Term]) -> float:
    """The mean value of a term, weighted by what it weighs now; if it is paid nowhere, by its weight."""
    known = [term for term in terms if term.value is not None]
    for weights in ([term.active for term in known], [term.weight for term in known], [1.0] * len(known)):
        whole = math.fsum(weights)
        if whole > 0:
            return math.fsum(w * (term.value or 0.0) for w, term in zip(weights, known, strict=True)) / whole
    return 0.0


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else 0.0


def _centre(amounts: list[float], rows: Collection[int]) -> None:
    mean = _mean([amounts[row] for row in rows])
    for row in rows:
        amounts[row] -= mean


def component_values(attempt: PaidAttempt, causes: Collection[str] = ()) -> dict[str, float]:
    """Component -> its number of this attempt: a leaf's or a gate's value; of a price, whether it is paid. Absent where
    it does not apply. The names are those of `component_numbers`.

    Args:
        causes: those with a price.
    """
    terms = _Terms(attempt)
    names = dict.fromkeys([*(name for name, _ in terms.of), *terms.gates, *map(price_name, causes)])
    return {name: number for name in names if (number := terms.number(name)) is not None}


def component_numbers(
    attempts: Sequence[PaidAttempt], groups: Sequence[Sequence[PaidAttempt]], causes: Collection[str] = ()
) -> dict[str, float]:
    """The numbers of a training step, as `reward/COMPONENT/...`; one that is not defined is absent.

    - `mean`: of all attempts to which the component applies: a leaf's or a gate's value; of a price, the share of
      attempts that are paid it; of limits, thresholds and step costs, what they add.
    - `std_within`: the same number's standard deviation within groups, pooled.
    - `share`: of the variance within groups; `decides`: the share of the groups with different values in which its
      share is above one half.
    - `with_resolved`, `with_breakage`: correlation of its effect with a clean fix, and with breakage, within groups.
    - `paid_unresolved`: the share of all attempts that are no clean fix and to which the leaf adds more than 0.

    Also `reward/groups`, those with at least two attempts, and `reward/different_groups`.

    Args:
        attempts: all scored ones; what is unscored has no value.
        groups: the attempts that the trainer compares with each other.
        causes: those with a price, which then has a mean also where it is never paid.
    """
    if not attempts:
        return {}
    of_all = [_Terms(attempt) for attempt in attempts]
    compared = [[_Terms(attempt) for attempt in group] for group in groups if len(group) > 1]
    found = [_ComparedGroup.of(group) for group in compared]
    different = [group for group in found if group.variance > NOTHING**2]
    names = dict.fromkeys(price_name(cause) for cause in causes)
    for terms in of_all:
        names |= dict.fromkeys([*(name for name, _ in terms.of), *terms.gates])
    names |= dict.fromkeys(name for group in found for name in group.effects)
    numbers = {GROUPS: float(len(found)), DIFFERENT: float(len(different))}
    for name in names:
        if name in (WEIGHTS, LIMITS, STEP_COSTS) and not any(group.moves(name) for group in found):
            continue
        for key, value in _of_component(name, of_all, compared, different).items():
            numbers[f"{PREFIX}{name}/{key}"] = value
    return numbers


@dataclass(frozen=True)
class _ComparedGroup:
    effects: Mapping[str, Sequence[float]]
    values: Sequence[float]
    """Centred, as the others are."""
    resolved: Sequence[float]
    broke: Sequence[float]

    @classmethod
    def of(cls, group: Sequence[_Terms]) -> _ComparedGroup:
        columns = [
            [float(terms.attempt.value) for terms in group],
            [float(terms.attempt.is_resolved) for terms in group],
            [float(terms.attempt.broke) for terms in group],
        ]
        for column in columns:
            _centre(column, range(len(column)))
        return cls(_effects(group), *columns)

    @property
    def variance(self) -> float:
        return _dot(self.values, self.values)

    def effect(self, name: str) -> Sequence[float]:
        return self.effects.get(name, [0.0] * len(self.values))

    def moves(self, name: str) -> bool:
        return any(self.effects.get(name, ()))

    def covariance(self, name: str) -> float:
        return _dot(self.effect(name), self.values)


def _of_component(
    name: str, attempts: Sequence[_Terms], compared: Sequence[Sequence[_Terms]], different: Sequence[_ComparedGroup]
) -> dict[str, float]:
    known = [number for terms in attempts if (number := terms.number(name)) is not None]
    numbers: dict[str, float] = {}
    if known:
        numbers["mean"] = _mean(known)
        spread = _spread_within([[terms.number(name) for terms in group] for group in compared])
        if spread is not None:
            numbers["std_within"] = spread
    if different:
        numbers["share"] = sum(group.covariance(name) for group in different) / sum(
            group.variance for group in different
        )
        numbers["decides"] = _mean([float(group.covariance(name) > HALF * group.variance) for group in different])
    for key, outcome in (("with_resolved", "resolved"), ("with_breakage", "broke")):
        pairs = [(group.effect(name), getattr(group, outcome)) for group in different]
        square = sum(_dot(one, one) for one, _ in pairs) * sum(_dot(other, other) for _, other in pairs)
        if square > NOTHING**2:
            numbers[key] = sum(_dot(one, other) for one, other in pairs) / math.sqrt(square)
    if any(own == name for terms in attempts for own, _ in terms.of):
        numbers["paid_unresolved"] = _mean(
            [float(not terms.attempt.is_resolved and terms.pays(name)) for terms in attempts]
        )
    return numbers


def _spread_within(groups: Sequence[Sequence[float | None]]) -> float | None:
    """The pooled standard deviation within groups; None if no group has two numbers."""
    squares, freedom = 0.0, 0
    for group in groups:
        known = [number for number in group if number is not None]
        if len(known) > 1:
            _centre(known, range(len(known)))
            squares += _dot(known, known)
            freedom += len(known) - 1
    if not freedom:
        return None
    return math.sqrt(squares / freedom) if squares > NOTHING**2 else 0.0


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))
