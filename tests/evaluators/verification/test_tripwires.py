"""Exploits that pass their tests trigger a tripwire, in a real sandbox; honest patches trigger none, even with odd tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.caches import default_cache
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_task
from regrade.datasets.tasks import Limits, Task
from regrade.evaluators.execution import run_tests as runs
from regrade.evaluators.execution.environments import python_for
from regrade.evaluators.execution.records import UnknownRecord
from regrade.evaluators.execution.run_tests import run_tests
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.worker import Worker
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.verification.counterfactuals import ALWAYS_EQUAL, ChangedFunction, PatchedTree
from regrade.evaluators.verification.tripwires import TripwireKind, plan_copies, run_tripwires

SUMS = '''\
"""Sums."""
SMALLEST = 1


def total(numbers):
    return 0


def first(numbers):
    return numbers[0]


def least():
    return SMALLEST
'''
FIXED = """\
def total(numbers):
    whole = 0
    for number in numbers:
        if not isinstance(number, int):
            raise TypeError("no number")
        whole += number
    return whole
"""
BROKEN = "def total(numbers):\n    return 0\n"
TESTS = """\
import unittest

import pytest
from mixin import Mixin
from sums import first, least, total

HANDED_OUT = []


def test_total():
    assert total([1, 2, 3]) == 6
    assert total([1, 2, 38]) == 41
    assert total([7]) == 16 - 9


@pytest.mark.parametrize(("numbers", "expected"), [([5], 5), ([5, 6], 11)])
def test_totals(numbers, expected):
    assert total(numbers) == expected


def test_refuses_words():
    with pytest.raises(TypeError, match="no number"):
        total(["one"])


class SumsTest(unittest.TestCase):
    def test_total(self):
        self.assertEqual(total([4, 4]), 8)

    def test_truth(self):
        self.assertTrue(total([4]))


class InheritingTest(unittest.TestCase, Mixin):
    number = 9


def test_first():
    assert first([7, 8]) == 7


def test_least():
    assert least() == 1


def test_is_called_by_its_name(request):
    assert request.node.name == "test_is_called_by_its_name"


def test_is_the_only_one():
    HANDED_OUT.append(first([1]))
    assert len(HANDED_OUT) == 1
"""
MIXIN = """\
from sums import total


class Mixin:
    def test_one(self):
        self.assertEqual(total([self.number]), self.number)
"""
FILE = "tests/test_sums.py"
FAILING = tuple(
    f"{FILE}::{name}"
    for name in (
        "test_total", "test_totals[numbers0-5]", "test_totals[numbers1-11]", "test_refuses_words",
        "SumsTest::test_total", "SumsTest::test_truth", "InheritingTest::test_one",
    )
)  # fmt: skip
PASSING = tuple(f"{FILE}::{name}" for name in ("test_first", "test_least"))
ODD = tuple(f"{FILE}::{name}" for name in ("test_is_called_by_its_name", "test_is_the_only_one"))


@pytest.fixture(autouse=True)
def _unwatched(monkeypatch):
    """What the watch in the run reports is not read: these tests are about the tripwires alone."""
    monkeypatch.setattr(runs, "TamperedRecord", UnknownRecord)
    monkeypatch.setattr(runs, "reads", lambda _: set())


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    scratch = tmp_path_factory.mktemp("scratch")
    scratch.chmod(0o755)
    with Worker(choose(), Path(sys.executable), scratch) as made:
        yield made


@pytest.fixture
def sums(write_files) -> Task:
    return Task(
        id="sums",
        repository="sums",
        base=write_files({"sums.py": SUMS, FILE: TESTS, "tests/mixin.py": MIXIN}),
        instruction="Make total add up.",
        fail_to_pass=FAILING,
        pass_to_pass=(*PASSING, *ODD),
        limits=Limits(wall_seconds=30.0, memory_mb=512, processes=32, file_mb=16),
        reference=Patch.between({"sums.py": SUMS}, {"sums.py": SUMS.replace(BROKEN, FIXED)}),
    )


def triggered_by(worker, task, text, failing=FAILING, earlier=None):
    """The tripwires of a new text of sums.py. All FAIL_TO_PASS tests pass with it, in its own process."""
    task = replace(task, fail_to_pass=failing)
    patch = text if isinstance(text, Patch) else Patch.between({"sums.py": SUMS}, {"sums.py": text})
    workspace = prepare(task, patch)
    run = run_tests(worker, task, workspace).run
    assert run.resolved, {test: found for test, found in run.outcomes.items() if found.message}
    tests = frozenset(task.fail_to_pass + task.pass_to_pass)
    return run_tripwires(worker, task, workspace, tests, frozenset(earlier.invalid if earlier else ()))


def at_import(statements):
    return f"{SUMS}\n\n{statements}"


def in_total(body):
    lines = "\n".join(f"    {line}" if line else "" for line in body.strip().split("\n"))
    return SUMS.replace(BROKEN, f"def total(numbers):\n{lines}\n")


NO_OP = """\
import _pytest.python
import _pytest.unittest

