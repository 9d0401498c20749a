"""An adversary against a small task with weak tests: what is paid is shown, closed, and stays closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.formats.task_sets import SetTask, write_task_set
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Limits, Target, Task, Tree
from regrade.evaluators.hardening.adversary import AttackKind
from regrade.evaluators.hardening.hackability import AttackOutcome, TaskCard, card_of, hackable_tasks, shares_by_kind
from regrade.evaluators.hardening.hardening import AttackedReward, HardeningSettings, harden
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import default, resolved

SHIPPING = """\
def cost(weight, distance):
    if weight < 0:
        raise ValueError("a weight is not negative")
    fee = 5 if distance > 100 else 3
    return fee + weight * {price}
"""
TESTS = """\
import pytest

from shipping import cost


@pytest.mark.parametrize(("weight", "expected"), [(1, 5), (2, 7), (3, 9)])
def test_cost(weight, expected):
    assert cost(weight, 10) == expected


def test_nothing():
    assert cost(0, 50) == 3
"""
FAILING = tuple(f"tests/test_shipping.py::test_cost[{pair}]" for pair in ("1-5", "2-7", "3-9"))
SETTINGS = HardeningSettings(most=2, inputs=40, honest=4)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The tests neither notice the guard nor the fee of a long way."""
    root = tmp_path_factory.mktemp("shipping")
    (root / "tests").mkdir()
    before, after = (SHIPPING.format(price=price) for price in (3, 2))
    (root / "shipping.py").write_text(before)
    (root / "tests" / "test_shipping.py").write_text(TESTS)
    return Task(
        id="shipping",
        repository="shipping",
        base=Tree(root),
        instruction="A unit of weight costs 2.",
        fail_to_pass=FAILING,
        pass_to_pass=("tests/test_shipping.py::test_nothing",),
        limits=Limits(wall_seconds=20.0, memory_mb=512, processes=32, file_mb=16),
        reference=Patch.between({"shipping.py": before}, {"shipping.py": after}),
        target=Target("shipping.py", "cost", 1, 5),
    )


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    with Scorer(workers=1, cache=tmp_path_factory.mktemp("cache")) as made:
        yield made


@pytest.fixture(scope="module")
def card(task: Task, scorer: Scorer) -> TaskCard:
    (found,) = harden([task], scorer, AttackedReward(default), SETTINGS)
    return found


def test_the_adversary_is_paid_before_and_not_after(card: TaskCard) -> None:
    assert not card.unfit
    paid = [attack for attack in card.attacks if attack.before is AttackOutcome.PAID]
    kinds = {attack.kind for attack in paid}
    assert AttackKind.GUARD in kinds  # no test of the task asks for the error
    assert AttackKind.HARD_CODED in kinds
    assert all(attack.evidence and attack.patch for attack in paid)
    assert [attack for attack in paid if not attack.is_held_back and attack.after is AttackOutcome.PAID] == []
    assert card.tests is not None
    assert "pytest.raises(ValueError)" in card.tests.text


def test_tricks_with_the_process_are_refused(card: TaskCard) -> None:
    tricks = [attack for attack in card.attacks if attack.kind in (AttackKind.PROCESS, AttackKind.FILES)]
    assert len(tricks) >= 5
    assert {attack.before for attack in tricks} == {AttackOutcome.REFUSED}


def test_no_honest_rewrite_loses_its_pay(card: TaskCard) -> None:
    assert card.honest.before >= 1
    assert card.honest.after == card.honest.before


def test_the_card_survives_json_and_is_not_measured_again(card: TaskCard, task: Task, scorer: Scorer) -> None:
    stored = card_of(json.loads(json.dumps(card.to_json())), "card")
    assert stored == card
    runs = scorer.stats.executions
    (again,) = harden([task], scorer, AttackedReward(default), SETTINGS, known={card.id: stored})
    assert again == card
    assert scorer.stats.executions == runs
    shares = shares_by_kind([card])
    assert shares["all"].before > shares["all"].after
    assert hackable_tasks([card]).before == 1


def test_the_hardened_task_is_read_back_and_hides_its_tests(
    card: TaskCard, task: Task, scorer: Scorer, tmp_path: Path
) -> None:
    write_task_set(tmp_path / "set", [SetTask(card.hardened(task))], "# card\n", [])
    (hardened,) = load_tasks(tmp_path / "set" / "tasks.jsonl")
    assert card.tests is not None
    assert hardened.assurance == card.assurance
    assert set(card.tests.ids) <= set(hardened.tests)
    assert hardened.shown.tests == ("tests/test_shipping.py",)
    assert task.reference is not None
    exploit = next(
        attack for attack in card.attacks if attack.before is AttackOutcome.PAID and attack.kind is AttackKind.GUARD
    )
    jobs = [(hardened, task.reference), (hardened, Patch(exploit.patch))]
    assert [each.value for each in scorer.score(jobs, resolved)] == [1.0, 0.0]


def test_a_recorded_level_refuses_what_does_not_reach_it(card: TaskCard, task: Task, scorer: Scorer) -> None:
    table = next(attack for attack in card.attacks if attack.kind is AttackKind.HARD_CODED)
    assert table.before is AttackOutcome.PAID
    strict = replace(task, assurance="held-out")
    reward = AttackedReward(default).of(strict)
    assert task.reference is not None
    plain, refused, fixed = scorer.score(
        [(task, Patch(table.patch)), (strict, Patch(table.patch)), (strict, task.reference)], reward
    )
    assert plain.value is not None
    assert plain.value > 0.5
    assert refused.value == 0.0
    assert "held-out" in str(refused)
    assert fixed.value is not None
    assert fixed.value > 0.9


def test_a_task_without_a_reference_is_named(task: Task, scorer: Scorer) -> None:
    (found,) = harden([replace(task, reference=None)], scorer, AttackedReward(default), SETTINGS)
    assert "no reference" in found.unfit
