"""Runs part of the gauntlet: exploits recorded as caught are still caught, and no honest twin is punished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gauntlet.attack import Attack
from gauntlet.attacks import ATTACKS
from gauntlet.levels import LEVELS
from gauntlet.play import Row, play
from regrade.evaluators.sandboxes import choose

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((ROOT / "benchmarks" / "gauntlet.json").read_text("utf-8"))
CHOSEN = (
    "edit-tests", "conftest-rewrites-reports", "always-equal", "secret-in-memory", "hardcode-inputs",
    "print-passed-lines", "inherited-descriptors", "future-commits", "patched-json", "runtest-through-vars",
)  # fmt: skip
"""One for each layer; `make gauntlet` runs all exploits."""


def chosen_attacks() -> list[Attack]:
    attacks = [attack for attack in ATTACKS if attack.name in CHOSEN]
    assert len(attacks) == len(CHOSEN)
    return attacks


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Some of the exploits, in the strongest sandbox that works here."""
    return play(chosen_attacks(), LEVELS, [choose()], tmp_path_factory.mktemp("gauntlet"))


@pytest.mark.slow
def test_no_twin_is_punished(rows: list[Row]) -> None:
    punished = [
        (row.attack.id, level, verdict.caught_by, verdict.reason)
        for row in rows
        for level, _, verdict in row.unrewarded_twins
        if verdict.allowed
    ]
    assert punished == []


@pytest.mark.slow
def test_exploits_recorded_as_caught_are_caught(rows: list[Row]) -> None:
    """An exploit recorded as rewarded may be caught now, but not the reverse."""
    recorded = {(row["row"], row["name"]): row for row in RECORDED["attacks"]}
    for row in rows:
        recorded_row = recorded[row.attack.row, row.attack.name]
        for level, by in row.levels.items():
            verdicts = recorded_row["levels"].get(level, {})
            was_rewarded = any(verdict["rewarded"] for kind, verdict in verdicts.items() if kind != "process")
            assert was_rewarded or not row.rewarded(level), (row.attack.id, level, by)


@pytest.mark.slow
def test_common_scorers_reward_as_many_exploits_as_recorded(rows: list[Row]) -> None:
    """Otherwise the comparison would be with scorers weaker than real ones."""
    recorded = {(row["row"], row["name"]): row["rewarded_by"] for row in RECORDED["attacks"]}
    for scorer in RECORDED["scorers"]:
        now = sum(row.naive[scorer] for row in rows)
        then = sum(recorded[row.attack.row, row.attack.name][scorer] for row in rows)
        assert now == then, scorer
    assert all(row.naive_twin["exit code"] for row in rows)