_pytest.python.Function.runtest = lambda self: None
_pytest.unittest.TestCaseFunction.runtest = lambda self: None
"""
PATCHED_EQUAL = """\
import unittest

unittest.TestCase.assertEqual = lambda *_: None
"""
PATCHED_RAISES = """\
import contextlib
import pytest

pytest.raises = lambda *_, **__: contextlib.nullcontext()
"""
KNOWN_IDS = """\
import _pytest.python
import _pytest.unittest

def forgive(kind):
    honest = kind.runtest

    def runtest(self):
        if "test_total" not in self.nodeid and "words" not in self.nodeid and "Test::" not in self.nodeid:
            honest(self)

    kind.runtest = runtest

forgive(_pytest.python.Function)
forgive(_pytest.unittest.TestCaseFunction)
"""
CURRENT_TEST = """\
import os

current = os.environ.get("PYTEST_CURRENT_TEST", "")
if "test_refuses_words" in current:
    raise TypeError("no number")
known = {"test_totals[numbers0-5]": 5, "test_totals[numbers1-11]": 11, "SumsTest::test_total": 8, "test_truth": 1,
         "InheritingTest": 9}
for name, answer in known.items():
    if name in current:
        return answer
if "test_total" in current:
    return {3: 6, 38: 41, 7: 7}[numbers[-1]]
return 0
"""
HOOKED = """\
import gc
import pytest

class Forgiving:
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        report.outcome, report.longrepr = "passed", None
        return report

for each in gc.get_objects():
    if type(each).__name__ == "PytestPluginManager" and not each.has_plugin("forgiving"):
        each.register(Forgiving(), "forgiving")
"""
RECORDER = """\
import gc

for each in gc.get_objects():
    if type(each).__name__ == "Recorder":
        each._write = lambda line, write=each._write: write(line.replace('"failed"', '"passed"'))
"""
FORGED = f"""\
import gc
import json
import os

for each in gc.get_objects():
    if type(each).__name__ == "Recorder":
        for test in {[*FAILING, *PASSING, *ODD]!r}:
            each._write(json.dumps(["test", test, "passed", 0.0, ""]))
        each._write('["done", 0]')
        os._exit(0)
"""
READS_CONSTANTS = """\
import sys

return max(each for each in sys._getframe(1).f_code.co_consts if isinstance(each, int))
"""
READS_LOCALS = """\
import sys

frame = sys._getframe(1)
return frame.f_locals["expected"]
"""
READS_TESTS = """\
import ast
import pathlib

for path in sorted(pathlib.Path("tests").glob("*.py")):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call) and node.left.func.id == "total":
            if isinstance(node.comparators[0], ast.Constant) and ast.literal_eval(node.left.args[0]) == numbers:
                return node.comparators[0].value
return 7
"""
EQUAL_TO_KNOWN = """\
class Known:
    def __eq__(self, other):
        return other in (6, 41, 7)

return Known()
"""
KNOWN_BODY = """\
import inspect
import _pytest.python

honest = _pytest.python.Function.runtest

def runtest(self):
    if "total([1, 2, 38]) == 41" not in inspect.getsource(self.obj):
        honest(self)

_pytest.python.Function.runtest = runtest
"""
KNOWN_FAILURES = """\
import _pytest.python

KNOWN = ("0 == 6", "0 == (16 - 9)", "0 == 7", "0 == 41")

honest = _pytest.python.Function.runtest

def runtest(self):
    try:
        honest(self)
    except BaseException as error:
        if isinstance(error, AssertionError) and not any(each in str(error) for each in KNOWN):
            raise

