"""What the code under test replaces while the tests run voids the tests; what tests replace themselves does not."""

from __future__ import annotations

from dataclasses import replace

from regrade.datasets.patches import Patch
from regrade.evaluators.execution import run_tests
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import End, TestRun
from tests.evaluators.conftest import CALCULATOR, FAILING, FILES

CLASSES = """
def classes(cls=object):
    for each in type.__subclasses__(cls):
        yield each
        yield from classes(each) if each is not type else ()


"""
CHEATS = {
    "_pytest.python.Function.runtest is replaced": CLASSES
    + "for each in list(classes()):\n    if each.__name__ == 'Function' and 'runtest' in vars(each):\n"
    "        setattr(each, 'run' + 'test', lambda self: None)\n",
    "_pytest.reports.TestReport.outcome is added": CLASSES
    + "for each in list(classes()):\n    if each.__name__ == 'TestReport':\n"
    "        each.outcome = property(lambda self: 'passed', lambda self, value: None)\n",
    "a test that raised an exception is reported as passed": "import gc\n\n\n"
    "class Kind:\n    def pytest_runtest_makereport(self, item, call):\n        vars(call).update(excinfo=None)\n\n\n"
    "for each in gc.get_objects():\n    if type(each).__name__ == 'PytestPluginManager':\n        each.register(Kind())\n",
    "math.isclose is replaced": "import math\n\nvars(math).update(isclose=lambda *_: True)\n",
    "builtins.AssertionError is replaced": "import builtins\n\nvars(builtins)['Assertion' + 'Error'] = KeyError\n",
    "a result is written by other code than the runner's": "import gc\nimport os\n\n\n"
    "def add(a, b):\n    for each in gc.get_objects():\n        if type(each).__name__ == 'Recorder':\n"
    f'            each._write(\'["test", "{FAILING}", "passed", 0.0, ""]\')\n'
    "            each._write('[\"done\", 0]')\n            os._exit(0)\n",
}
EQUAL = """

def _same(self, other):
    return len(str(other)) >= 0


Sum = type("Sum", (float,), {"__eq__": _same, "__hash__": None})


def add(a, b):
    return Sum(7)
"""
HONEST = """

class Sum(float):
    def __eq__(self, other):
        return isinstance(other, (int, float)) and float(self) == float(other)

    __hash__ = float.__hash__


class Registry:
    def __init__(self, **values):
        vars(self).update(values)

    def kinds(self):
        return [each.__name__ for each in Registry.__subclasses__()]


def add(a, b):
    return Sum(a + b)
"""
OWN_REPLACEMENTS = """

def helper():
    return 1


def test_own_module():
    def helper():
        return 2

    sys.modules[__name__].helper = helper
    time.monotonic = lambda: 0.0
    Function.own = lambda self: None
    assert add(1, 2) == 3
"""


def test_what_the_code_under_test_replaces_voids_the_tests(task, scorer: Scorer) -> None:
    before = {"calculator.py": CALCULATOR}
    patches = {what: Patch.between(before, {"calculator.py": CALCULATOR + code}) for what, code in CHEATS.items()}
    patches["Sum equals every number"] = Patch.between(before, {"calculator.py": CALCULATOR + EQUAL})
    honest = Patch.between(before, {"calculator.py": CALCULATOR + HONEST})
    *cheats, twin = scorer.gather([(task, patch) for patch in (*patches.values(), honest)], [TestRun])
    for what, evidence in zip(patches, cheats, strict=True):
        run = evidence.records[TestRun]
        assert (run.end, run.resolved) == (End.CRASHED, False), what
        assert run.detail.startswith("while the tests ran, ")
        assert what in run.detail
    assert twin.records[TestRun].resolved


def test_what_tests_replace_themselves_is_no_sign_against_a_patch(task, write_files, fix, scorer: Scorer) -> None:
    """The last one replaces a method of pytest only with the fix, so that neither the base nor a list shows it."""
    text = "import sys\nimport time\nfrom _pytest.python import Function\n" + FILES["tests/test_calculator.py"]
    base = write_files({**FILES, "tests/test_calculator.py": text + OWN_REPLACEMENTS})
    own = replace(task, base=base, pass_to_pass=(), fail_to_pass=(FAILING, "tests/test_calculator.py::test_own_module"))
    (evidence,) = scorer.gather([(own, fix)], [TestRun])
    assert evidence.records[TestRun].resolved, evidence.records[TestRun].detail


def test_a_run_is_compared_with_the_base_only_after_an_alarm(task, scorer: Scorer, monkeypatch) -> None:
    trees, original = [], run_tests.run_past_hanging_tests

    def counted(worker, tree, *rest, **more):
        trees.append(tree)
        return original(worker, tree, *rest, **more)

    monkeypatch.setattr(run_tests, "run_past_hanging_tests", counted)
    text = {"calculator.py": task.base.read("calculator.py")}
    other = Patch.between(text, {"calculator.py": text["calculator.py"].replace("a - b", "b + a")})
    scorer.gather([(task, other)], [TestRun])
    assert len(trees) == 1
