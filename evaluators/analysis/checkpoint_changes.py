"""Differences between two checkpoints: parts of the reward that moved, tasks that changed outcome.

A pure function of two tidy tables (`regrade.evaluators.storage.rows`). Only tasks of both tables with the same files
and tests count, each once, by the mean over its attempts with a known outcome.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.reward_audit import leaves
from regrade.evaluators.analysis.uncertainty import difference_interval, mcnemar_p, span, task_means
from regrade.evaluators.storage.json_numbers import finite_values
from regrade.rewards.breakdown import Role

OutcomeChange = Literal["newly fixed", "no longer fixed", "newly broken", "no longer broken"]
OUTCOME_CHANGES: tuple[tuple[OutcomeChange, str, bool], ...] = (
    ("no longer fixed", "fix", False),
    ("newly broken", "broke", True),
    ("newly fixed", "fix", True),
    ("no longer broken", "broke", False),
)
"""(name, column, does it hold of the candidate rather than of the baseline?); regressions come first."""
HALF = 0.5
"""A task has an outcome if at least this share of its attempts with a known outcome have it."""
Parts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PartChange:
    """A part of the reward, or the whole reward: its mean contribution over the tasks that both tables score."""

    name: str
    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference over clusters of tasks; NaN with fewer than two clusters, or if no task
    differs."""

    @property
    def moved(self) -> bool:
        """Does the interval exclude 0?"""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """A task that changed outcome."""

    task: str
    repository: str
    function: str
    baseline: tuple[int, int]
    """(attempts with the outcome, attempts with a known outcome)."""
    candidate: tuple[int, int]
    tests: tuple[str, ...]
    """For breakage: the broken tests, most frequent first."""


@dataclass(frozen=True, kw_only=True)
class TaskChanges:
    """Result of `task_changes`."""

    n_tasks: int
    """Tasks with a known outcome in both tables."""
    left_out: int
    """Tasks of one table only, with different files or tests, or without a known outcome in one of them."""
    reward: PartChange | None
    """None if the two tables have different rewards, or no task has a score in both."""
    parts: tuple[PartChange, ...]
    """They add up to `reward`; largest difference first."""
    gates: tuple[PartChange, ...]
    """Share of the attempts for which each gate was closed, so that the parts behind it counted as 0."""
    sides: Mapping[OutcomeChange, tuple[TaskChange, ...]]
    p: Mapping[str, float]
    """`fix` and `broke` -> p of an exact McNemar test on the tasks that changed outcome; it assumes independent
    tasks."""
    rewards: tuple[str, ...]
    """Names of the rewards of both tables: several if they differ."""

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
    """Changes from one table to another, each of one policy at one temperature, on their shared tasks."""
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
    """Tasks with a known outcome in both tables, and the same files and tests."""
    known = [rows[rows["fix"].notna() | rows["clean_fix"].notna()] for rows in (baseline, candidate)]
    digests = [rows.groupby("task")["task_digest"].agg(set) for rows in known]
    both = digests[0].index.intersection(digests[1].index)
    return {task for task in both if digests[0][task] == digests[1][task] and len(digests[0][task]) == 1}


def _changes(baseline: pd.DataFrame, candidate: pd.DataFrame, column: str, gains: bool) -> Iterator[TaskChange]:
    """The tasks whose outcome in this column changed in this direction, sorted by name."""
    if column == "fix" and (baseline["fix"].isna().all() or candidate["fix"].isna().all()):
        column = "clean_fix"  # rows that know only whether a task was resolved
    before, after = _tallies(baseline, column), _tallies(candidate, column)
    for task in sorted(before.keys() & after.keys()):
        had, has = _has_outcome(before[task]), _has_outcome(after[task])
        if had == has or has != gains:
            continue
        rows = (candidate if has else baseline).query("task == @task")
        broken = Counter(test for tests in rows["broken_tests"] for test in tests or ()) if column == "broke" else {}
        first = rows.iloc[0]
        names = tuple(sorted(broken, key=lambda test: (-broken[test], test)))
        yield TaskChange(
            task=task,
            repository=first["repository"],
            function=first["function"],
            baseline=before[task],
            candidate=after[task],
            tests=names,
        )


