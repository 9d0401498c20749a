"""Test impact analysis: the tests that a change can reach, and changes that need the whole suite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators.execution.selection import changed_functions, selected_tests, with_companions
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards.evidence import TestRun

REACH = {
    "calculator.py::add": ("t::add", "t::sum"),
    "calculator.py::square": ("t::square",),
    "calculator.py::multiply": ("t::square", "t::doubled"),
    "calculator.py::Counter.advance": ("t::count",),
    "calculator.py::Counter.__init__": ("t::count",),
}


@pytest.fixture
def measured(task):
    suite = replace(task.suite, reach=REACH, imported=frozenset({"calculator.py::multiply"}))
    guarded = ("t::sum", "t::square", "t::doubled", "t::count")
    return replace(task, suite=suite, fail_to_pass=("t::add",), pass_to_pass=guarded)


def selected(task, patch):
    return selected_tests(task, prepare(task, patch))


def test_only_tests_that_execute_the_changed_function_are_selected(measured, edit):
    assert selected(measured, edit("a - b", "a + b")) == {"t::add", "t::sum"}
    assert selected(measured, edit("+= self.step", "-= self.step")) == {"t::add", "t::count"}


def test_a_comment_reaches_no_test_but_fail_to_pass_always_runs(measured, edit):
    assert selected(measured, edit("    step = 1", "    step = 1  # at a time")) == {"t::add"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def add(a, b)", "def add(a, b=0)"),
        ("@functools.cache\n", ""),
        ("    step = 1", "    step = 2"),
        ("DOUBLED", "TRIPLED"),
        ("    return a - b", "    '''Adds.'''\n    return a + b"),
        ("product += a", "product -= a"),
        ("def add", "def added"),
        ("return a - b", "return a -"),
        ("return a - b", "break"),
        ("return a - b", "return a - b\n\n\ndef more():\n    pass"),
    ],
    ids=[
        "default",
        "decorator",
        "class attribute",
        "module",
        "docstring",
        "imported",
        "name",
        "syntax",
        "no loop",
        "new function",
    ],
)
def test_any_other_change_needs_the_whole_suite(measured, edit, old, new):
    assert selected(measured, edit(old, new)) is None


def test_added_deleted_and_other_than_python_files_need_the_whole_suite(measured, edit):
    assert selected(measured, edit("A calculator.", "Nothing.", "README")) is None
    assert selected(measured, Patch.between({}, {"new.py": "x = 1\n"})) is None
    assert selected(measured, Patch.between({"README": measured.base.read("README")}, {})) is None


def test_without_measured_reach_the_whole_suite_runs(task, edit):
    assert selected(task, edit("a - b", "a + b")) is None


def test_a_function_that_no_test_executes_needs_the_whole_suite(measured, edit):
    reach = {key: tests for key, tests in REACH.items() if key != "calculator.py::add"}
    unmeasured = replace(measured, suite=replace(measured.suite, reach=reach))
    assert selected(unmeasured, edit("a - b", "a + b")) is None


def test_functions_that_differ_from_the_pristine_tree_count_as_well(measured):
    """Reach was measured on the pristine tree, the bug is in the base above it, and the patch edits other code."""
    source = measured.base.read("calculator.py")
    buggy = replace(
        measured, base=measured.base.with_files({"calculator.py": source.replace("self.count = 0", "self.count = 1")})
    )
    patch = Patch.between(
        {"calculator.py": buggy.base.read("calculator.py")},
        {"calculator.py": buggy.base.read("calculator.py").replace("a - b", "a + b")},
    )
    assert changed_functions(buggy, prepare(buggy, patch)) == {"calculator.py::add", "calculator.py::Counter.__init__"}
    assert selected(buggy, patch) == {"t::add", "t::sum", "t::count"}
    undone = Patch.between({"calculator.py": buggy.base.read("calculator.py")}, {"calculator.py": source})
    assert changed_functions(buggy, prepare(buggy, undone)) == {"calculator.py::Counter.__init__"}


def test_an_inner_function_belongs_to_the_outermost_one(write_files, measured):
    base = write_files({"nested.py": "def outer():\n    def inner():\n        return 1\n    return inner\n"})
    task = replace(measured, base=base)
    patch = Patch.between(
        {"nested.py": base.read("nested.py")}, {"nested.py": base.read("nested.py").replace("1", "2")}
    )
    assert changed_functions(task, prepare(task, patch)) == {"nested.py::outer"}


def test_both_halves_of_a_property_share_a_name(write_files, measured):
    text = "class A:\n    @property\n    def x(self):\n        return 1\n    @x.setter\n    def x(self, v):\n        self.v = v\n"
    base = write_files({"halves.py": text})
    task = replace(measured, base=base)
    patch = Patch.between({"halves.py": text}, {"halves.py": text.replace("self.v = v", "self.v = -v")})
    assert changed_functions(task, prepare(task, patch)) == {"halves.py::A.x"}


def test_tests_that_read_a_file_are_selected_by_any_change_of_it(measured, edit):
    reading = replace(measured, suite=replace(measured.suite, reach={**REACH, "calculator.py": ("t::doubled",)}))
    assert selected(reading, edit("a - b", "a + b")) == {"t::add", "t::sum", "t::doubled"}
    everywhere = replace(reading, suite=replace(reading.suite, imported=frozenset({"calculator.py"})))
    assert selected(everywhere, edit("a - b", "a + b")) is None


@pytest.mark.parametrize(
    ("companions", "tests", "run"),
    [
        ({}, {"a::x"}, {"a::x"}),
        ({"a::x": "a"}, {"a::x", "b::x"}, {"a::x", "b::x", "a"}),
        ({"a::x": "a"}, {"a::y"}, {"a::y"}),
        ({"a::x": "a", "b::x": ""}, {"a::x"}, {"a::x", "a"}),
        ({"a::x": "a", "b::x": ""}, {"a::x", "b::x"}, None),
        ({"f::y": "f"}, {"f::new"}, {"f::new", "f"}),
        ({"f::y": ""}, {"f::new"}, None),
    ],
    ids=["alone", "its file", "another of the file", "unselected", "the suite", "as its neighbours", "as one of them"],
)
def test_a_test_runs_with_its_companions(task, companions, tests, run):
    task = replace(task, fail_to_pass=("f::new",), suite=replace(task.suite, companions=companions))
    assert with_companions(task, frozenset(tests)) == run


LEAK = {
    "leaky.py": "STATE = {}\n\n\ndef put(name):\n    STATE[name] = 1\n\n\ndef reset():\n    STATE.clear()\n\n\n"
    "def names():\n    return sorted(STATE)\n",
    "test_leaky.py": "import pytest, leaky\n@pytest.fixture\ndef clean():\n    yield\n    leaky.reset()\n"
    "def test_put(clean):\n    leaky.put('a')\n    assert leaky.STATE['a'] == 1\n"
    "def test_names(): assert leaky.names() == []\n",
}


def test_a_missing_clean_up_fails_in_the_whole_suite(tmp_path, scorer):
    for name, text in LEAK.items():
        (tmp_path / name).write_text(text)
    leaky = local_task(tmp_path, runs=1)
    patch = Patch.between(
        {"leaky.py": LEAK["leaky.py"]}, {"leaky.py": LEAK["leaky.py"].replace("STATE.clear()", "STATE.copy()")}
    )
    assert selected(leaky, patch) == {"test_leaky.py::test_put"}
    (evidence,) = scorer.gather([(leaky, patch)], [TestRun])
    assert set(evidence.records[TestRun].broken) == {"test_leaky.py::test_names"}