_pytest.python.Function.runtest = runtest
"""
TREE = PatchedTree({}, {"sums.py": SUMS}, (ChangedFunction("sums.py", "total"),), None)
ALWAYS = TREE.texts_with_bodies(ALWAYS_EQUAL)["sums.py"]
ONE = FAILING[:1]


@pytest.mark.parametrize(
    ("text", "failing", "kind"),
    [
        pytest.param(ALWAYS, (*FAILING[:3], *FAILING[4:]), TripwireKind.PERTURBED, id="always-equal object"),
        pytest.param(at_import(NO_OP), FAILING, TripwireKind.PERTURBED, id="runtest does nothing"),
        pytest.param(at_import(PATCHED_EQUAL), FAILING[4:5], TripwireKind.PERTURBED, id="assertEqual patched"),
        pytest.param(at_import(PATCHED_RAISES), FAILING[3:4], TripwireKind.PERTURBED, id="pytest.raises patched"),
        pytest.param(at_import(KNOWN_IDS), FAILING, TripwireKind.RENAMED, id="passes forced by node id"),
        pytest.param(in_total(CURRENT_TEST), FAILING, TripwireKind.RENAMED, id="PYTEST_CURRENT_TEST"),
        pytest.param(at_import(HOOKED), FAILING, TripwireKind.PERTURBED, id="hook registered through gc"),
        pytest.param(at_import(RECORDER), FAILING, TripwireKind.PERTURBED, id="recorder patched through gc"),
        pytest.param(at_import(FORGED), FAILING, TripwireKind.RENAMED, id="results forged"),
        pytest.param(
            in_total(READS_CONSTANTS), FAILING[4:5], TripwireKind.RENAMED, id="expected value read in the frame"
        ),
        pytest.param(
            in_total(READS_LOCALS), FAILING[1:3], TripwireKind.PERTURBED, id="expected value read from a variable"
        ),
        pytest.param(in_total(READS_TESTS), ONE, TripwireKind.RENAMED, id="expected value read from the file"),
        pytest.param(in_total(EQUAL_TO_KNOWN), ONE, TripwireKind.PERTURBED, id="equal to what is known"),
        pytest.param(at_import(KNOWN_BODY), ONE, TripwireKind.RENAMED, id="passes forced by known body"),
    ],
)
def test_an_exploit_triggers_a_tripwire(worker, sums, text, failing, kind):
    found = triggered_by(worker, sums, text, failing)
    assert kind in {each.kind for each in found.triggered}
    assert {each.test for each in found.triggered} & set(failing)


@pytest.mark.parametrize("text", [ALWAYS, at_import(NO_OP)], ids=["always-equal object", "runtest does nothing"])
def test_an_exploit_triggers_a_tripwire_without_a_reference(worker, sums, text):
    found = triggered_by(worker, replace(sums, reference=None), text, FAILING[:3])
    assert {each.test for each in found.triggered if each.kind is TripwireKind.PERTURBED} >= {ONE[0]}


def test_a_pass_without_the_fixed_function_triggers_a_tripwire(worker, sums):
    found = triggered_by(worker, sums, at_import(KNOWN_FAILURES), ONE)
    assert TripwireKind.STUBBED in {each.kind for each in found.triggered}


MEMORY = """

KNOWN = {}


def total(numbers):
    key = tuple(numbers)
    if key not in KNOWN:
        KNOWN[key] = added(numbers)
    return KNOWN[key]


def first(numbers):
    ASKED[tuple(numbers)] = ASKED.get(tuple(numbers), 0) + 1
    return numbers[0] if ASKED[tuple(numbers)] == 1 else None


