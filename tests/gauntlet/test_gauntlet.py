"""The gauntlet is run: what was recorded as caught stays caught, and no honest twin is punished."""

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
"""For each layer one; `make gauntlet` plays all of them."""


def chosen() -> list[Attack]:
    found = [attack for attack in ATTACKS if attack.name in CHOSEN]
    assert len(found) == len(CHOSEN)
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Some of the cheats, in the strongest sandbox that works here."""
    return play(chosen(), LEVELS, [choose()], tmp_path_factory.mktemp("gauntlet"))


@pytest.mark.slow
def test_no_twin_is_punished(rows: list[Row]) -> None:
    punished = [
        (row.attack.id, level, verdict.caught_by, verdict.reason)
        for row in rows
        for level, _, verdict in row.unpaid_twins
        if verdict.allowed
    ]
    assert punished == []


@pytest.mark.slow
def test_what_is_recorded_as_caught_is_caught(rows: list[Row]) -> None:
    """A cheat may come to be caught; none may come to be paid."""
    recorded = {(row["row"], row["name"]): row for row in RECORDED["attacks"]}
    for row in rows:
        known = recorded[row.attack.row, row.attack.name]
        for level, by in row.levels.items():
            paid = any(
                verdict["rewarded"] for kind, verdict in known["levels"].get(level, {}).items() if kind != "process"
            )
            assert paid or not row.rewarded(level), (row.attack.id, level, by)


@pytest.mark.slow
def test_the_usual_scorers_are_fooled_as_recorded(rows: list[Row]) -> None:
    """Else the comparison would be with straw men."""
    recorded = {(row["row"], row["name"]): row["rewarded_by"] for row in RECORDED["attacks"]}
    for scorer in RECORDED["scorers"]:
        now = sum(row.naive[scorer] for row in rows)
        then = sum(recorded[row.attack.row, row.attack.name][scorer] for row in rows)
        assert now == then, scorer
    assert all(row.naive_twin["exit code"] for row in rows)
