"""Metrics of agents: turns, tests before the end, changes taken back. Rows without an episode have none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regrade.evaluators.analysis.metrics import Column, Estimate, Metric, Rows, estimate


def _column(name: str) -> Callable[[Rows], Column[Any]]:
    return lambda rows: rows[name]


def _of_breaking(rows: Rows) -> Column[Any]:
    broke = rows["breaking_edits"].where(rows["breaking_edits"] > 0)
    return 1.0 - rows["breaking_edits_kept"] / broke


def _broke_on_the_way(rows: Rows) -> Column[Any]:
    return (rows["breaking_edits"] > 0).astype("float64").where(rows["breaking_edits"].notna())


def _ended(*ends: str) -> Callable[[Rows], Column[Any]]:
    return lambda rows: rows["episode_end"].isin(ends).astype("float64").where(rows["episode_end"] != "")


TURNS = Metric(name="turns", label="Turns", better="neither", is_rate=False, of_rows=_column("turns"))
TEST_RUNS = Metric(name="test_runs", label="Test runs", better="neither", is_rate=False, of_rows=_column("test_runs"))
GENERATED = Metric(
    name="generated_tokens",
    label="Generated tokens",
    better="neither",
    is_rate=False,
    of_rows=lambda rows: rows["tokens"].where(rows["turns"].notna() & (rows["tokens"] > 0)),
)
TESTED = Metric(
    name="tested_at_end",
    label="Tested what it hands in",
    better="higher",
    is_rate=True,
    of_rows=_column("tested_at_end"),
)
"""A test run on the very tree that is handed in."""
SUBMITTED = Metric(
    name="submitted", label="Ended by submitting", better="higher", is_rate=True, of_rows=_ended("submitted")
)
TAKEN_BACK = Metric(
    name="taken_back",
    label="Changes taken back after a red run",
    better="neither",
    is_rate=False,
    of_rows=_column("taken_back"),
)
MISTAKES = Metric(
    name="mistakes", label="Mistakes with a tool", better="lower", is_rate=False, of_rows=_column("mistakes")
)
BROKE_ON_THE_WAY = Metric(
    name="broke_on_the_way",
    label="Made a change that broke a test",
    better="lower",
    is_rate=True,
    of_rows=_broke_on_the_way,
)
"""By the full suite, whatever the agent saw; needs the tests of every step."""
BREAKAGE_TAKEN_BACK = Metric(
    name="breakage_taken_back",
    label="Breaking changes taken back or repaired",
    better="higher",
    is_rate=True,
    of_rows=_of_breaking,
)
"""The share of the changes that broke something of which nothing is broken at the end."""

AGENT_METRICS = (
    TURNS,
    TEST_RUNS,
    GENERATED,
    TESTED,
    SUBMITTED,
    TAKEN_BACK,
    MISTAKES,
    BROKE_ON_THE_WAY,
    BREAKAGE_TAKEN_BACK,
)


def has_episodes(rows: Rows) -> bool:
    """Is any of the attempts an agent's?"""
    return "turns" in rows and bool(rows["turns"].notna().any())


def agent_figures(rows: Rows) -> dict[str, Estimate]:
    """Name of each metric of agents with a known value -> its estimate; empty without episodes."""
    if not has_episodes(rows):
        return {}
    found = {metric.name: estimate(rows, metric) for metric in AGENT_METRICS}
    return {name: one for name, one in found.items() if one.n}


def episode_ends(rows: Rows) -> dict[str, int]:
    """How the episodes ended -> attempts, most frequent first."""
    counts = rows["episode_end"][rows["episode_end"] != ""].value_counts()
    return {str(end): int(count) for end, count in counts.items()}
