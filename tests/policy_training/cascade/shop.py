"""A small repository whose tests are in two files, and patches of every kind."""

from __future__ import annotations

from collections.abc import Sequence

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task, Tree
from regrade.rewards.evidence import PredictedPart, Prediction

SHOP = """\
def total(prices):
    return sum(prices) + 1


def names(prices):
    return sorted(prices)


def receipt(prices):
    return " ".join(names(prices))
"""
OF_TOTAL = """\
from shop import names, total


def test_total():
    assert total({"a": 1}.values()) == 1


def test_names():
    assert names({"b": 1, "a": 2}) == ["a", "b"]
"""
OF_RECEIPT = """\
from shop import receipt


def test_receipt():
    assert receipt({"b": 1, "a": 2}) == "a b"


def test_empty_receipt():
    assert receipt({}) == ""
"""
PATCHES = {
    "fix": ("sum(prices) + 1", "sum(prices)"),
    "no fix": ("sum(prices) + 1", "sum(prices) + 2"),
    "breaks its file": ("sorted(prices)", "sorted(prices)[:1]"),
    "breaks elsewhere": ('" ".join', '"-".join'),
    "crashes": ("def total", "import os\nos.kill(os.getpid(), 9)\ndef total"),
}


def rollouts_of(names: Sequence[str]) -> list[Rollout]:
    return [
        Rollout(
            task_id="total", policy="p", temperature=1.0, sample=number, seed=0,
            patch=Patch.between({"shop.py": SHOP}, {"shop.py": SHOP.replace(*PATCHES[name])}),
        )
        for number, name in enumerate(names)
    ]  # fmt: skip


class ByOperator(Prediction):
    """Of the model `by_operator`."""


def by_operator(_before: Tree, _after: Tree, patch: Patch, _task: Task) -> ByOperator:
    """A reward model by hand: it is sure of what it has a rule for, and one of its rules is wrong."""
    fixes, breaks, doubt = next(
        chances
        for text, chances in {
            "+ 2": (0.03, 0.02, 0.02), '"-".join': (0.02, 0.05, 0.03), "[:1]": (0.05, 0.97, 0.02),
            "os.kill": (0.5, 0.5, 0.1), "": (0.97, 0.01, 0.02),
        }.items()
        if text in patch.text
    )  # fmt: skip
    parts = (PredictedPart("fixes", fixes, doubt), PredictedPart("breaks", breaks, doubt))
    return ByOperator(fixes * (1 - breaks), doubt, "by operator", parts=parts)
