"""Bugs by mutation: one line each, never the same as the original, the same for the same seed."""

from __future__ import annotations

import ast
import bisect
import heapq
import inspect
import textwrap
from types import ModuleType

import pytest

from regrade.datasets.mutation.mutants import MOST_CHARACTERS, MOST_LINES, Mutant, Mutations, mutants, shuffled
from regrade.datasets.mutation.operators import OPERATORS

REAL_CODE = (textwrap, bisect, heapq)

SAMPLES = {
    "arithmetic-operator": ("return a + b", "return a - b"),
    "assignment-operator": ("a += b", "a = b"),
    "boundary": ("return a < b", "return a <= b"),
    "call-removal": ("return sorted(a)", "return a"),
    "call-replacement": ("return a.startswith(b)", "return a.endswith(b)"),
    "caught-exception": ("try:\n        pass\n    except KeyError:\n        pass", "    except IndexError:"),
    "comparison-operator": ("return a in b", "return a not in b"),
    "conditional-expression": ("return a if c else b", "return b if c else a"),
    "constant": ("return a * 7", "return a * 8"),
    "default-argument": ("return d", "def f(self, a, b, c, d=2):"),
    "identity": ("return a is b", "return a == b"),
    "index": ("return a[0]", "return a[-1]"),
    "logical-operator": ("return a and b", "return a or b"),
    "loop-control": ("for x in a:\n        break", "        continue"),
    "missing-argument": ("return g(a, b)", "return g(a)"),
    "negated-condition": ("while a:\n        pass", "    while not a:"),
    "off-by-one": ("return a[b + 1]", "return a[b]"),
    "removed-negation": ("return not a", "return a"),
    "return-value": ("return a", "return None"),
    "slice-bound": ("return a[1:]", "return a[:1]"),
    "swapped-arguments": ("return g(a, b)", "return g(b, a)"),
    "swapped-elements": ("return a, b", "return b, a"),
    "swapped-operands": ("return a - b", "return b - a"),
    "unpacking": ("return g(*a)", "return g(a)"),
    "wrong-attribute": ("return self.one + self.two", "return self.two + self.two"),
    "wrong-variable": ("return a.x", "return b.x"),
}


def _function(body: str, header: str = "def f(self, a, b, c, d=1):") -> str:
    return f"class C:\n  {header}\n    {body}\n"


def test_every_kind_has_a_sample() -> None:
    assert SAMPLES.keys() == OPERATORS.keys()
    assert len(OPERATORS) >= 10


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_kind(kind: str) -> None:
    body, expected = SAMPLES[kind]
    found = [mutant for mutant in mutants(_function(body), "m.py", seed=1) if mutant.kind == kind]
    assert expected.strip() in {mutant.mutated_line.strip() for mutant in found}


@pytest.mark.parametrize("module", REAL_CODE, ids=lambda module: str(module.__name__))
def test_mutants_of_real_code_differ_in_one_line_and_in_their_code(module: ModuleType) -> None:
    source = inspect.getsource(module)
    original = source.split("\n")
    mutations = Mutations(source, "m.py")
    found = [mutant for function in mutations.functions for mutant in mutations.of(function)[::7]]
    assert len(found) > 10
    for mutant in filter(mutations.differs, found):
        lines = mutant.source.split("\n")
        pairs = enumerate(zip(original, lines, strict=True), start=1)
        assert [number for number, (old, new) in pairs if old != new] == [mutant.line]
        assert mutant.first_line <= mutant.line <= mutant.last_line
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(source))


def test_a_mutant_is_found_again_by_its_place() -> None:
    mutations = Mutations(inspect.getsource(heapq), "heapq.py")
    for function in mutations.functions:
        for mutant in mutations.of(function)[::9]:
            assert mutations.find(mutant.function, mutant.kind, mutant.place) == mutant
    assert mutations.find("nowhere", "boundary", "3:1:0") is None
    assert mutations.find("heappush", "no such kind", "3:1:0") is None
    assert mutations.find("heappush", "boundary", "not a place") is None


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    source = inspect.getsource(bisect)

    def order(seed: int) -> list[tuple[str, str]]:
        return [(mutant.kind, mutant.place) for mutant in mutants(source, "m.py", seed)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_kinds_take_turns() -> None:
    mutations = Mutations(_function("if a < b and c:\n        return a[0] + b\n    return not c"), "m.py")
    order = [mutant.kind for mutant in shuffled(mutations.of(mutations.functions[0]), seed=5)]
    kinds = len(set(order))
    assert kinds >= 6
    assert len(set(order[:kinds])) == kinds


@pytest.mark.parametrize(
    "statement",
    [
        '"""Words: 1 + 1."""',
        "raise ValueError(1 + a, b)",
        "print(a, b)",
        "logger.warning(a, b, 2)",
        "x: Literal[2]",
        'return f"{a + 1}"',
        "from m import x",
        "assert a.b, 1 + 1",
    ],
)
def test_docstrings_annotations_and_messages_are_left_alone(statement: str) -> None:
    mutations = Mutations(f"def f() -> Annotated[int, 1 + 1]:\n    {statement}\n", "m.py")
    (function,) = mutations.functions
    assert [mutant for mutant in mutations.of(function) if mutations.differs(mutant)] == []


def test_a_change_in_dead_code_is_no_mutant() -> None:
    mutations = Mutations("def f(a):\n    if False:\n        return 5\n    return a\n", "m.py")
    (function,) = mutations.functions
    dead = [mutant for mutant in mutations.of(function) if "return 5" in mutant.original_line]
    live = [mutant for mutant in mutations.of(function) if "return a" in mutant.original_line]
    assert dead
    assert live
    assert not any(mutations.differs(mutant) for mutant in dead)
    assert all(mutations.differs(mutant) for mutant in live)


def test_nonlocal_is_compared_in_its_file() -> None:
    long = "\n".join(f"    x{number} = {number}" for number in range(30))
    inner = "    def inner():\n        nonlocal n\n        n += 1\n        return n\n"
    source = f"def outer():\n    n = 0\n{long}\n{inner}    return inner\n"
    mutations = Mutations(source, "m.py")
    assert [function.name for function in mutations.functions] == ["outer.<locals>.inner"]
    assert all(mutations.differs(mutant) for mutant in mutations.of(mutations.functions[0]))


def test_functions_that_are_too_long_are_left_out_but_not_what_they_hold() -> None:
    lines = "\n".join("    pass" for _ in range(MOST_LINES))
    assert Mutations(f"def f(a):\n{lines}\n", "m.py").functions == ()
    assert Mutations(f"def f(a):\n    return '{'x' * MOST_CHARACTERS}'\n", "m.py").functions == ()
    documented = f'def f(a):\n    """{"word " * 400}\n\n    More.\n    """\n\n\n    return a\n'
    assert [function.name for function in Mutations(documented, "m.py").functions] == ["f"]


def test_wide_characters_before_the_place() -> None:
    (mutant,) = [mutant for mutant in _of("def f(a, b):\n    return 'äöü😀', a < b\n") if mutant.kind == "boundary"]
    assert mutant.mutated_line == "    return 'äöü😀', a <= b"


def _of(source: str) -> list[Mutant]:
    return list(mutants(source, "m.py", seed=0))
