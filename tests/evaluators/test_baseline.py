"""What a suite says without a patch: stable tests, flaky ones, and which functions each test executes."""

from __future__ import annotations

import datetime

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import TestSuite
from regrade.evaluators.baseline import baseline
from regrade.evaluators.sandboxes import choose

REACH = {
    "subject.py": """\
import functools, subprocess, sys, threading

def in_thread(): return 1
def in_process(): return 1
def cached_inner(): return 1
@functools.cache
def cached(): return cached_inner()
def for_fixture(): return 1
def decorate(function):
    def inner(*arguments):
        return function(*arguments)
    return inner
@decorate
def decorated(): return 1
class Thing:
    def __init__(self): self.numbers = [double(number) for number in (1, 2)]
    @property
    def first(self): return self.numbers[0]
def double(number): return 2 * number
def generator(): yield 1
def unused(): return 1
on_import = double(1)
def halfway():
    yield 1
    yield double(1)
begun = halfway()
next(begun)
""",
    "test_code.py": """\
import subprocess, sys, threading
import pytest
import subject as code

@pytest.fixture(scope="module")
def prepared(): return code.for_fixture()

def test_fixture(prepared): pass
def test_fixture_again(prepared): pass
def test_cached(): assert code.cached() == 1
def test_cached_again(): assert code.cached() == 1
def test_thread():
    thread = threading.Thread(target=code.in_thread)
    thread.start()
    thread.join()
def test_process(): subprocess.run([sys.executable, "-c", "import subject; subject.in_process()"], check=True)
def test_decorated(): assert code.decorated() == 1
def test_thing(): assert code.Thing().first == 2
def test_generator(): assert list(code.generator()) == [1]
def test_begun_on_import(): assert next(code.begun) == 2
""",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    from regrade.datasets.tasks import Tree

    root = tmp_path_factory.mktemp("repository")
    (root / "subject.py").write_text(REACH["subject.py"])
    (root / "test_code.py").write_text(REACH["test_code.py"])
    return baseline(Tree(root), TestSuite(), sandbox=choose(), runs=1)


@pytest.mark.parametrize(
    ("function", "tests"),
    [
        ("for_fixture", {"fixture", "fixture_again"}),
        ("cached_inner", {"cached", "cached_again"}),
        ("in_thread", {"thread"}),
        ("decorated", {"decorated"}),
        ("decorate", {"decorated"}),
        ("Thing.__init__", {"thing"}),
        ("Thing.first", {"thing"}),
        ("double", {"thing", "begun_on_import"}),
        ("generator", {"generator"}),
        ("halfway", {"begun_on_import"}),
    ],
)
def test_the_reach_of_a_test_is_what_it_executes_by_itself(measured, function, tests):
    found = measured.reach[f"subject.py::{function}"]
    # What starts another process may execute anything there.
    assert {test.partition("::test_")[2] for test in found} == tests | {"process"}


def test_functions_that_run_on_import_are_told(measured):
    assert measured.imported == {"subject.py::double", "subject.py::decorate", "subject.py::halfway"}


def test_functions_that_no_test_executes_have_no_reach(measured):
    assert "subject.py::unused" not in measured.reach
    assert not [function for function in measured.reach if function.startswith("test_code.py")]


PROFILING = {
    "subject.py": "def early(): return 1\ndef late(): return 1\ndef unused(): return 1\n",
    "test_code.py": """\
import cProfile, sys
import subject as code

def test_early(): assert code.early()
def test_late(): assert code.late()
def test_profiler():
    profiler = cProfile.Profile()
    profiler.enable()
    profiler.disable()
    code.late()
def test_profile_function():
    sys.setprofile(lambda *_: None)
    code.late()
def test_monitor():
    if hasattr(sys, "monitoring"):
        for tool in range(6):
            if sys.monitoring.get_tool(tool):
                sys.monitoring.free_tool_id(tool)
    else:
        sys.setprofile(None)
    code.late()
""",
}


def test_a_test_that_ends_the_profiling_keeps_nothing_hidden(write_files):
    reach = baseline(write_files(PROFILING), TestSuite(), sandbox=choose(), runs=1).reach
    ending = {"test_code.py::test_profiler", "test_code.py::test_profile_function", "test_code.py::test_monitor"}
    assert set(reach["subject.py::late"]) == ending | {"test_code.py::test_late"}
    assert "test_code.py::test_monitor" in reach["subject.py::early"], "what can't be watched may execute anything"


def test_a_long_suite_is_measured_in_shares(write_files):
    slow = "import time\nimport subject\ndef test_it():\n    time.sleep(1.2)\n    subject.{}()\n"
    files = {"subject.py": "def one(): pass\ndef two(): pass\ndef three(): pass\n", "conftest.py": "import subject\n"}
    files |= {f"test_{name}.py": slow.format(name) for name in ("one", "two", "three")}
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1, workers=2)
    names = ("one", "two", "three")
    assert found.reach == {f"subject.py::{name}": (f"test_{name}.py::test_it",) for name in names}


def test_stable_flaky_and_failing_tests_are_told_apart(write_files):
    tree = write_files({
        "test_it.py": "import os, pytest, random\n"
        "def test_stable(): pass\ndef test_fails(): assert False\ndef test_skipped(): pytest.skip('no')\n"
        "def test_flaky(): assert int.from_bytes(os.urandom(1), 'big') % 2\n",
        "test_broken.py": "import nothing_like_it\n",
    })  # fmt: skip
    told = []
    found = baseline(
        tree, TestSuite(), sandbox=choose(), runs=12, progress=lambda done, total: told.append((done, total))
    )
    assert found.stable == ("test_it.py::test_stable",)
    assert found.flaky == ("test_it.py::test_flaky",)
    assert found.failing == ("test_it.py::test_fails", "test_it.py::test_skipped")
    assert found.collection_errors == {"test_broken.py": "ModuleNotFoundError: No module named 'nothing_like_it'"}
    assert told == [(number, 13) for number in range(14)]


def test_a_test_whose_id_is_another_one_tomorrow_is_not_stable(write_files):
    tree = write_files({
        "test_it.py": "import datetime, pytest\nclass Thing: pass\n"
        "@pytest.mark.parametrize('value', [str(datetime.date.today()), repr(Thing()), '2001-01-01', '0x10'])\n"
        "def test_value(value): pass\n",
    })  # fmt: skip
    found = baseline(tree, TestSuite(), sandbox=choose(), runs=2)
    assert found.stable == ("test_it.py::test_value[2001-01-01]", "test_it.py::test_value[0x10]")
    assert all(str(datetime.date.today()) in test or "object at 0x" in test for test in found.flaky)
    assert len(found.flaky) >= 2


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"code.py": ""}, "no test was found"),
        ({"test_a.py": "import nothing_like_it\n"}, "No module named 'nothing_like_it'"),
        ({"conftest.py": "import nothing_like_it\n", "test_a.py": "def test_a(): pass\n"}, "nothing_like_it"),
        (
            {"pytest.ini": "[pytest]\naddopts = --no-such-option\n", "test_a.py": "def test_a(): pass\n"},
            "--no-such-option",
        ),
        ({"test_a.py": "import os\ndef test_a(): os._exit(1)\n"}, "crashed"),
    ],
)
def test_a_suite_that_can_not_be_run_is_a_mistake(write_files, files, reason):
    with pytest.raises(UserError, match=reason):
        baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)
