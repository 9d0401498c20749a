"""Assurance levels: ordered by strength, and plain strings wherever they are written."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.serialisation import decode, encode
from regrade.rewards import AssuranceLevel, Breakdown, EvidenceSet, Verification, assured
from regrade.rewards.evidence import TestList

NAMES = ["unconfined", "unsealed", "in-process", "tripwired", "out-of-process", "held-out"]


def test_levels_are_ordered_by_strength_and_not_by_letters() -> None:
    assert list(AssuranceLevel) == sorted(AssuranceLevel) == NAMES
    for weaker, stronger in combinations(AssuranceLevel, 2):
        assert weaker < stronger
        assert weaker <= stronger.value
        assert stronger > weaker.value
        assert stronger >= weaker
        assert not stronger < weaker
        assert not stronger.value <= weaker
    assert max(AssuranceLevel) is AssuranceLevel.HELD_OUT
    assert AssuranceLevel.TRIPWIRED <= "tripwired"
    with pytest.raises(ValueError, match="'boss'"):
        _ = AssuranceLevel.TRIPWIRED < "boss"


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_stored_as_its_name_and_comes_back(name: str) -> None:
    tests = TestList((), ())
    verification = Verification(level=AssuranceLevel(name), reachable=name)
    text = encode(verification)
    assert json.loads(text)["level"] == json.loads(text)["reachable"] == name
    restored = decode(Verification, text, tests)
    assert restored == verification
    assert isinstance(restored.level, AssuranceLevel)
    breakdown = Breakdown(1.0, "scored", assurance=AssuranceLevel(name))
    assert json.loads(json.dumps(breakdown.to_json()))["assurance"] == name
    assert Breakdown.from_json(breakdown.to_json()) == breakdown


def test_an_unknown_level_is_no_stored_evidence() -> None:
    text = encode(Verification(level=AssuranceLevel.TRIPWIRED, reachable="")).replace("tripwired", "boss")
    with pytest.raises(ValueError, match="boss"):
        decode(Verification, text, TestList((), ()))


def test_a_gate_takes_a_level_or_its_name() -> None:
    assert assured("out-of-process") == assured(AssuranceLevel.OUT_OF_PROCESS)
    assert assured(AssuranceLevel.HELD_OUT).name == "assured(held-out)"
    with pytest.raises(UserError, match="choose one of unconfined, unsealed, in-process, tripwired"):
        assured("certain")


@pytest.mark.parametrize(
    ("level", "reachable", "advice"),
    [
        ("out-of-process", "tripwired", "; no patch of this task can reach more than tripwired: require that at most"),
        ("held-out", "", "; held-out compares with a reference patch, and the task has none: add one, or require less"),
        ("held-out", "held-out", "b"),
    ],
)
def test_a_closed_gate_names_what_to_do(level: str, reachable: str, advice: str) -> None:
    verification = Verification(level=AssuranceLevel.IN_PROCESS, reachable=reachable, why="b")
    (part,) = assured(level).evaluate(EvidenceSet({Verification: verification})).parts
    assert (part.value, part.why.startswith("in-process only: b")) == (0.0, True)
    assert part.why.endswith(advice)
