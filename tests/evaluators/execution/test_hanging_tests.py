"""Tests that never end: each fails by its own limit, whatever the candidate does to its clocks."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite
from regrade.evaluators.execution.hanging_tests import (
    BASE_LIMIT,
    STOPPED,
    limits_at_base,
    limits_of_tests,
)
from regrade.evaluators.execution.records import DoneRecord, TestRecord
from regrade.evaluators.execution.run_tests import run_tests
from regrade.evaluators.execution.worker import Reply, Worker
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.task_curation.baseline import baseline
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards.evidence import End, TestStatus

LOOPS = """
def count(number):
    total = 0
    while number > 0:
        total += 1
    return total


def double(number):
    return 2 * number
"""
TESTS = """
from loops import count, double

SEEN = []


def test_first():
    SEEN.append("first")
    assert double(1) == 2


def test_count():
    assert count(3) == 3


def test_after():
    assert SEEN == ["first"] and double(2) == 4
"""
OTHER = "from loops import double\n\n\ndef test_other():\n    assert double(4) == 8\n"
FILES = {"loops.py": LOOPS, "tests/test_loops.py": TESTS, "tests/test_other.py": OTHER}
COUNT, AFTER = "tests/test_loops.py::test_count", "tests/test_loops.py::test_after"
GUARDED = ("tests/test_loops.py::test_first", AFTER, "tests/test_other.py::test_other")
FIX = LOOPS.replace("total += 1", "total += 1\n        number -= 1")
LIMITS = Limits(wall_seconds=20.0, memory_mb=512, processes=24, file_mb=8, test_seconds=1.0)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("worker")
    scratch.mkdir(mode=0o755, exist_ok=True)
    with Worker(choose(), Path(sys.executable), scratch, limits=LIMITS) as made:
        yield made


@pytest.fixture
def task(write_files) -> Task:
    return Task(
        id="loops", repository="loops", base=write_files(FILES), instruction="", fail_to_pass=(COUNT,),
        pass_to_pass=GUARDED, suite=TestSuite(), limits=LIMITS,
    )  # fmt: skip


def run(worker, task, loops, **options):
    patch = Patch.between({"loops.py": LOOPS}, {"loops.py": loops})
    return run_tests(worker, task, prepare(task, patch), **options).run


def test_a_fix_of_a_test_that_hangs_is_a_fix(worker, task):
    assert run(worker, task, FIX).resolved


def test_a_test_that_hangs_fails_and_the_others_run_on(worker, task):
    judged = run(worker, task, LOOPS + "# nothing\n")
    assert (judged.end, judged.fixed, judged.broken) == (End.COMPLETED, (), ())
    assert judged.outcomes[COUNT].status is TestStatus.FAILED
    assert judged.outcomes[COUNT].message == "stopped after 1 s"


HANGS = {
    "loop": "while number == 2:\n        pass\n    ",
    "c": "import threading\n    number == 2 and threading.Lock().acquire() and (lock := threading.Lock()).acquire() and "
    "lock.acquire()\n    ",
    "alarm off": "import signal, time\n    signal.signal(signal.SIGALRM, signal.SIG_IGN)\n    signal.alarm(0)\n    "
    "while number == 2:\n        try:\n            time.sleep(9)\n        except BaseException:\n            pass\n    ",
    "writes to every descriptor": "import os, time\n    while number == 2:\n        for descriptor in range(3, 20):\n"
    '            try:\n                os.write(descriptor, b\'x\\n["test", "", "passed", 0, ""]\\n\')\n'
    "            except OSError:\n                pass\n        time.sleep(0.1)\n    ",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS.keys())
def test_a_patch_that_hangs_a_test_breaks_that_test_alone(worker, task, hang):
    judged = run(worker, task, FIX.replace("return 2 * number", f"{hang}return 2 * number"))
    assert (judged.end, judged.fixed, judged.broken) == (End.COMPLETED, (COUNT,), (AFTER,))
    assert judged.outcomes[AFTER].message == "stopped after 1 s"


def test_what_a_hanging_candidate_wrote_into_the_tree_is_gone_when_the_rest_runs(worker, task):
    """Otherwise a patch could write tests that pass, and hang until they are collected."""
    write = "open('tests/test_other.py', 'w').write('def test_other(): pass\\n')"
    loops = LOOPS.replace("total = 0", f"total = 0\n    {write}").replace("return 2 * number", "return 3 * number")
    assert "tests/test_other.py::test_other" in run(worker, task, loops).broken


def test_a_patch_that_hangs_all_over_ends_early_and_is_judged(worker, task):
    names = [f"test_{letter}" for letter in "abcdef"]
    text = "from loops import double\n" + "".join(f"def {name}(): assert double(1) == 2\n" for name in names)
    ids = tuple(f"tests/test_many.py::{name}" for name in names)
    base = task.base.with_files({"tests/test_many.py": text})
    long = replace(LIMITS, wall_seconds=300.0)  # four limits of a test, on a busy machine too
    task = replace(task, base=base, pass_to_pass=(*ids, *GUARDED), limits=long)
    judged = run(worker, task, FIX.replace("return 2 * number", "while True: pass"))
    assert judged.end is End.TIMEOUT
    assert judged.detail.startswith("4 tests ran for longer than their limits, at last tests/test_")
    assert len(judged.broken) >= 4
    assert not judged.resolved


def slow_tests(task: Task, seconds: float) -> Task:
    """The task, whose tests each sleep for a while, at the base and under any patch."""
    slow = f"import time\n\nimport pytest\n\n\n@pytest.fixture(autouse=True)\ndef slow():\n    time.sleep({seconds})\n"
    return replace(task, base=task.base.with_files({"tests/conftest.py": slow}))


SLEEPS = FIX.replace("return 2 * number", "import time\n    time.sleep(0.9)\n    return 2 * number")


def test_the_limit_of_the_whole_run_stays_the_last_word(worker, task):
    """Tests that each keep their own limit, but not that of the run."""
    task = replace(task, limits=replace(LIMITS, wall_seconds=1.0, test_seconds=20.0))
    judged = run(worker, task, SLEEPS.replace("0.9", "9"))
    assert judged.end is End.TIMEOUT
    limit = float(re.match(r"stopped at the limit of ([\d.]+) s", judged.detail)[1])
    assert limit >= 1.0, "three times what the base takes at the moment, if that is more"
    named = judged.detail.rpartition(", in ")[2]
    assert judged.outcomes[named].message == "it was running at the end of the time limit"


def test_a_limit_that_the_base_hardly_keeps_at_the_moment_is_not_held_against_a_patch(worker, task):
    """Four tests take 3 s without the patch, and 5.7 s with it: more than the limit, but less than 3 times as long.

    Where the machine is so slow that even the base exceeds the limit, the reference tells, as the bug may never end.
    """
    task = slow_tests(replace(task, limits=replace(LIMITS, wall_seconds=4.0, test_seconds=20.0)), 0.75)
    base, reference = (
        task.base.with_files({"loops.py": FIX}),
        Patch.between({"loops.py": FIX}, {"loops.py": FIX + "#\n"}),
    )
    task = replace(task, base=base, reference=reference)
    judged = run_tests(worker, task, prepare(task, Patch.between({"loops.py": FIX}, {"loops.py": SLEEPS}))).run
    assert (judged.end, judged.broken) == (End.COMPLETED, ())


def test_a_hang_before_the_first_test_is_named_as_such(worker, task):
    task = replace(task, limits=replace(LIMITS, wall_seconds=1.0))
    judged = run(worker, task, "while True:\n    pass\n" + LOOPS)
    assert judged.end is End.TIMEOUT
    assert judged.detail.endswith(", while tests were collected")


def test_a_time_out_of_a_test_that_executes_no_changed_code_is_run_again(worker, task):
    """The neighbour that a test needs hangs by chance, in the first run."""
    quick = (
        "def test_first():\n    pass\n\n\ndef test_second():\n    from loops import double\n    assert double(2) == 4\n"
    )
    first, second = "tests/test_chance.py::test_first", "tests/test_chance.py::test_second"
    suite = TestSuite(
        reach={"loops.py::double": (second,)}, companions={second: "tests/test_chance.py"}, slow={"": 0.0}
    )
    base = task.base.with_files({"tests/test_chance.py": quick})
    task = replace(task, base=base, suite=suite, fail_to_pass=(), pass_to_pass=(first, second))
    workspace = prepare(task, Patch.between({"loops.py": LOOPS}, {"loops.py": LOOPS.replace("2 * n", "number + n")}))

    class BusyMachine:
        """The worker on a machine where `test_first` never ends in the first run, which takes two requests."""

        calls = 0

        def run(self, tree, request, preparation):
            self.calls += 1
            if self.calls <= 2:
                slow = quick.replace("pass", "while True:\n        pass", 1)
                tree = tree.with_files({"tests/test_chance.py": slow})
            return worker.run(tree, request, preparation)

        def take_rewritten(self):
            return worker.take_rewritten()

    machine = BusyMachine()
    assert run_tests(machine, task, workspace, reachable=True).run.resolved
    assert machine.calls == 3


def test_the_limits_of_tests_follow_their_time_at_the_base(task):
    slow = {"a": 4.0, "b": STOPPED, "": 3.0}
    measured = replace(task, suite=TestSuite(slow=slow), limits=Limits(wall_seconds=60.0), fail_to_pass=("c",))
    assert limits_of_tests(measured) == {"a": 35.0, "b": 15.0, "c": 35.0, "": 20.0}
    assert limits_of_tests(replace(measured, limits=Limits(wall_seconds=30.0)))["a"] == 30.0
    assert limits_of_tests(replace(measured, limits=Limits(wall_seconds=60.0, test_seconds=50.0)))["a"] == 50.0
    assert limits_of_tests(replace(measured, suite=TestSuite())) is None
    assert limits_of_tests(replace(measured, suite=TestSuite(), limits=LIMITS)) == {"": 1.0}


def test_the_base_has_more_time_as_long_as_no_time_is_known():
    assert limits_at_base(Limits(wall_seconds=100.0), []) == {"": BASE_LIMIT}
    assert limits_at_base(Limits(wall_seconds=6000.0), []) == {"": 600.0}
    assert limits_at_base(replace(LIMITS, test_seconds=7.0), []) == {"": 7.0}
    records = (TestRecord("t", "passed", 6.0, ""), TestRecord("h", "failed", 0.0, ""), DoneRecord(0))
    first = Reply(status=0, stopped="", records=records, output="", seconds=70.0, cpu_seconds=1.0, hanging={"h": 60.0})
    assert limits_at_base(Limits(), [first]) == {"": 30.0}


# ---------------------------------------------------------------- at the base


def test_a_hanging_test_of_the_base_fails_and_its_neighbours_are_measured(write_files):
    found = baseline(write_files(FILES), TestSuite(), limits=Limits(60.0, test_seconds=1.0), runs=2)
    assert set(found.stable) == set(GUARDED)
    assert found.failing == (COUNT,)
    assert found.outcomes[COUNT].message == "stopped after 1 s"
    assert found.slow_tests == {COUNT: STOPPED, "": 0.0}
    assert COUNT in found.reach["loops.py::double"], "what it executes is unknown"


def test_a_shared_fixture_counts_for_the_test_that_prepares_it(write_files):
    """At the base it is another test than under a patch, which runs only some of them."""
    conftest = (
        "import time\nimport pytest\n\n\n@pytest.fixture(scope='session')\ndef shared():\n    time.sleep(1.5)\n"
        "    yield 2\n    time.sleep(1.2)\n"
    )
    tests = "".join(
        f"import calc\n\n\ndef test_{name}(shared):\n    assert calc.{name}(1) == shared\n\n\n" for name in "ab"
    )
    code = "def a(x):\n    return x + 1\n\n\ndef b(x):\n    return x * 2\n"
    tree = write_files({"calc.py": code, "tests/conftest.py": conftest, "tests/test_calc.py": tests})
    found = baseline(tree, TestSuite(), limits=Limits(60.0), runs=1)
    assert found.slow_tests[""] == pytest.approx(2.7, abs=0.4)
    task = Task(
        id="t", repository="t", base=tree, instruction="", fail_to_pass=(), pass_to_pass=found.stable,
        suite=found.applied_to(TestSuite()), limits=Limits(60.0, test_seconds=1.0),
    )  # fmt: skip
    assert limits_of_tests(task)["tests/test_calc.py::test_b"] > 13.0


def test_one_command_scores_a_repository_with_a_hanging_bug(write_files, tmp_path):
    root = write_files(FILES).root
    task = local_task(root, [COUNT], cache=tmp_path / "cache", runs=1, test_limit=1.0, tell=[].append)
    assert (task.fail_to_pass, set(task.pass_to_pass)) == ((COUNT,), set(GUARDED))
    assert task.failure == "stopped after 1 s"
