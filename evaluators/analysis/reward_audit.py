"""What a reward really pays for: which of its parts make the difference between attempts at the same task.

GRPO and its kin compare the attempts of a group, so what counts of a part is not its weight but how much it varies
*within* groups. With r = sum of the contributions c_k, all centred by their group's mean, part k moves

    share_k = cov(c_k, r) / var(r)

of the reward; the shares add up to 1 (the covariance decomposition of a sum). A negative share works against the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regrade.datasets.errors import UserError
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import checked
from regrade.evaluators.storage.run import Run

GROUP = ["policy", "task", "temperature"]
SWAMPED = 0.5
"""A reward of which outcomes explain less than this share pays more for other things."""
ALIKE = 0.95


@dataclass(frozen=True, kw_only=True)
class PartAudit:
    """One part of a reward, over all attempts."""

    name: str
    weight: float
    """Its mean share of the whole, where it applies."""
    applies: float
    """Share of the attempts to which it applies."""
    mean: float | None
    """Mean value where it applies."""
    share: float
    """Of the variance within groups: what a trainer that compares attempts at one task sees of it."""
    with_outcome: float | None
    """Correlation within groups of its contribution with a clean fix; None where one of them never varies."""

    @property
    def is_constant(self) -> bool:
        return self.share == 0.0 and self.with_outcome is None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a reward pays for, on the attempts of a run."""

    reward: str
    attempts: int
    unscored: int
    groups: int
    informative: int
    """Groups within which the reward varies at all: the others teach a group-relative trainer nothing."""
    outcome_share: float | None
    """Share of the variance within groups that `clean fix` and `broke something` explain (R^2)."""
    parts: tuple[PartAudit, ...]
    correlations: Mapping[tuple[str, str], float]
    """Of contributions, within groups, for each pair of parts that vary."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        pairs = [{"parts": list(pair), "correlation": value} for pair, value in self.correlations.items()]
        return {**asdict(self), "parts": [asdict(part) for part in self.parts], "correlations": pairs}


def audit(rows: Iterable[Mapping[str, Any]]) -> Audit:
    """Audit the reward of evaluation rows (see `regrade.evaluators.storage.rows`); a row alone in its group, such as a
    greedy one, counts for the means only.

    Raises:
        UserError: no row is scored, or several rewards are mixed.
    """
    rows = list(rows)
    scored = [row for row in rows if row["status"] == "scored"]
    names = sorted({row["reward_name"] for row in scored})
    if len(names) != 1:
        found = f"rewards {', '.join(names)} are mixed" if names else "no attempt was scored"
        raise UserError(f"{found}: give the rows of one reward")
    table = pd.DataFrame({**{key: row[key] for key in (*GROUP, "reward", "clean_fix", "broke")}} for row in scored)
    top = [{part["name"]: part for part in leaves(row["parts"])} for row in scored]
    parts = list(dict.fromkeys(name for found in top for name in found))
    contributions = pd.DataFrame([[found.get(name, _ABSENT)["contribution"] for name in parts] for found in top])
    contributions.columns = pd.Index(parts)
    groups = table.groupby(GROUP, sort=False).ngroup()
    inner = contributions - contributions.groupby(groups).transform("mean")
    reward = table["reward"].astype(float)
    moved = reward - reward.groupby(groups).transform("mean")
    variance = float(moved.pow(2).sum())
    outcomes = table[["clean_fix", "broke"]].astype(float).fillna(0.0)
    outcomes = outcomes - outcomes.groupby(groups).transform("mean")
    spread = reward.groupby(groups).agg(lambda values: values.max() - values.min())
    judged = tuple(
        _part(
            name, [found[name] for found in top if name in found], len(scored), inner[name], moved, variance, outcomes
        )
        for name in parts
    )
    share = _explained(outcomes.to_numpy(), moved.to_numpy())
    several = int((groups.value_counts() > 1).sum())
    result = Audit(
        reward=names[0], attempts=len(rows), unscored=len(rows) - len(scored), groups=several,
        informative=int((spread > 1e-12).sum()), outcome_share=share, parts=judged, correlations=_correlations(inner),
    )  # fmt: skip
    return _warned(result)


def read_rows(source: Path) -> list[dict[str, Any]]:
    """The rows of all policies of a run, scripted ones left out, or of a file.

    Raises:
        UserError: there are none, or one is damaged.
    """
    files = [source]
    if source.is_dir():
        run = Run.open(source)
        files = [run.evaluation(name) for name, entry in run.manifest.policies.items() if entry.role != "scripted"]
    rows = [row for file in files for row in checked(journal.read(file), str(file))]
    if not rows:
        raise UserError(f"{source} holds no rows of any policy: give a run's folder, or a .jsonl file of its rows")
    return rows


def leaves(parts: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The parts that contribute by themselves, gates left out."""
    for part in parts:
        if part.get("role") == "gate":
            continue
        inner = [each for each in part.get("parts", ()) if each.get("role") != "gate"]
        if inner:
            yield from leaves(inner)
        else:
            yield part