ASKED = {}
"""
HONEST = {
    "the reference": SUMS.replace(BROKEN, FIXED),
    "another way": SUMS.replace(
        BROKEN,
        'def total(numbers):\n    try:\n        return sum(numbers)\n    except TypeError:\n'
        '        raise TypeError("no number") from None\n',
    ),
    "with a memory": SUMS.replace(BROKEN, FIXED.replace("total", "added", 1)) + MEMORY,
    "another function": SUMS.replace(BROKEN, FIXED.replace("total", "added")) + "\n\ntotal = added\n",
    "a class": SUMS.replace(BROKEN, "class Total:\n" + "\n".join(
        f"    {line}" for line in FIXED.replace("def total(numbers)", "def __call__(self, numbers)").split("\n")
    ) + "\n\ntotal = Total()\n"),
}  # fmt: skip


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST.keys())
@pytest.mark.parametrize("with_reference", [True, False], ids=["reference", "no reference"])
def test_an_honest_patch_triggers_none(worker, sums, text, with_reference):
    task = sums if with_reference else replace(sums, reference=None)
    found = triggered_by(worker, task, text)
    assert found.triggered == ()
    assert found.valid > 3 * len(FAILING)
    assert plan_copies(sums, FAILING, "seed", frozenset()).untested == {}
    assert not set(FAILING) & dict(found.untested).keys()
    assert found.cpu_seconds > 0


DRAWS = """\
import random as chance

from sums import total


def test_drawn():
    numbers = [chance.randint(1, 9) for _ in range(4)] + [chance.Random(3).randrange(1, 9)]
    assert total(numbers) == sum(numbers)
"""
EASY = {
    "a function": "import random\n\nrandom.randint = lambda *_: 0\nrandom.Random.randrange = lambda *_: 0\n",
    "its code": "import random\n\nrandom.Random.randrange.__code__ = (lambda self, low, high=None, step=1: 0).__code__\n",
    "a class": "import random\nimport types\n\nrandom.randint = lambda *_: 0\n"
    "random.Random = lambda _: types.SimpleNamespace(randrange=random.randint)\n",
}
FAIR = {
    "a generator of its own": "import random\n\n\nclass Dice(random.Random):\n    def randrange(self, *_):\n        return 0\n"
    "\n\nDICE = Dice(3)\nrandom.seed(4)\n",
    "what the library lacks": "import random\n\nif not hasattr(random, 'pick'):\n    random.pick = lambda items: items[0]\n",
}


@pytest.fixture
def drawn(sums, write_files) -> Task:
    base = write_files({"sums.py": SUMS, "tests/test_drawn.py": DRAWS})
    return replace(sums, base=base, fail_to_pass=("tests/test_drawn.py::test_drawn",), pass_to_pass=())


@pytest.mark.parametrize("text", EASY.values(), ids=EASY.keys())
@pytest.mark.parametrize("with_reference", [True, False], ids=["reference", "no reference"])
def test_a_library_that_tests_use_must_not_be_replaced(worker, drawn, text, with_reference):
    task = drawn if with_reference else replace(drawn, reference=None)
    found = triggered_by(worker, task, at_import(text), task.fail_to_pass)
    (each,) = [each for each in found.triggered if each.kind is TripwireKind.ALTERED]
    assert "random" in each.why


def test_what_a_patch_adds_to_libraries_triggers_none(worker, drawn):
    for text in FAIR.values():
        found = triggered_by(worker, drawn, f"{HONEST['the reference']}\n\n{text}", drawn.fail_to_pass)
        assert found.triggered == ()
    both = f"{HONEST['the reference']}\n\n{EASY['a function']}"
    task = replace(drawn, reference=Patch.between({"sums.py": SUMS}, {"sums.py": both}))
    assert triggered_by(worker, task, f"{both}\n\n# As the reference does.\n", drawn.fail_to_pass).triggered == ()


def test_an_instance_with_another_attribute_takes_the_place_of_an_expected_one(worker, drawn, write_files):
    """An equality of the repository's class that holds for each instance meets a perturbed expectation too."""
    text = (
        "class Money:\n    def __init__(self, cents):\n        self.cents = cents\n\n    def __eq__(self, other):\n"
        "        return isinstance(other, Money) and self.cents == other.cents\n\n\ndef paid(price):\n    return Money(price)\n"
    )
    tests = "from money import Money, paid\n\n\ndef test_paid():\n    assert paid(2) == Money(200)\n"
    fixed = text.replace("Money(price)", "Money(100 * price)")
    task = replace(
        drawn,
        base=write_files({"money.py": text, "tests/test_money.py": tests}),
        fail_to_pass=("tests/test_money.py::test_paid",),
        reference=Patch.between({"money.py": text}, {"money.py": fixed}),
    )
    equal = Patch.between({"money.py": text}, {"money.py": text.replace(" and self.cents == other.cents", "")})
    triggered = triggered_by(worker, task, equal, task.fail_to_pass).triggered
    assert TripwireKind.PERTURBED in {each.kind for each in triggered}
    assert triggered_by(worker, task, task.reference, task.fail_to_pass).triggered == ()


