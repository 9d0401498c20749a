"""Replaced function bodies: for any form of a function, nothing else changes."""

from __future__ import annotations

import ast
import dataclasses
import functools
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Tree
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.verification.counterfactuals import (
    ALWAYS_EQUAL,
    RETURNS_NONE,
    ChangedFunction,
    PatchedTree,
    exploits,
)

ODD = '''\
"""Functions in odd forms."""
import functools


def one_line(a): return a + 1  # behind it


def documented():
    """Only a docstring."""


def both(a):
    """Säße."""; return a


class Thing:
    @property
    def size(self):
        return 1

    @size.setter
    def size(self, value):
        self.value = value

    def decorated_first(self):
        @functools.cache
        def inner():
            return 1
        return inner

    async def waits(self): "no"

    def last(self):
        if self:
            return "ä"; x = "ö"'''
MODULES = (ast, functools, dataclasses)


def patched_tree(text, names):
    return PatchedTree(
        {"m.py": text}, {"m.py": text}, tuple(ChangedFunction("m.py", name) for name in names), Tree(Path())
    )


def outermost(text):
    found = {}

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(prefix + child.name, []).append(child)
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            else:
                visit(child, prefix)

    visit(ast.parse(text), "")
    return found


def patched(text, patch, tmp_path, task):
    root = tmp_path / "tree"
    root.mkdir(exist_ok=True)
    (root / "m.py").write_text(text)
    return prepare(replace(task, base=Tree(root)), patch).after.read("m.py")


@pytest.mark.parametrize("lines", [RETURNS_NONE, ALWAYS_EQUAL])
@pytest.mark.parametrize("text", [ODD, *(Path(module.__file__).read_text() for module in MODULES)])
def test_each_function_gets_the_body_and_no_other_changes(text, lines, tmp_path, task):
    before = outermost(text)
    wanted = ast.dump(ast.parse("def f():\n" + textwrap.indent("\n".join(lines), "    ")).body[0])
    for name in list(before)[:: max(1, len(before) // 6)]:
        after = outermost(patched(text, patched_tree(text, [name]).with_bodies(lines), tmp_path, task))
        assert after.keys() == before.keys()
        for other, nodes in before.items():
            if other != name:
                assert [ast.dump(node) for node in after[other]] == [ast.dump(node) for node in nodes]
        for node in after[name]:
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            function = ast.parse("def f(): pass").body[0]
            function.body = body
            assert ast.dump(function) == wanted


@pytest.mark.parametrize("text", [ODD, Path(textwrap.__file__).read_text()])
def test_a_statement_comes_first_and_the_rest_stays(text):
    names = list(outermost(text))
    after = outermost(patched_tree(text, names).beginning_with("told()")["m.py"])
    for name, nodes in outermost(text).items():
        for old, new in zip(nodes, after[name], strict=True):
            documented = bool(ast.get_docstring(old)) and len(old.body) > 1
            assert ast.unparse(new.body[documented]) == "told()"
            del new.body[documented]
            assert [ast.dump(node) for node in new.body] == [ast.dump(node) for node in old.body]


def test_functions_that_a_reference_changes_or_adds(task):
    before = task.base.read("calculator.py")
    after = before.replace("a - b", "a + b").replace("self.count += self.step", "self.count += 1")
    after += "\n\ndef negate(a):\n    return -a\n"
    found = PatchedTree.of(replace(task, reference=Patch.between({"calculator.py": before}, {"calculator.py": after})))
    assert [str(each) for each in found.functions] == [
        "calculator.py::add",
        "calculator.py::Counter.advance",
        "calculator.py::negate",
    ]
    assert found.after == {"calculator.py": after}


def test_moved_functions_and_module_level_code_are_not_changed_functions(task):
    before = task.base.read("calculator.py")
    after = "LIMIT = 3\n\n\n" + before.replace("return a - b", "return a - b  # the difference")
    found = PatchedTree.of(replace(task, reference=Patch.between({"calculator.py": before}, {"calculator.py": after})))
    assert found.functions == ()
    assert found.with_bodies(RETURNS_NONE) is None
    assert exploits(task, found).keys() == {
        "os._exit(0) on import",
        "a conftest.py that passes everything",
        "FAIL_TO_PASS tests that check nothing",
    }


def test_mutants_are_distinct_and_never_the_bug_itself(task, fix):
    found = list(PatchedTree.of(replace(task, reference=fix)).mutants(50, seed=1))
    sources = [mutant.source for mutant, _ in found]
    assert len(sources) > 1
    assert len(set(sources)) == len(sources)
    assert task.base.read("calculator.py") not in sources
    for mutant, patch in found:
        assert prepare(task, patch).after.read("calculator.py") == mutant.source


def test_every_exploit_applies(task, fix):
    for name, patch in exploits(task, PatchedTree.of(replace(task, reference=fix))).items():
        assert prepare(task, patch), name


def test_the_conftest_exploit_keeps_a_conftest_of_the_repository(task, write_files, fix):
    files = {path: task.base.read(path) for path in task.base.paths()}
    task = replace(task, base=write_files({**files, "conftest.py": "import sys\n"}), reference=fix)
    patch = exploits(task, PatchedTree.of(task))["a conftest.py that passes everything"]
    assert patch.files[0].old_path == "conftest.py"
    assert prepare(task, patch).ignored == ("conftest.py",)
