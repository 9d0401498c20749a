"""The verdict of a reward: a value or *unscored*, and the tree of contributions that add up to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from regrade.rewards.assurance_level import AssuranceLevel

NOT_APPLICABLE = "not applicable: "
"""Prefix of a breakdown's cause if it is unscored because no part applies."""


class Role(StrEnum):
    """The effect of a part on the value."""

    PART = "part"
    """Adds weight x value."""
    GATE = "gate"
    """Adds nothing. It is closed if its value is below 1; then all contributions are 0."""
    ADJUSTMENT = "adjustment"
    """Adds the difference that a limit or a threshold makes."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the tree. The contributions of `parts`, if any, add up to `contribution`."""

    name: str
    value: float | None
    """The part's own value, before weighting; None if it is unscored."""
    weight: float
    """Its share of the whole, including its share of the weights of inapplicable parts."""
    contribution: float
    """Its share of the whole value: weight x value, or 0 under a closed gate."""
    why: str
    parts: tuple[Part, ...] = ()
    role: Role = Role.PART

    @property
    def closes(self) -> bool:
        """Is this a closed gate?"""
        return self.role is Role.GATE and self.value is not None and self.value < 1.0

    def scaled(self, factor: float) -> Part:
        """This part inside a whole of weight `factor`."""
        if factor == 1.0:
            return self
        weight, contribution = self.weight * factor, self.contribution * factor
        return Part(self.name, self.value, weight, contribution, self.why, scaled(self.parts, factor), self.role)

    def silenced(self) -> Part:
        """This part under a closed gate: with its value and weight, and without contribution."""
        parts = tuple(part.silenced() for part in self.parts)
        return Part(self.name, self.value, self.weight, 0.0, self.why, parts, self.role)


def scaled(parts: tuple[Part, ...], factor: float) -> tuple[Part, ...]:
    """The parts inside a whole of weight `factor`."""
    return tuple([part.scaled(factor) for part in parts]) if parts else ()


class Breakdown(msgspec.Struct, frozen=True):
    """The verdict of a reward on one patch.

    The contributions of `parts` add up to `value` (to 1e-9), gates, limits and thresholds included.
    """

    value: float | None
    """None exactly if `status` is "unscored". Unscored is not zero and must never enter an average as zero."""
    status: str
    """`scored` or `unscored`."""
    cause: str | None = None
    """Unscored: the reason. Scored: the act of the patch that stopped the run or closed a gate, if any."""
    assurance: str = AssuranceLevel.IN_PROCESS
    """An `AssuranceLevel`, or `not recorded`."""
    parts: tuple[Part, ...] = ()

    @property
    def is_scored(self) -> bool:
        return self.value is not None

    @property
    def is_lost(self) -> bool:
        """Is it unscored because evidence could not be gathered, not because no part applies?"""
        return self.value is None and not (self.cause or "").startswith(NOT_APPLICABLE)

    @property
    def not_excluded(self) -> str:
        """What a verdict of its level does not exclude, in one line; empty for levels above in-process."""
        return AssuranceLevel(self.assurance).not_excluded if self.assurance in list(AssuranceLevel) else ""

    def walk(self) -> Iterator[Part]:
        """Every part, parents before children."""
        pending = list(reversed(self.parts))
        while pending:
            part = pending.pop()
            yield part
            pending.extend(reversed(part.parts))

    def to_json(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`; `from_json` reads it back unchanged."""
        return _with_lists(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Breakdown:
        """The breakdown of a record of `to_json`. Raises ValueError for a record of another form."""
        return msgspec.convert(record, cls)

    def __str__(self) -> str:
        """The tree as plain text, one line a part."""
        head = "unscored" if self.value is None else f"{self.value:.3f}"
        lines = [head + (f"  {self.cause}" if self.cause else "")]
        lines.extend(_lines(self.parts, self.value, depth=1))
        note = f"not excluded: {self.not_excluded}" if self.not_excluded else ""
        return "\n".join([*lines, f"assurance: {self.assurance}", *filter(None, [note])])


def _with_lists(record: dict[str, Any]) -> dict[str, Any]:
    """The record with lists in the place of tuples, as JSON returns it."""
    if "parts" in record:
        record["parts"] = [_with_lists(part) for part in record["parts"]]
    return record


def total(parts: tuple[Part, ...]) -> float:
    """The sum of the contributions, independent of their order and rounded to 12 digits."""
    return round(math.fsum([part.contribution for part in parts]), 12)


def rounded_shares(shares: Sequence[float], whole: float | None, digits: int = 3) -> list[float]:
    """The shares of a whole, rounded so that they add up to the rounded whole: the nearest such numbers.

    Shares of 0 stay so. If the whole is unknown, or is not the sum of the shares, each is rounded by itself.
    """
    unit = 10.0**digits
    rounded = [round(float(f"{share:.{digits}f}") * unit) for share in shares]
    missing = 0 if whole is None else round(float(f"{whole:.{digits}f}") * unit) - sum(rounded)
    step = 1 if missing > 0 else -1
    nearest = sorted(
        (index for index, share in enumerate(shares) if share),
        key=lambda index: step * (rounded[index] - shares[index] * unit),
    )
    if abs(missing) <= len(nearest):
        for index in nearest[: abs(missing)]:
            rounded[index] += step
    return [count / unit for count in rounded]


def arithmetic(part: Part, contribution: float | None = None) -> str:
    """The calculation of the contribution, such as `0.600 x 1.000 = 0.600`.

    Args:
        contribution: as it is printed, see `rounded_shares`; None: the part's own.
    """
    contribution = part.contribution if contribution is None else contribution
    if part.role is Role.GATE:
        return "gate, not applicable" if part.value is None else f"gate {'closed' if part.closes else 'open'}"
    if part.role is Role.ADJUSTMENT:
        return f"{contribution:+.3f}"
    if part.value is None:
        return "not applicable"
    product = f"{part.weight:.3f} x {part.value:.3f}"
    is_silenced = abs(part.contribution - part.weight * part.value) > 1e-9
    return f"{product}, gated: 0" if is_silenced else f"{product} = {contribution:.3f}"


def _lines(parts: tuple[Part, ...], whole: float | None, depth: int) -> Iterator[str]:
    for part, contribution in zip(parts, rounded_shares([part.contribution for part in parts], whole), strict=True):
        yield f"{'  ' * depth}{part.name}: {arithmetic(part, contribution)}  {part.why}".rstrip()
        yield from _lines(part.parts, contribution, depth + 1)