_ABSENT: Mapping[str, Any] = {"contribution": 0.0}


def _part(
    name: str, found: list[Mapping[str, Any]], count: int, inner: pd.Series[float], moved: pd.Series[float],
    variance: float, outcomes: pd.DataFrame,
) -> PartAudit:  # fmt: skip
    values = [part["value"] for part in found if part["value"] is not None]
    weights = [part["weight"] for part in found if part["value"] is not None]
    return PartAudit(
        name=name,
        weight=float(np.mean(weights)) if weights else 0.0,
        applies=len(values) / count,
        mean=float(np.mean(values)) if values else None,
        share=float((inner * moved).sum()) / variance if variance > 1e-12 else 0.0,
        with_outcome=_correlation(inner, outcomes["clean_fix"]),
    )


def _correlation(one: pd.Series[float], other: pd.Series[float]) -> float | None:
    if one.abs().max() < 1e-12 or other.abs().max() < 1e-12:
        return None
    return float((one * other).sum() / np.sqrt(one.pow(2).sum() * other.pow(2).sum()))


def _correlations(inner: pd.DataFrame) -> dict[tuple[str, str], float]:
    names = list(inner.columns)
    pairs = ((one, other) for place, one in enumerate(names) for other in names[place + 1 :])
    found = {(one, other): _correlation(inner[one], inner[other]) for one, other in pairs}
    return {pair: value for pair, value in found.items() if value is not None}


def _explained(outcomes: np.ndarray[Any, Any], moved: np.ndarray[Any, Any]) -> float | None:
    """R^2 of the least-squares fit of the reward by the outcomes, both centred within groups."""
    whole = float((moved**2).sum())
    if whole < 1e-12:
        return None
    fit, *_ = np.linalg.lstsq(outcomes, moved, rcond=None)
    return 1.0 - float(((moved - outcomes @ fit) ** 2).sum()) / whole


def _warned(found: Audit) -> Audit:
    said = []
    if not found.groups:
        return replace(found, warnings=("no task has two attempts, and only between those does a trainer compare",))
    if found.outcome_share is None:
        said.append("the reward is the same for all attempts at a task: a trainer that compares them learns nothing")
    elif found.outcome_share < SWAMPED:
        top = max(found.parts, key=lambda part: part.share * (1 - max(0.0, part.with_outcome or 0.0) ** 2))
        said.append(
            f"only {found.outcome_share:.0%} of what a trainer sees within groups is whether the attempt fixed or "
            f"broke something; {top.name} moves {top.share:.0%} of the reward: give it less weight, or put it behind "
            "tests"
        )
    for part in found.parts:
        if part.share < -0.01:
            said.append(f"{part.name} works against the rest: its share is {part.share:.0%}")
        elif part.is_constant and part.weight > 0:
            said.append(
                f"{part.name} never differs between attempts at a task: its weight of {part.weight:.2f} is idle"
            )
    said += [
        f"{one} and {other} say the same (correlation {value:.2f}): one of them is enough"
        for (one, other), value in found.correlations.items()
        if value > ALIKE
    ]
    return replace(found, warnings=tuple(said))
