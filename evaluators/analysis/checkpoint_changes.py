"""What differs between two checkpoints, told by name: the parts of the reward that moved, the tasks that changed sides.

Pure over the tidy table (`regrade.evaluators.storage.rows`). Only tasks that both were tried on, with the same files
and tests, count; each counts once, by the mean over its attempts whose outcome is known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from regrade.evaluators.analysis.reward_audit import leaves
from regrade.evaluators.analysis.uncertainty import (
    Clusters,
    bounded_difference_interval,
    cluster_labels,
    cluster_level,
    mcnemar_p,
    span,
    task_means,
)
from regrade.evaluators.storage.json_numbers import finite_values
from regrade.rewards.breakdown import Role

OutcomeChange = Literal["newly fixed", "no longer fixed", "newly broken", "no longer broken"]
OUTCOME_CHANGES: tuple[tuple[OutcomeChange, str, bool], ...] = (
    ("no longer fixed", "fix", False),
    ("newly broken", "broke", True),
    ("newly fixed", "fix", True),
    ("no longer broken", "broke", False),
)
"""(what it is called, the column, whether the candidate is the one of which it holds); what is worse comes first."""
HALF = 0.5
"""It holds of a task if it holds of at least this share of its attempts whose outcome is known."""
Parts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PartChange:
    """A part of the reward, or the whole of it: its mean contribution, over the tasks that both know."""

    name: str
    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference, clusters of tasks resampled; NaN where there are fewer than two of them, or
    where no task differs."""

    @property
    def moved(self) -> bool:
        """Does the interval leave 0 out?"""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """A task that changed sides."""

    task: str
    repository: str
    function: str
    baseline: tuple[int, int]
    """(attempts of which it holds, attempts whose outcome is known)."""
    candidate: tuple[int, int]
    tests: tuple[str, ...]
    """Of breakages: the broken tests, those of most attempts first."""


@dataclass(frozen=True, kw_only=True)
class TaskChanges:
    """What `task_changes` found."""

    n_tasks: int
    """Tasks that both were tried on and of which both know an outcome."""
    left_out: int
    """Tasks that only one was tried on, whose files or tests differ, or of which one knows no outcome."""
    reward: PartChange | None
    """None where the two were judged by different rewards, or nothing was scored."""
    parts: tuple[PartChange, ...]
    """They add up to `reward`; those that moved most first."""
    gates: tuple[PartChange, ...]
    """Gate -> share of the attempts for which it was closed, which silences the parts behind it."""
    sides: Mapping[OutcomeChange, tuple[TaskChange, ...]]
    p: Mapping[str, float]
    """`fix` and `broke` -> p of an exact McNemar test on the tasks that changed sides; it takes tasks to be
    independent."""
    rewards: tuple[str, ...]
    """Names of the rewards of the two: several where they differ."""

    def to_json(self) -> dict[str, Any]:
        """Numbers that are not finite become null."""
        return {
            "n_tasks": self.n_tasks,
            "left_out": self.left_out,
            "reward": self.reward and finite_values(asdict(self.reward)),
            "parts": [finite_values(asdict(part)) for part in self.parts],
            "gates": [finite_values(asdict(gate)) for gate in self.gates],
            "sides": {side: [asdict(change) for change in changes] for side, changes in self.sides.items()},
            "p": dict(self.p),
            "rewards": list(self.rewards),
        }


def task_changes(baseline: pd.DataFrame, candidate: pd.DataFrame) -> TaskChanges:
    """What differs between two tables of one policy at one temperature each, on the tasks that they share."""
    tasks = set(baseline["task"]) | set(candidate["task"])
    shared = _shared(baseline, candidate)
    first, second = (rows[rows["task"].isin(shared)] for rows in (baseline, candidate))
    sides = {side: tuple(_changes(first, second, column, gains)) for side, column, gains in OUTCOME_CHANGES}
    p = {
        column: mcnemar_p(*(len(sides[side]) for side, other, _ in OUTCOME_CHANGES if other == column))
        for column in ("fix", "broke")
    }
    rewards = tuple(sorted({name for rows in (first, second) for name in rows["reward_name"] if name}))
    reward, parts, gates = _reward_changes(first, second) if len(rewards) <= 1 else (None, (), ())
    return TaskChanges(
        n_tasks=len(shared),
        left_out=len(tasks - shared),
        reward=reward,
        parts=parts,
        gates=gates,
        sides=sides,
        p=p,
        rewards=rewards,
    )


def _shared(baseline: pd.DataFrame, candidate: pd.DataFrame) -> set[str]:
    """Tasks of which both know an outcome, on the same files and tests."""
    known = [rows[rows["broke"].notna() & rows["fix"].notna()] for rows in (baseline, candidate)]
    digests = [rows.groupby("task")["task_digest"].agg(set) for rows in known]
    both = digests[0].index.intersection(digests[1].index)
    return {task for task in both if digests[0][task] == digests[1][task] and len(digests[0][task]) == 1}


