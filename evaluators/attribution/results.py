"""What each hunk of a patch has to do with its reward; `regrade.evaluators.attribution.hunk_attribution` finds it out.

The worth of some hunks is the reward of the patch that consists of them. What each is due is its Shapley value, so that
the values add up to reward(patch) - reward(nothing); see `regrade.evaluators.attribution.shapley`. This explains the
reward, not the mind of the model that wrote the patch.
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
    """What came of the patch of some of the groups."""

    breakdown: Breakdown
    passes: bool | None = None
    """Do all FAIL_TO_PASS pass, and is nothing broken? None: not known, or there are no tests."""
    fixed: frozenset[str] = frozenset()
    """FAIL_TO_PASS tests that pass."""
    broken: frozenset[str] = frozenset()
    """PASS_TO_PASS tests that no longer pass."""

    @property
    def value(self) -> float | None:
        """Its reward; None: unscored."""
        return self.breakdown.value

    @property
    def cause(self) -> str:
        """Unscored: why. Scored: what stopped the run or closed a gate, if anything did."""
        return self.breakdown.cause or ""

    @cached_property
    def parts(self) -> dict[str, float]:
        """Top part of the reward -> its contribution. Parts of one name are added up."""
        found: dict[str, float] = {}
        for part in self.breakdown.parts if self.breakdown.is_scored else ():
            if part.role is not Role.GATE:
                found[part.name] = found.get(part.name, 0.0) + part.contribution
        return found


@dataclass(frozen=True, kw_only=True)
class Without:
    """The patch without one of its groups, beside the whole patch."""

    value: float | None
    cause: str
    change: float | None
    """The reward of the whole less `value`: what is lost without the group; None where either is unscored."""
    no_longer_fixed: tuple[str, ...]
    """FAIL_TO_PASS tests that pass with the whole patch alone."""
    newly_broken: tuple[str, ...]
    """PASS_TO_PASS tests that are broken only without the group."""
    newly_fixed: tuple[str, ...]
    """FAIL_TO_PASS tests that pass only without the group."""
    no_longer_broken: tuple[str, ...]
    """PASS_TO_PASS tests that the whole patch breaks, and not without the group."""


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """What one group of hunks has to do with the reward."""

    hunks: tuple[Hunk, ...]
    why: str
    """Why they are together; empty for a single hunk."""
    share: Share
    parts: Mapping[str, float]
    """Top part of the reward -> what the group adds to it; they add up to the share. Empty if that is not known."""
    alone: float | None
    """The reward of the group alone; None where that is not known."""
    without: Without

    @property
    def name(self) -> str:
        return ", ".join(hunk.name for hunk in self.hunks)


@dataclass(frozen=True)
class Smallest:
    """A part of the patch that passes: all FAIL_TO_PASS pass, and nothing is broken."""

    hunks: tuple[Hunk, ...]
    patch: Patch
    proof: str
    """`smallest`: every subset with fewer groups of hunks was run, and none passes. `one-minimal`: none passes that
    lacks one more. Empty: not proven."""
    why: str
    """What the proof rests on, or what it lacks, in words."""


@dataclass(frozen=True)
class Cost:
    """What it took."""

    subsets: int
    """Patches made of some of the groups that were asked for, the whole and the empty one included."""
    from_store: int
    """Of these, those that were known from before."""
    executions: int
    """Candidates that were run for the others."""
    seconds: float
    """Wall time."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Where the reward of a patch comes from."""

    reward: str
    whole: Subset
    nothing: Subset
    groups: tuple[GroupShare, ...]
    is_exact: bool
    """Do the shares count every subset? If not, they are estimates from `orders` sampled orders."""
    orders: int
    interactions: Mapping[tuple[int, int], float]
    """Places of two groups -> how much more, or less, they earn together than apart (see
    `regrade.evaluators.attribution.shapley.interactions`); only where every subset was scored."""
    smallest: Smallest | None
    """None: no subset that was run passes, or there are no tests."""
    unscored: tuple[tuple[tuple[int, ...], str], ...]
    """(places of the groups, why) of each subset that could not be scored. It never counts as 0."""
    cost: Cost
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float | None:
        """reward(patch) - reward(nothing), which the shares add up to; None where either is unscored."""
        return minus(self.whole.value, self.nothing.value)

    def to_json(self) -> dict[str, Any]:
        """Numbers that are not finite become null; texts of hunks and patches are included."""
        return {
            "reward": self.reward,
            "value": self.whole.value,
            "nothing": self.nothing.value,
            "difference": self.gap,
            "method": "exact" if self.is_exact else "sampled",
            "orders": self.orders,
            "groups": [_group_json(number, group) for number, group in enumerate(self.groups, 1)],
            "interactions": [
                {"groups": [place + 1 for place in pair], "value": value} for pair, value in self.interactions.items()
            ],
            "smallest_passing": _smallest_json(self.smallest),
            "unscored": [{"groups": [place + 1 for place in places], "cause": why} for places, why in self.unscored],
            "cost": asdict(self.cost),
            "notes": list(self.notes),
        }


def minus(one: float | None, other: float | None) -> float | None:
    """Their difference; None where either is."""
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


def _smallest_json(found: Smallest | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = [hunk.name for hunk in found.hunks]
    return {"hunks": names, "patch": found.patch.text, "proof": found.proof, "why": found.why}
