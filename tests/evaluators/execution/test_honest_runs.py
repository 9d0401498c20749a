"""What the tests of the base do themselves is no sign of cheating, and is measured once for many patches."""

from __future__ import annotations

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.honest_runs import OTHER, HonestRuns, Signs
from regrade.evaluators.execution.worker import UNPREPARED, Worker
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import End, TestRun

CODE = "def total(prices):\n    return sum(prices) + 1\n"
TESTS = """\
import math

import shop


def test_total(monkeypatch):
    monkeypatch.setattr(math, "floor", int)
    assert shop.total([1, 2]) == 3


def test_kept():
    math.ceil = int
    assert shop.total([]) in (0, 1)
"""
"""One test of them replaces a function of Python's for good."""


def test_the_base_runs_once_for_all_patches_whose_tests_replace_what_its_own_replace(
    write_files, tmp_path, monkeypatch
):
    base = write_files({"shop.py": CODE, "test_shop.py": TESTS})
    ids = ("test_shop.py::test_total", "test_shop.py::test_kept")
    task = Task(
        id="shop", repository="shop", base=base, instruction="", fail_to_pass=ids[:1], pass_to_pass=ids[1:]
    )  # fmt: skip
    patches = [
        Patch.between({"shop.py": CODE}, {"shop.py": CODE.replace("sum(prices) + 1", text)})
        for text in ("sum(prices)", "sum(list(prices))", "sum([0, *prices])")
    ]
    patches.append(
        Patch.between(
            {"shop.py": CODE}, {"shop.py": "import math\nmath.fsum = lambda _: 3\n" + CODE.replace(" + 1", "")}
        )
    )
    trees = []
    run = Worker.run
    monkeypatch.setattr(Worker, "run", lambda self, tree, *rest: trees.append(tree) or run(self, tree, *rest))
    with Scorer(workers=1, sandbox="bubblewrap", cache=tmp_path / "cache") as scorer:
        first, *others, cheat = (
            evidence.records[TestRun] for evidence in scorer.gather([(task, patch) for patch in patches], [TestRun])
        )
    assert [run.resolved for run in (first, *others)] == [True] * 3
    assert (cheat.end, cheat.resolved) == (End.CRASHED, False), "one more function is replaced"
    of_base = [tree for tree in trees if tree.read("shop.py") == CODE and tree is base]
    assert len(of_base) == 2, "for the first patch, and for the one that shows more"


def test_a_read_that_only_the_kernel_saw_explains_no_other():
    found = Signs(opened=frozenset({("a.py", "shop.py"), ("b.py", OTHER)}))
    assert not found.beyond(Signs(opened=frozenset({("a.py", "other.py"), ("b.py", OTHER)})))
    assert found.beyond(Signs(opened=frozenset({("a.py", OTHER), ("b.py", "shop.py")}))) == Signs(
        opened=frozenset({("a.py", "shop.py")})
    )


def test_what_is_remembered_belongs_to_one_tree_and_the_same_tests(task):
    runs = HonestRuns()
    tests = frozenset(task.tests)
    key = runs.key(task.base, task.suite, tests, task.limits, UNPREPARED, cold=False)
    runs.add(key, task.suite, Signs(rewritten=frozenset({"a"})))
    assert runs.add(key, task.suite, Signs(tampered={"b": "c"})) == Signs(frozenset({"a"}), {"b": "c"})
    assert not Signs(frozenset({"a"}), {"b": "d"}).beyond(runs.signs(key))
    for other in (
        runs.key(task.base.with_files({"README": "other"}), task.suite, tests, task.limits, UNPREPARED, cold=False),
        runs.key(task.base, task.suite, frozenset(task.fail_to_pass), task.limits, UNPREPARED, cold=False),
        runs.key(task.base, task.suite, tests, task.limits, UNPREPARED, cold=True),
    ):
        assert not runs.signs(other)
