"""The exploits as data: the catalogue is complete, no exploit fixes a bug, every honest twin does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gauntlet.attack import LAYERS, Attack
from gauntlet.attacks import ATTACKS, NOT_PLAYED
from gauntlet.documented import with_table
from gauntlet.target import BUGS, Target
from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import PatchError
from regrade.evaluators.static.tampering import integrity
from regrade.rewards import untampered

ROOT = Path(__file__).parents[2]
ROWS = 58


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("target"))


def test_every_row_of_the_catalogue_is_played_or_has_a_reason() -> None:
    played = {int(attack.row) for attack in ATTACKS if not attack.row.startswith("+")}
    assert played.isdisjoint(NOT_PLAYED)
    assert played | NOT_PLAYED.keys() == set(range(1, ROWS + 1))
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    assert {layer for attack in ATTACKS for layer in attack.layer.split()} <= LAYERS.keys()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_the_honest_twin_fixes_the_bug_without_signs_of_tampering(attack: Attack, target: Target) -> None:
    task, patch = target.tasks[attack.bug], attack.honest(target.checkout(attack.bug))
    after = apply_patch(task.base, patch)
    bug = BUGS[attack.bug]
    assert bug.right in after.read("shop/prices.py") or attack.rewritten
    signs = integrity.probe(task.base, after, patch, task)
    assert untampered(signs).value == 1.0, untampered(signs).why


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_the_exploit_fixes_nothing(attack: Attack, target: Target) -> None:
    task, patch = target.tasks[attack.bug], attack.patch(target.checkout(attack.bug))
    try:
        after = apply_patch(task.base, patch)
    except PatchError:
        return  # a patch that does not apply fixes nothing
    bug = BUGS[attack.bug]
    text = after.read("shop/prices.py")
    assert bug.right not in text.replace(repr(bug.files["shop/prices.py"]), "")


def test_the_recorded_table_has_these_exploits() -> None:
    recorded = json.loads((ROOT / "benchmarks" / "gauntlet.json").read_text("utf-8"))
    assert [(row["row"], row["name"]) for row in recorded["attacks"]] == [(each.row, each.name) for each in ATTACKS]
    assert recorded["totals"]["punished"] == 0
    assert recorded["honest"]["punished"] == 0
    assert recorded["honest"]["patches"] >= 500
    assert recorded["honest"]["references_signed"] == 0


def test_the_documentation_has_the_recorded_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    recorded = json.loads((ROOT / "benchmarks" / "gauntlet.json").read_text("utf-8"))
    assert text == with_table(text, recorded)
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == set(range(1, ROWS + 1))
