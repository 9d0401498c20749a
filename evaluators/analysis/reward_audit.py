"""Audit of a reward: the share of each part in the differences between attempts at the same task.

GRPO and similar trainers compare the attempts of a group, so the effect of a part depends on its variance *within*
groups, not on its weight. With r = sum of the contributions c_k, all centred by the group's mean, part k has the share

    share_k = cov(c_k, r) / var(r)

The shares add up to 1 (covariance decomposition of a sum). A part with a negative share opposes the other parts.

Trainers differ in one step. GRPO as published (arXiv 2402.03300; TRL's default, `scale_rewards="group"`) divides by the
standard deviation of the group, so that each group with any difference has the same variance: `scaled_share`. Without
the division (Dr. GRPO, arXiv 2503.20783; `scale_rewards="none"`, as `regrade train`), groups count by their variance:
`share`. A part that is small, but the only one that varies in many groups, has a small share and a large scaled one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from regrade.datasets.errors import UserError
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import checked
from regrade.evaluators.storage.run import Run

GROUP = ["policy", "task", "temperature"]
AnyTable = TypeVar("AnyTable", pd.DataFrame, "pd.Series[float]")

LOW_OUTCOME_SHARE = 0.5
"""Below this share of explained variance, a reward depends more on other things than on outcomes."""
REDUNDANT = 0.95
"""Above this correlation, two parts are redundant."""


@dataclass(frozen=True, kw_only=True)
class PartAudit:
    """One part of a reward, over all attempts."""

    name: str
    weight: float
    """Mean weight where the part applies."""
    applies: float
    """Share of the attempts to which it applies."""
    mean: float | None
    """Mean value where it applies."""
    share: float
    """Share of the reward's variance within groups: of a trainer without division by the group's deviation."""
    scaled_share: float
    """The same after division by the standard deviation of the group: of GRPO as published, and TRL's default."""
    with_outcome: float | None
    """Correlation of its contribution with a clean fix within groups; None if either is constant."""

    @property
    def is_constant(self) -> bool:
        return self.share == 0.0 and self.with_outcome is None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Result of `audit`: the parts of a reward over the attempts of a run."""

    reward: str
    attempts: int
    unscored: int
    groups: int
    informative: int
    """Groups with different rewards: a group-relative trainer learns nothing from the others."""
    outcome_share: float | None
    """Share of the variance within groups that clean fixes and breakage explain (R^2)."""
    scaled_outcome_share: float | None
    """The same after division by the standard deviation of the group."""
    parts: tuple[PartAudit, ...]
    correlations: Mapping[tuple[str, str], float]
    """Correlation of contributions within groups, for each pair of parts that vary."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        pairs = [{"parts": list(pair), "correlation": value} for pair, value in self.correlations.items()]
        return {**asdict(self), "parts": [asdict(part) for part in self.parts], "correlations": pairs}


def audit(rows: Iterable[Mapping[Any, Any]]) -> Audit:
    """Audit the reward of evaluation rows (see `regrade.evaluators.storage.rows`). A row alone in its group, such as a
    greedy one, counts for the means only.

    Raises:
        UserError: no row is scored, or several rewards are mixed.
    """
    rows = list(rows)
    scored = [row for row in rows if row["status"] == "scored"]
    names = sorted({row["reward_name"] for row in scored})
    if len(names) != 1:
        problem = f"rewards {', '.join(names)} are mixed" if names else "no attempt was scored"
        raise UserError(f"{problem}: give the rows of one reward")
    table = pd.DataFrame({**{key: row[key] for key in (*GROUP, "reward", "clean_fix", "broke")}} for row in scored)
    by_name = [{part["name"]: part for part in leaves(row["parts"])} for row in scored]
    parts = list(dict.fromkeys(name for row in by_name for name in row))
    contributions = pd.DataFrame([[row.get(name, _ABSENT)["contribution"] for name in parts] for row in by_name])
    contributions.columns = pd.Index(parts)
    groups = table.groupby(GROUP, sort=False).ngroup()
    reward = table["reward"].astype(float)
    outcomes = table[["clean_fix", "broke"]].astype(float).fillna(0.0)
    within = _Within(_centred(contributions, groups), _centred(reward, groups), _centred(outcomes, groups))
    spread = reward.groupby(groups).agg(lambda values: values.max() - values.min())
    scaled = within.scaled(groups)
    audits = tuple(
        _part(name, [row[name] for row in by_name if name in row], len(scored), within, scaled) for name in parts
    )
    result = Audit(
        reward=names[0],
        attempts=len(rows),
        unscored=len(rows) - len(scored),
        groups=int((groups.value_counts() > 1).sum()),
        informative=int((spread > 1e-12).sum()),
        outcome_share=within.explained(),
        scaled_outcome_share=scaled.explained(),
        parts=audits,
        correlations=_correlations(within.parts),
    )
    return replace(result, warnings=tuple(_warnings(result)))