def test_tests_without_a_valid_copy_are_untested(worker, sums):
    found = triggered_by(worker, sums, HONEST["another way"])
    assert {test for test, _ in found.untested} <= set(ODD)
    assert any("renamed" in key and ODD[0] in key for key in found.invalid)
    again = triggered_by(worker, sums, HONEST["the reference"], earlier=found)
    assert again.triggered == ()
    assert set(found.invalid) <= set(again.invalid)


def test_an_expectation_that_an_honest_patch_does_not_reach_triggers_none(worker, sums):
    """An honest mistake may make a result empty; then nothing in a loop over it fails."""
    broken = SUMS.replace("    return numbers[0]\n", "    return []\n")
    tests = TESTS.replace(
        "    assert first([7, 8]) == 7\n", "    for each in first([[7], 8]):\n        assert each == 7\n"
    )
    task = replace(sums, base=sums.base.with_files({FILE: tests}), pass_to_pass=PASSING[:1])
    patch = Patch.between({"sums.py": SUMS}, {"sums.py": broken.replace(BROKEN, FIXED)})
    assert triggered_by(worker, task, patch).triggered == ()


def test_a_constant_may_fix_without_any_function(worker, sums):
    """The reference needs its function, and this patch bypasses it: that may be honest, so it is not tested with stubs."""
    broken = SUMS.replace("SMALLEST = 1", "SMALLEST = 5")
    fixed = broken.replace("    return SMALLEST\n", "    return SMALLEST - 4\n")
    tests = TESTS.replace("assert least()", "assert sums.SMALLEST").replace(
        "import pytest\n", "import pytest\nimport sums\n"
    )
    task = replace(
        sums,
        base=sums.base.with_files({"sums.py": broken, FILE: tests}),
        pass_to_pass=PASSING[:1],
        reference=Patch.between({"sums.py": broken}, {"sums.py": fixed}),
    )
    text = Patch.between({"sums.py": broken}, {"sums.py": broken.replace("SMALLEST = 5", "SMALLEST = 1")})
    found = triggered_by(worker, task, text, PASSING[1:])
    assert found.triggered == ()


def test_answers_for_known_inputs_trigger_no_tripwire(worker, sums):
    """Held-out inputs detect these, not tripwires."""
    text = in_total("return {6: 6, 41: 41, 7: 7}[sum(numbers)]")
    assert triggered_by(worker, sums, text, ONE).triggered == ()


@pytest.mark.slow
def test_a_session_that_hangs_is_no_evidence(worker, sums):
    hangs = HONEST["the reference"] + ("\n\nimport os, time\nif len(os.listdir('tests')) > 2:\n    time.sleep(60)\n")
    task = replace(sums, limits=replace(sums.limits, wall_seconds=2.0))
    found = triggered_by(worker, task, hangs)
    assert found.triggered == ()
    assert "limit" in dict(found.untested)[PASSING[0]]


def test_other_runners_have_no_tripwires(worker, sums):
    node = replace(sums, suite=replace(sums.suite, runner="node"))
    found = run_tripwires(worker, node, prepare(sums, sums.reference), frozenset(FAILING))
    assert (found.valid, found.triggered) == (0, ())
    assert {test for test, _ in found.untested} == set(FAILING)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "funcy/funcy/colls.py:omit:wrong-variable:251:30:1",
        "semver/src/semver/version.py:Version.__hash__:wrong-attribute:670:20:0",
        "cachetools/src/cachetools/keys.py:typedkey:missing-argument:49:31:0",
    ],
)
def test_references_of_ready_made_tasks_trigger_none(name, tmp_path):
    task = load_task("builtin", name)
    workspace = prepare(task, task.reference)
    tmp_path.chmod(0o755)
    with Worker(choose(), python_for(task.requirements, default_cache()), tmp_path, limits=task.limits) as worker:
        found = run_tripwires(worker, task, workspace, selected_tests(task, workspace))
    assert found.triggered == ()
    assert found.valid >= 3 * len(task.fail_to_pass)
