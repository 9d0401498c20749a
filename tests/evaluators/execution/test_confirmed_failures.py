"""A test that fails once, as on a busy machine, does not turn a fix into breakage; one that a patch breaks does."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import TestRun

SHOP = "def total(prices):\n    return sum(prices) + 1\n\n\ndef label(name):\n    return name.title()\n"
TESTS = """\
from pathlib import Path

import shop


def test_total():
    assert shop.total([1, 2]) == 3


def test_label():
    assert shop.label("tea") == "Tea"


def test_in_time():
    was_late = Path({marker!r}).exists()
    Path({marker!r}).touch()
    assert was_late
"""
T = "tests/test_shop.py::"
FIX, BREAKAGE = (" + 1", ""), ("name.title()", "name")


@pytest.mark.parametrize(
    ("edits", "fixed", "broken"),
    [
        ([FIX], (f"{T}test_total",), ()),
        ([FIX, BREAKAGE], (f"{T}test_total",), (f"{T}test_label",)),
        ([("+ 1", "+ 2")], (), (f"{T}test_in_time",)),  # no fix anyway: nothing runs again
    ],
    ids=["fix", "breakage", "no fix"],
)
def test_only_a_second_failure_counts_against_a_fix(
    tmp_path: Path, edits: list[tuple[str, str]], fixed: tuple[str, ...], broken: tuple[str, ...]
) -> None:
    """In a plain process, so that the test finds what its first run has left."""
    root, text = tmp_path / "shop", SHOP
    (root / "tests").mkdir(parents=True)
    (root / "shop.py").write_text(SHOP)
    (root / "tests" / "test_shop.py").write_text(TESTS.format(marker=str(tmp_path / "marker")))
    for old, new in edits:
        text = text.replace(old, new)
    task = Task(
        id="shop",
        repository="shop",
        base=Tree(root),
        instruction="Fix total.",
        fail_to_pass=(f"{T}test_total",),
        pass_to_pass=(f"{T}test_label", f"{T}test_in_time"),
    )
    with Scorer(workers=1, sandbox="process", cache=tmp_path / "cache") as scorer:
        (evidence,) = scorer.gather([(task, Patch.between({"shop.py": SHOP}, {"shop.py": text}))], [TestRun])
    run = evidence.records[TestRun]
    assert (run.fixed, run.broken) == (fixed, broken)