def _tallies(rows: pd.DataFrame, column: str) -> dict[str, tuple[int, int]]:
    known = rows[rows[column].notna()]
    tallies = known.groupby("task")[column].agg(["sum", "size"])
    return {str(task): (int(hits), int(count)) for task, hits, count in tallies.itertuples()}


def _has_outcome(tally: tuple[int, int]) -> bool:
    hits, count = tally
    return hits >= HALF * count


def _reward_changes(
    baseline: pd.DataFrame, candidate: pd.DataFrame
) -> tuple[PartChange | None, tuple[PartChange, ...], tuple[PartChange, ...]]:
    """Changes of the reward, its parts and its gates, over the tasks with a score in both tables."""
    scored = [rows[rows["reward"].notna()] for rows in (baseline, candidate)]
    both = set(scored[0]["task"]) & set(scored[1]["task"])
    if not both:
        return None, (), ()
    first, second = (rows[rows["task"].isin(both)] for rows in scored)

    weights = pd.concat([_table(first, _weights), _table(second, _weights)]).fillna(0.0).max()

    def changes(before: pd.DataFrame, after: pd.DataFrame, tops: Mapping[str, float]) -> tuple[PartChange, ...]:
        names = dict.fromkeys([*before.columns, *after.columns])
        absent = [pd.Series(0.0, index=table.index) for table in (before, after)]
        moves = [
            _change(
                name, first, before.get(name, absent[0]), second, after.get(name, absent[1]), tops.get(name, 1.0) or 1.0
            )
            for name in names
        ]
        return tuple(sorted(moves, key=lambda change: -abs(change.difference)))

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
    """The paired difference of values from 0 to `top`, or beyond as far as the observed ones.

    Without a task that differs there is no interval: the data do not bound the difference.
    """
    means = task_means(first, before)
    candidate = task_means(second, after)["value"]  # same tasks, same order
    sample = Sample.of_tasks(means, candidate - means["value"])
    most = span(pd.concat([before, after]), top)
    baseline_mean, candidate_mean = float(means["value"].mean()), float(candidate.mean())
    low, high = _interval(sample, most)
    return PartChange(
        name=name, baseline=baseline_mean, candidate=candidate_mean, difference=sample.mean, low=low, high=high
    )


def _interval(sample: Sample, most: float) -> tuple[float, float]:
    has_interval = sample.n_functions > 1 and bool(sample.values.any())
    return difference_interval(sample, most) if has_interval else (math.nan, math.nan)


def _table(rows: pd.DataFrame, numbers: Callable[[Iterable[Parts]], dict[str, float]]) -> pd.DataFrame:
    """One column a name; 0 where a row lacks the name."""
    return pd.DataFrame([numbers(parts or ()) for parts in rows["parts"]], index=rows.index).fillna(0.0)


def _contributions(parts: Iterable[Parts]) -> dict[str, float]:
    """Leaf part -> its contribution; parts of the same name are summed."""
    sums: dict[str, float] = {}
    for part in leaves(parts):
        sums[part["name"]] = sums.get(part["name"], 0.0) + float(part["contribution"])
    return sums


def _weights(parts: Iterable[Parts]) -> dict[str, float]:
    """Leaf part -> its largest possible contribution."""
    sums: dict[str, float] = {}
    for part in leaves(parts):
        sums[part["name"]] = sums.get(part["name"], 0.0) + abs(float(part["weight"]))
    return sums


def _closed(parts: Iterable[Parts]) -> dict[str, float]:
    """Gate -> 1 if it was closed, 0 if it was open or did not apply."""
    gates: dict[str, float] = {}
    for part in parts:
        if part.get("role") == Role.GATE:
            is_closed = part["value"] is not None and part["value"] < 1
            gates[part["name"]] = max(gates.get(part["name"], 0.0), float(is_closed))
        for name, closed in _closed(part.get("parts", ())).items():
            gates[name] = max(gates.get(name, 0.0), closed)
    return gates
