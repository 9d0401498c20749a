"""The size of the reference patch reaches the evidence of a task that has one, and of no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.scoring.probes import ON_REFERENCE
from regrade.evaluators.static import complexity, diff
from regrade.rewards import ComplexityDelta, Diff, LintDelta
from regrade.rewards import complexity as complexity_reward

BUGGY = "def sign(x):\n    return 1\n"
FIXED = "def sign(x):\n    if x < 0:\n        return -1\n    if x == 0:\n        return 0\n    return 1\n"


def test_branches_that_the_bug_removed_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(BUGGY)
    fix = Patch.between({"m.py": BUGGY}, {"m.py": FIXED})
    task = Task(
        id="t", instruction="", repository="r", base=Tree(tmp_path), suite=TestSuite(), fail_to_pass=("t.py::t",), pass_to_pass=(),
        reference=fix,
    )  # fmt: skip
    after = apply_patch(task.base, fix)
    delta = complexity.probe(task.base, after, fix, task)
    assert (delta.growth, delta.reference_growth) == (4, 4)
    assert complexity_reward(delta).value == 1.0
    assert diff.probe(task.base, after, fix, task).reference_lines == 4
    hidden = replace(task, reference=None)
    assert complexity.probe(task.base, after, fix, hidden).reference_growth is None
    assert {Diff, ComplexityDelta} <= ON_REFERENCE
    assert LintDelta not in ON_REFERENCE