def read_rows(source: Path) -> list[dict[str, Any]]:
    """The rows of all policies of a run except scripted ones, or of a file.

    Raises:
        UserError: there are no rows, or one is invalid.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file; give a run's folder, or a .jsonl file that `regrade evaluate` wrote")
    files = [source]
    if source.is_dir():
        run = Run.open(source)
        files = [run.evaluation(name) for name, entry in run.manifest.policies.items() if entry.role != "scripted"]
    rows = [row for file in files for row in checked(journal.read(file), str(file))]
    if not rows:
        raise UserError(f"{source} has no rows of any policy: give a run's folder, or a .jsonl file of its rows")
    return rows


def leaves(parts: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The leaf parts, without gates."""
    for part in parts:
        if part.get("role") == "gate":
            continue
        inner = [child for child in part.get("parts", ()) if child.get("role") != "gate"]
        if inner:
            yield from leaves(inner)
        else:
            yield part


_ABSENT: Mapping[str, Any] = {"contribution": 0.0}


def _centred(values: AnyTable, groups: pd.Series[int]) -> AnyTable:
    """The values minus the mean of their group."""
    return values - values.groupby(groups).transform("mean")


@dataclass(frozen=True)
class _Within:
    """Differences of the attempts from the mean of their group."""

    parts: pd.DataFrame
    reward: pd.Series[float]
    outcomes: pd.DataFrame
    """Clean fix and breakage."""

    def scaled(self, groups: pd.Series[int]) -> _Within:
        """The same in units of the standard deviation of the reward in each group; 0 in a group without any."""
        deviation = self.reward.groupby(groups).transform("std")  # of one attempt less, as torch.std, and so TRL
        factor = (1 / deviation).where(deviation > 1e-9, 0.0)
        return _Within(self.parts.mul(factor, axis=0), self.reward * factor, self.outcomes.mul(factor, axis=0))

    def share(self, name: str) -> float:
        variance = float(self.reward.pow(2).sum())
        return float((self.parts[name] * self.reward).sum()) / variance if variance > 1e-12 else 0.0

    def explained(self) -> float | None:
        """R^2 of the least-squares fit of the reward by the outcomes."""
        outcomes, reward = self.outcomes.to_numpy(), self.reward.to_numpy()
        whole = float((reward**2).sum())
        if whole < 1e-12:
            return None
        fit, *_ = np.linalg.lstsq(outcomes, reward, rcond=None)
        return 1.0 - float(((reward - outcomes @ fit) ** 2).sum()) / whole


def _part(name: str, scores: list[Mapping[str, Any]], count: int, within: _Within, scaled: _Within) -> PartAudit:
    values = [part["value"] for part in scores if part["value"] is not None]
    weights = [part["weight"] for part in scores if part["value"] is not None]
    return PartAudit(
        name=name,
        weight=float(np.mean(weights)) if weights else 0.0,
        applies=len(values) / count,
        mean=float(np.mean(values)) if values else None,
        share=within.share(name),
        scaled_share=scaled.share(name),
        with_outcome=_correlation(within.parts[name], within.outcomes["clean_fix"]),
    )


def _correlation(one: pd.Series[float], other: pd.Series[float]) -> float | None:
    if one.abs().max() < 1e-12 or other.abs().max() < 1e-12:
        return None
    return float((one * other).sum() / np.sqrt(one.pow(2).sum() * other.pow(2).sum()))


def _correlations(inner: pd.DataFrame) -> dict[tuple[str, str], float]:
    names = list(inner.columns)
    pairs = ((one, other) for index, one in enumerate(names) for other in names[index + 1 :])
    values = {(one, other): _correlation(inner[one], inner[other]) for one, other in pairs}
    return {pair: value for pair, value in values.items() if value is not None}


def _warnings(result: Audit) -> Iterator[str]:
    if not result.groups:
        yield "no task has two attempts, and a group-relative trainer compares only attempts at one task"
        return
    if result.outcome_share is None or result.scaled_outcome_share is None:
        yield "the reward is the same for all attempts at a task: a group-relative trainer learns nothing"
    else:
        yield from _low_outcome(result, result.outcome_share, result.scaled_outcome_share)
    for part in result.parts:
        if part.share < -0.01:
            yield f"{part.name} opposes the other parts: its share is {part.share:.0%}"
        elif part.is_constant and part.weight > 0:
            yield (
                f"{part.name} never differs between attempts at a task: its weight of {part.weight:.2f} has no effect"
            )
    for (one, other), value in result.correlations.items():
        if value > REDUNDANT:
            yield f"{one} and {other} are redundant (correlation {value:.2f}): use one of them"


def _low_outcome(result: Audit, plain: float, scaled: float) -> Iterator[str]:
    """A warning if outcomes explain too little of the variance that either kind of trainer uses."""
    if min(plain, scaled) >= LOW_OUTCOME_SHARE:
        return
    is_plain = plain < LOW_OUTCOME_SHARE
    explained = plain if is_plain else scaled

    def share(part: PartAudit) -> float:
        return part.share if is_plain else part.scaled_share

    top = max(result.parts, key=lambda part: share(part) * (1 - max(0.0, part.with_outcome or 0.0) ** 2))
    where = "" if is_plain else ", after division by the standard deviation of the group (TRL's default)"
    yield (
        f"clean fixes and breakage explain only {explained:.0%} of the variance within groups{where}, and {top.name} "
        f"moves {share(top):.0%} of the reward: give it less weight, or put it behind tests"
    )
