"""Bugs in whole statements, and bugs of two edits: each kind on a sample, rebuilt by its place and as a patch."""

from __future__ import annotations

import ast
import heapq
import inspect
import textwrap
from types import ModuleType

import pytest

from regrade.datasets.applying import apply_patch
from regrade.datasets.mutation.mutants import ALL_OPERATORS, LONG, Mutant, Mutations
from regrade.datasets.mutation.operators import OPERATORS
from regrade.datasets.mutation.rebuilding import planting_patch, reference_patch
from regrade.datasets.mutation.statement_operators import REMOVED_BODY, SEVERAL, STATEMENT_OPERATORS
from regrade.datasets.tasks import Tree

FUNCTION = '''\
class Cart:
    def add(self, item, count=1):
        """Add an item."""
        if count < 1:
            raise ValueError(count)
        try:
            self.items[item] += count
        except KeyError:
            raise LookupError(item) from None
        if self.is_open:
            self.log.append(item)
        else:
            self.waiting.append(item)
            self.is_late = True
        print(item)
        return self.items[item]
'''
EXPECTED = {
    "removed-guard": ["        if count < 1:\n            raise ValueError(count)"],
    "swallowed-exception": ["            raise LookupError(item) from None"],
    "removed-branch": ["            self.waiting.append(item)\n            self.is_late = True"],
    "dropped-statement": [
        "            self.items[item] += count",
        "            self.log.append(item)",
        "            self.waiting.append(item)",
        "            self.is_late = True",
    ],
    REMOVED_BODY: ["\n".join(FUNCTION.split("\n")[3:16])],
}


def of(kind: str, source: str = FUNCTION) -> list[Mutant]:
    mutations = Mutations(source, "cart.py", LONG)
    return [mutant for function in mutations.functions for mutant in mutations.of(function, [kind])]


def test_every_kind_has_a_sample() -> None:
    assert STATEMENT_OPERATORS.keys() == EXPECTED.keys()
    assert not STATEMENT_OPERATORS.keys() & OPERATORS.keys()


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_what_each_kind_replaces(kind: str) -> None:
    assert [mutant.original_line for mutant in of(kind)] == EXPECTED[kind]
    expected = "raise NotImplementedError" if kind == REMOVED_BODY else "pass"
    assert {mutant.mutated_line.strip() for mutant in of(kind)} == {expected}


def test_a_bug_of_two_edits_holds_both() -> None:
    single = {mutant.mutated_line for kind in OPERATORS for mutant in of(kind)}
    combined = of(SEVERAL)
    assert len(combined) >= 6
    for mutant in combined:
        lines = mutant.mutated_line.split("\n")
        assert len(lines) > 1
        assert {lines[0], lines[-1]} <= single
        assert lines[1:-1] == list(mutant.original_lines[1:-1])


@pytest.mark.parametrize("module", [textwrap, heapq], ids=lambda module: str(module.__name__))
def test_real_code_stays_python_and_is_found_again(module: ModuleType) -> None:
    source = inspect.getsource(module)
    mutations = Mutations(source, "m.py", LONG)
    kinds = [*STATEMENT_OPERATORS, SEVERAL]
    found = [mutant for function in mutations.functions for mutant in mutations.of(function, kinds)[::11]]
    assert len(found) > 10
    for mutant in found:
        ast.parse(mutant.source)
        assert mutations.find(mutant.function, mutant.kind, mutant.place) == mutant
        after = mutant.source.split("\n")
        assert after[: mutant.line - 1] == source.split("\n")[: mutant.line - 1]
        assert mutant.source.endswith(source.split("\n", mutant.line - 1 + mutant.edit.lines)[-1])


def test_patches_plant_and_remove_a_bug_of_several_lines(tmp_path) -> None:
    (tmp_path / "cart.py").write_text(FUNCTION)
    for kind in (*ALL_OPERATORS, SEVERAL):
        for mutant in of(kind)[:2]:
            planted = apply_patch(Tree(tmp_path), planting_patch(mutant))
            assert planted.read("cart.py") == mutant.source
            assert apply_patch(planted, reference_patch(mutant)).read("cart.py") == FUNCTION


@pytest.mark.parametrize("body", ["if a:\n        return b\n    elif b:\n        return a", "return a"])
def test_what_no_kind_touches(body: str) -> None:
    source = f"def f(a, b):\n    {body}\n"
    assert [mutant.kind for kind in STATEMENT_OPERATORS for mutant in of(kind, source)] in ([], [REMOVED_BODY])