def _changes(baseline: pd.DataFrame, candidate: pd.DataFrame, column: str, gains: bool) -> Iterator[TaskChange]:
    """The tasks of which the column holds for the one table and not for the other, in the order of their names."""
    before, after = _tallies(baseline, column), _tallies(candidate, column)
    for task in sorted(before):
        held, holds = _holds(before[task]), _holds(after[task])
        if held == holds or holds != gains:
            continue
        rows = (candidate if holds else baseline).query("task == @task")
        broken = Counter(test for tests in rows["broken_tests"] for test in tests or ()) if column == "broke" else {}
        place = rows.iloc[0]
        names = tuple(sorted(broken, key=lambda test: (-broken[test], test)))
        yield TaskChange(
            task=task,
            repository=place["repository"],
            function=place["function"],
            baseline=before[task],
            candidate=after[task],
            tests=names,
        )


def _tallies(rows: pd.DataFrame, column: str) -> dict[str, tuple[int, int]]:
    known = rows[rows[column].notna()]
    found = known.groupby("task")[column].agg(["sum", "size"])
    return {str(task): (int(held), int(count)) for task, held, count in found.itertuples()}


def _holds(tally: tuple[int, int]) -> bool:
    held, count = tally
    return held >= HALF * count


def _reward_changes(
    baseline: pd.DataFrame, candidate: pd.DataFrame
) -> tuple[PartChange | None, tuple[PartChange, ...], tuple[PartChange, ...]]:
    """The reward, its parts and its gates, over the tasks of which both have a score."""
    scored = [rows[rows["reward"].notna()] for rows in (baseline, candidate)]
    both = set(scored[0]["task"]) & set(scored[1]["task"])
    if not both:
        return None, (), ()
    first, second = (rows[rows["task"].isin(both)] for rows in scored)

    weights = pd.concat([_table(first, _weights), _table(second, _weights)]).fillna(0.0).max()

    def changes(before: pd.DataFrame, after: pd.DataFrame, tops: Mapping[str, float]) -> tuple[PartChange, ...]:
        names = dict.fromkeys([*before.columns, *after.columns])
        absent = [pd.Series(0.0, index=table.index) for table in (before, after)]
        found = [
            _change(
                name, first, before.get(name, absent[0]), second, after.get(name, absent[1]), tops.get(name, 1.0) or 1.0
            )
            for name in names
        ]
        return tuple(sorted(found, key=lambda change: -abs(change.difference)))

    parts = changes(
        _table(first, _contributions),
        _table(second, _contributions),
        {str(name): float(weight) for name, weight in weights.items()},
    )
    gates = changes(_table(first, _closed), _table(second, _closed), {})
    return _change("reward", first, first["reward"], second, second["reward"]), parts, gates


def _change(
    name: str,
    first: pd.DataFrame,
    before: pd.Series[Any],
    second: pd.DataFrame,
    after: pd.Series[Any],
    top: float = 1.0,
) -> PartChange:
    """The paired difference of what lies between 0 and `top`, or as far beyond as it was seen to.

    It has no interval where no task differs, which says nothing of how much they may.
    """
    means = task_means(first, before)
    candidate = task_means(second, after)["value"]  # of the same tasks, in the same order
    sample = Clusters.of(candidate - means["value"], cluster_labels(means, cluster_level(means)))
    most = span(pd.concat([before, after]), top)
    baseline_mean, candidate_mean = float(means["value"].mean()), float(candidate.mean())
    low, high = _interval(sample, most)
    return PartChange(
        name=name, baseline=baseline_mean, candidate=candidate_mean, difference=sample.mean, low=low, high=high
    )


def _interval(sample: Clusters, most: float) -> tuple[float, float]:
    is_told = sample.count > 1 and bool(sample.values.any())
    return bounded_difference_interval(sample, most) if is_told else (math.nan, math.nan)


def _table(rows: pd.DataFrame, numbers: Callable[[Iterable[Parts]], dict[str, float]]) -> pd.DataFrame:
    """A column a name, 0 where a row has none of it."""
    return pd.DataFrame([numbers(parts or ()) for parts in rows["parts"]], index=rows.index).fillna(0.0)


def _contributions(parts: Iterable[Parts]) -> dict[str, float]:
    """Part without parts of its own -> what it adds; parts of one name are added up."""
    found: dict[str, float] = {}
    for part in leaves(parts):
        found[part["name"]] = found.get(part["name"], 0.0) + float(part["contribution"])
    return found


def _weights(parts: Iterable[Parts]) -> dict[str, float]:
    """Part without parts of its own -> the most that it can add."""
    found: dict[str, float] = {}
    for part in leaves(parts):
        found[part["name"]] = found.get(part["name"], 0.0) + abs(float(part["weight"]))
    return found


def _closed(parts: Iterable[Parts]) -> dict[str, float]:
    """Gate -> 1 where it was closed, 0 where it was open or did not apply."""
    found: dict[str, float] = {}
    for part in parts:
        if part.get("role") == Role.GATE:
            closed = part["value"] is not None and part["value"] < 1
            found[part["name"]] = max(found.get(part["name"], 0.0), float(closed))
        for name, closes in _closed(part.get("parts", ())).items():
            found[name] = max(found.get(name, 0.0), closes)
    return found
