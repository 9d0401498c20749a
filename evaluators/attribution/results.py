"""Results of attribution: the share of each hunk in a patch's reward (see `attribution.hunk_attribution`).

The worth of some hunks is the reward of the patch that consists of them. The share of each is its Shapley value, so
shares add up to reward(patch) - reward(nothing); see `regrade.evaluators.attribution.shapley`. This explains the
reward, not the reasoning of the model that wrote the patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from regrade.datasets.hunks import Hunk
from regrade.datasets.patches import Patch
from regrade.evaluators.attribution.shapley import Share
from regrade.evaluators.storage.json_numbers import finite_or_none
from regrade.rewards.breakdown import Breakdown, Role


@dataclass(frozen=True)
class Subset:
    """The result of the patch that consists of some of the groups."""

    breakdown: Breakdown
    passes: bool | None = None
    """Do all FAIL_TO_PASS tests pass, without breakage? None: unknown, or there are no tests."""
    fixed: frozenset[str] = frozenset()
    """FAIL_TO_PASS tests that pass."""
    broken: frozenset[str] = frozenset()
    """PASS_TO_PASS tests that no longer pass."""

    @property
    def value(self) -> float | None:
        """The reward; None: unscored."""
        return self.breakdown.value

    @property
    def cause(self) -> str:
        """Unscored: the reason. Scored: the cause of a stopped run or closed gate, if any."""
        return self.breakdown.cause or ""

    @cached_property
    def parts(self) -> dict[str, float]:
        """Top part of the reward -> its contribution. Parts of one name are added up."""
        contributions: dict[str, float] = {}
        for part in self.breakdown.parts if self.breakdown.is_scored else ():
            if part.role is not Role.GATE:
                contributions[part.name] = contributions.get(part.name, 0.0) + part.contribution
        return contributions


@dataclass(frozen=True, kw_only=True)
class Without:
    """The patch without one of its groups, compared with the whole patch."""

    value: float | None
    cause: str
    change: float | None
    """The reward of the whole patch less `value`; None: one of them is unscored."""
    no_longer_fixed: tuple[str, ...]
    """FAIL_TO_PASS tests that pass only with the whole patch."""
    newly_broken: tuple[str, ...]
    """PASS_TO_PASS tests that break only without the group."""
    newly_fixed: tuple[str, ...]
    """FAIL_TO_PASS tests that pass only without the group."""
    no_longer_broken: tuple[str, ...]
    """PASS_TO_PASS tests that break only with the whole patch."""


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """The share of one group of hunks in the reward."""

    hunks: tuple[Hunk, ...]
    why: str
    """Reason for the group; empty for a single hunk."""
    share: Share
    parts: Mapping[str, float]
    """Top part of the reward -> the group's share in it; these add up to the share. Empty: unknown."""
    alone: float | None
    """The reward of the group alone; None: unknown."""
    without: Without

    @property
    def name(self) -> str:
        return ", ".join(hunk.name for hunk in self.hunks)


@dataclass(frozen=True)
class Smallest:
    """A part of the patch that passes: all FAIL_TO_PASS tests pass, without breakage."""

    hunks: tuple[Hunk, ...]
    patch: Patch
    proof: str
    """`smallest`: every subset with fewer groups of hunks was run, and none passes. `one-minimal`: no part with one
    group less passes. Empty: not proven."""
    why: str
    """The grounds of the proof, or the missing ones, in words."""


@dataclass(frozen=True)
class Cost:
    """The cost of an attribution."""

    subsets: int
    """Scored patches of some of the groups, the whole and the empty one included."""
    from_store: int
    """Of these, patches whose evidence was stored."""
    executions: int
    """Candidates that were run for the other patches."""
    seconds: float
    """Wall time."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The attribution of a patch's reward to its hunks."""

    reward: str
    whole: Subset
    nothing: Subset
    groups: tuple[GroupShare, ...]
    is_exact: bool
    """Are the shares computed from every subset? Otherwise they are estimates from `orders` sampled orders."""
    orders: int
    interactions: Mapping[tuple[int, int], float]
    """Indices of two groups -> their interaction (see `regrade.evaluators.attribution.shapley.interactions`); empty
    unless `is_exact`."""
    smallest: Smallest | None
    """None: none of the scored subsets passes, or there are no tests."""
    unscored: tuple[tuple[tuple[int, ...], str], ...]
    """(indices of the groups, reason) of each unscored subset. It never counts as 0."""
    cost: Cost
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float | None:
        """reward(patch) - reward(nothing), the sum of the shares; None: one of them is unscored."""
        return minus(self.whole.value, self.nothing.value)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the texts of hunks and patches. Numbers that are not finite become null."""
        return {
            "reward": self.reward,
            "value": self.whole.value,
            "nothing": self.nothing.value,
            "difference": self.gap,
            "method": "exact" if self.is_exact else "sampled",
            "orders": self.orders,
            "groups": [_group_json(number, group) for number, group in enumerate(self.groups, 1)],
            "interactions": [
                {"groups": [index + 1 for index in pair], "value": value} for pair, value in self.interactions.items()
            ],
            "smallest_passing": _smallest_json(self.smallest),
            "unscored": [{"groups": [index + 1 for index in groups], "cause": why} for groups, why in self.unscored],
            "cost": asdict(self.cost),
            "notes": list(self.notes),
        }


def minus(one: float | None, other: float | None) -> float | None:
    """The difference; None: one of them is None."""
    return None if one is None or other is None else one - other


def _group_json(number: int, group: GroupShare) -> dict[str, Any]:
    share, without = group.share, group.without
    return {
        "group": number,
        "hunks": [{"name": hunk.name, **asdict(hunk)} for hunk in group.hunks],
        "together": group.why,
        "value": share.value,
        "low": finite_or_none(share.low),
        "high": finite_or_none(share.high),
        "standard_error": finite_or_none(share.standard_error),
        "parts": dict(group.parts),
        "alone": group.alone,
        "without": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(without).items()},
    }


def _smallest_json(smallest: Smallest | None) -> dict[str, Any] | None:
    if smallest is None:
        return None
    names = [hunk.name for hunk in smallest.hunks]
    return {"hunks": names, "patch": smallest.patch.text, "proof": smallest.proof, "why": smallest.why}
