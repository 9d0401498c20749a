"""Copies of test files: other names, expectations behind calls, one of them perturbed, and no other change."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.evaluators.inside.expectation_helpers import perturbed_value
from regrade.evaluators.verification.copied_tests import copy_test_file, hide_expectations
from regrade.evaluators.verification.parsed_tests import TestCopyError, TestFile

HERE = Path(__file__).parents[1]
TEXT = '''\
from __future__ import annotations

import asyncio
import unittest

import pytest


def helper():
    test_first()


@pytest.mark.parametrize("number", [1, 2])
def test_number(number):
    """Ümläuts count as bytes: ß."""
    assert "äö" + str(number) == f"äö{number}"; assert number


def test_first():
    assert {"a": [1, (2, 3)]} == dict(a=[1, (2, 3)]), "a reason"


def test_raises():
    with pytest.raises((ValueError, KeyError)):
        raise KeyError


def test_loop():
    for number in range(3):
        assert number in (0, 1, 2)
        if number:
            assert number is not None


def test_steady():
    numbers = [1, 2]
    for number in enumerate(numbers):
        assert number != 3
    numbers_of_its_own = (1,)
    numbers_of_its_own = list(numbers_of_its_own)
    for number in numbers_of_its_own:
        assert number == 1
    with pytest.raises(IndexError):
        assert not numbers[5]


def test_returns():
    assert 1 == 1
    if HERE:
        return
    assert 2 == 1


HERE = True


def test_without_expectations():
    for _ in ():
        pass


def test_async():
    async def inner():
        return 5

    assert asyncio.run(inner()) == (
        5
    )


class Base(unittest.TestCase):
    def test_inherited(self):
        self.assertEqual([1], [1])

    def test_other(self):
        self.assertIsNone(None)
        assert "a" in "ab"
        assert "b" in "ab"
        self.assertIn("a", ["a"])
        self.assertRaises(ZeroDivisionError, lambda: 1 / 0)
        self.assertTrue(self)


class Derived(Base):
    pass


class TestPlain:
    @pytest.mark.parametrize("expected", [3])
    def test_parameter(self, expected):
        """Documented."""
        if True:
            found = 3
        assert found == expected

    @pytest.mark.parametrize("expected", [3])
    def test_parameter_of_a_line(self, expected): assert 3 == expected

    def test_variable(self):
        wanted = {"deep": [3]}
        assert {"deep": [3]} == wanted
        self.used = wanted_twice = 4
        assert 4 == wanted_twice

    def test_differs(self):
        unittest.TestCase().assertNotEqual(1, 2)
        unittest.TestCase().assertIsInstance(1, int)

    def test_last(self):
        value = 2.5
        assert value == 2.5'''
TESTS = (
    "test_number[1]", "test_number[2]", "test_first", "test_raises", "test_steady", "test_returns", "test_loop", "test_without_expectations",
    "test_async", "Base::test_inherited", "Base::test_other", "Derived::test_inherited", "Derived::test_other",
    "TestPlain::test_last", "TestPlain::test_parameter[3]", "TestPlain::test_parameter_of_a_line[3]",
    "TestPlain::test_variable", "TestPlain::test_differs",
)  # fmt: skip
IDS = tuple(f"test_sample.py::{test}" for test in TESTS)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.just(object),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers())
    ),
    max_leaves=8,
)


@settings(max_examples=100)
@given(values, st.integers(0, 255))
def test_what_is_perturbed_differs(value, choice):
    assert perturbed_value(value, choice) != value
    assert value == value  # and stays as it is


def statuses(folder, name):
    """Test -> outcome, by pytest's own report."""
    program = (
        "import json, pytest, sys\n"
        "class Seen:\n"
        "    found = {}\n"
        "    def pytest_runtest_logreport(self, report):\n"
        "        if report.when == 'call': self.found[report.nodeid] = report.outcome\n"
        f"pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir=.', {name!r}], plugins=[Seen()])\n"
        "print('\\n' + json.dumps(Seen.found))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def copy_of(file, number, *, whole=True, seed="seed"):
    """The copy in which each function's expectation of that number is perturbed, if it has one."""
    functions = {file.function(test).key: file.function(test) for test in IDS}
    perturbed = {
        key: function.sites[number] if number is not None and number < len(function.sites) else None
        for key, function in functions.items()
    }
    copy = copy_test_file(file, perturbed, list(functions.values()), seed, whole=whole)
    return copy, {copy.id_of(test, file.function(test)): perturbed[file.function(test).key] for test in IDS}


@pytest.mark.parametrize("place", [None, 0, 1, 2, 3])
def test_a_copy_fails_where_it_is_perturbed_and_passes_elsewhere(place, tmp_path):
    copy, expected = copy_of(TestFile("test_sample.py", TEXT), place)
    (tmp_path / copy.path).write_text(copy.text)
    found = statuses(tmp_path, copy.path)
    assert found == {test: "passed" if site is None else "failed" for test, site in expected.items()}
    assert place is None or "failed" in found.values()


def test_copies_have_one_form_and_hide_what_they_expect():
    file = TestFile("test_sample.py", TEXT)
    plain, perturbed = (copy_of(file, place)[0].text for place in (None, 0))
    for text in (plain, perturbed):
        assert "2.5'" not in text
        assert "== 5" not in text
        assert "test_first" not in text  # its name is another one, also where it is called
    digits = str.maketrans("", "", "0123456789abcdef")
    assert plain.translate(digits) == perturbed.translate(digits)


def test_only_expectations_reached_in_each_passing_run_are_perturbed():
    file = TestFile("test_sample.py", TEXT)
    lines = {
        test: [TEXT.split("\n")[site.line - 1].strip() for site in file.function(f"test_sample.py::{test}").sites]
        for test in ("test_loop", "test_steady", "test_returns")
    }
    assert lines == {
        "test_loop": ["assert number in (0, 1, 2)", "assert number is not None"],  # and its end
        "test_steady": ["assert number != 3", "with pytest.raises(IndexError):", "assert not numbers[5]"],  # its end
        "test_returns": ["assert 1 == 1"],
    }


def test_lines_keep_their_numbers_and_names_their_order():
    file = TestFile("test_sample.py", TEXT)
    functions = [file.function(IDS[0]), file.function(IDS[2])]
    copy = copy_test_file(file, {functions[0].key: None}, functions, "seed", whole=False)
    old = {node.lineno for node in ast.parse(TEXT).body if getattr(node, "name", "") == "test_number"}
    new = {node.lineno for node in ast.parse(copy.text).body if getattr(node, "name", "") == copy.names["test_number"]}
    assert old == new
    assert "test_first" in copy.text, "another function needs it"
    assert "test_loop" not in copy.text
    whole, _ = copy_of(file, None)
    assert sorted(whole.names, key=whole.names.__getitem__) == sorted(whole.names, key=lambda key: key.split(".")[-1])


def test_the_same_seed_makes_the_same_copy_and_another_one_another():
    file = TestFile("test_sample.py", TEXT)
    assert copy_of(file, 0)[0] == copy_of(file, 0)[0]
    assert copy_of(file, 0)[0].path != copy_of(file, 0, seed="other")[0].path


@pytest.mark.parametrize("path", sorted(HERE.rglob("test_*.py")), ids=lambda path: path.name)
def test_real_test_files_can_be_copied(path):
    text = path.read_text()
    file = TestFile(path.name, text)
    names = [node.name for node in ast.parse(text).body if getattr(node, "name", "").startswith("test_")]
    functions = [file.function(f"{path.name}::{name}") for name in names]
    for number in range(3):
        perturbed = {each.key: each.sites[number] for each in functions if number < len(each.sites)}
        copy_test_file(file, perturbed, functions, "seed", whole=bool(number % 2))


@pytest.mark.parametrize(
    ("text", "test", "why"),
    [
        ("def test_a(:", "t.py::test_a", "does not parse"),
        ("test_a = lambda: None", "t.py::test_a", "does not define"),
        ("from other import Mixin\nclass TestA(Mixin): pass", "t.py::TestA::test_a", "does not define"),
        ("def test_a(): pass\f", "t.py::test_a", "form feeds"),
    ],
)
def test_an_error_gives_the_reason_why_a_test_is_not_copied(text, test, why):
    with pytest.raises(TestCopyError, match=why):
        TestFile("t.py", text).function(test)


def test_a_file_can_keep_its_names_and_mask_its_expectations(tmp_path):
    file = TestFile("test_sample.py", TEXT)
    functions = list({file.function(test).key: file.function(test) for test in IDS}.values())
    text = hide_expectations(file, functions, "seed")
    (tmp_path / "test_sample.py").write_text(text)
    assert statuses(tmp_path, "test_sample.py") == dict.fromkeys(IDS, "passed")
    assert "def test_first" in text
    assert "== 2.5" not in text
