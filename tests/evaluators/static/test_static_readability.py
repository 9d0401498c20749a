"""Readability of the changed functions: comments do not count, and moving code does not improve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.evaluators.static import readability as probe
from regrade.rewards import FunctionReadability, Readability, ReadabilityDelta, readability

Make = Callable[..., Any]
PLAIN = "def f(a, b):\n    return a + b\n\n\ndef g(a):\n    return a * 2\n"
NESTED = """\
def f(a, b):
    for x in a:
        if x:
            for y in b:
                if y and x > y:
                    return x * y - 1
    return a + b


def g(a):
    return a * 2
"""


def test_only_changed_functions_enter_with_all_measures(patched: Make) -> None:
    delta = patched({"a.py": PLAIN}, {"a.py": NESTED}).probe(probe)
    (changed,) = delta.functions
    assert (changed.file, changed.function) == ("a.py", "f")
    assert changed.before is not None
    assert changed.after is not None
    assert (changed.before.cognitive, changed.after.cognitive) == (0, 11)
    assert changed.after.volume > changed.before.volume > 0
    assert changed.after.maintainability < changed.before.maintainability
    score = readability(delta)
    assert score.value is not None
    assert score.value < 0.4
    assert "cognitive complexity +11 (mean 0.0 -> 11.0)" in score.why
    assert "f in a.py: 0 -> 11" in score.why


def test_comments_and_docstrings_change_nothing(patched: Make) -> None:
    body = '    """Adds."""\n    # so it does\n    return a + b  # complexipy: ignore'
    delta = patched({"a.py": PLAIN}, {"a.py": PLAIN.replace("    return a + b", body)}).probe(probe)
    assert delta.functions == ()
    assert readability(delta).value == 1.0


def test_no_comment_hides_a_function(patched: Make) -> None:
    hidden = NESTED.replace("def f(a, b):", "def f(a, b):  # complexipy: ignore  # noqa: complexipy")
    assert patched({"a.py": PLAIN}, {"a.py": hidden}).probe(probe) == patched(
        {"b.py": PLAIN, "a.py": PLAIN}, {"a.py": NESTED}
    ).probe(probe)


def test_methods_nested_functions_and_loose_code_have_their_owners(patched: Make) -> None:
    before = "class A:\n    class B:\n        def m(self):\n            def inner():\n                return 1\n            return inner\n"
    after = before.replace("return 1", "return 1 if self else 2") + "if A:\n    x = 1 + 1\n"
    delta = patched({"a.py": before}, {"a.py": after}).probe(probe)
    assert [(f.function, f.before is None) for f in delta.functions] == [("<module>", True), ("A.B.m", False)]


def test_splitting_in_helpers_does_not_pay(patched: Make) -> None:
    helpers = "def h(x, y):\n    return x * y - 1\n\n\n" + NESTED.replace("x * y - 1", "h(x, y)")
    whole = readability(patched({"a.py": PLAIN}, {"a.py": NESTED}).probe(probe)).value
    split = readability(patched({"a.py": PLAIN}, {"a.py": helpers}).probe(probe)).value
    assert whole is not None
    assert split is not None
    assert split <= whole + 0.02


def test_making_it_simpler_costs_nothing_and_pays_no_more_than_leaving_it(patched: Make) -> None:
    assert readability(patched({"a.py": NESTED}, {"a.py": PLAIN}).probe(probe)).value == 1.0


def test_unparsable_files_are_named(patched: Make) -> None:
    broken = patched({"a.py": PLAIN}, {"a.py": "def f(:\n"}).probe(probe)
    assert broken.unparsable == ("a.py",)
    assert readability(broken).value == 0.0
    never = patched({"b.py": "{{ x }}:\n"}, {"b.py": "{{ y }}:\n"}).probe(probe)
    assert (never.unparsable, never.functions) == ((), ())
    assert readability(patched({"c.txt": "a\n"}, {"c.txt": "b\n"}).probe(probe)).value is None


def test_an_enormous_expression_has_an_outcome(patched: Make) -> None:
    deep = "def f(a):\n    return " + "-" * 3000 + "a\n"
    delta = patched({"a.py": PLAIN}, {"a.py": deep}).probe(probe)
    assert readability(delta).value is not None


def test_half_a_surrogate_pair_is_measured(patched: Make) -> None:
    after = PLAIN + "\n\ndef h(a):\n    return a + '\\udcff' + '\u00e9'\n"
    delta = patched({"a.py": PLAIN}, {"a.py": after}).probe(probe)
    assert [function.function for function in delta.functions] == ["h"]


measures = st.builds(Readability, st.integers(0, 60), st.floats(0, 5000), st.floats(0, 100))
functions = st.builds(FunctionReadability, st.just("a.py"), st.sampled_from("fgh"), st.none() | measures, measures)


@given(st.lists(functions, max_size=5), measures)
def test_another_new_function_never_raises_the_value(changed: list[FunctionReadability], more: Readability) -> None:
    less = readability(ReadabilityDelta(tuple(changed), (), ("a.py",))).value
    worse = FunctionReadability("a.py", "new", None, more)
    further = readability(ReadabilityDelta((*changed, worse), (), ("a.py",))).value
    assert less is not None
    assert further is not None
    assert 0.0 <= further <= less + 1e-12 <= 1.0 + 1e-12


def test_the_formula() -> None:
    change = FunctionReadability("a.py", "f", Readability(2, 100.0, 80.0), Readability(7, 350.0, 70.0))
    score = readability(ReadabilityDelta((change,), (), ("a.py",)))
    assert score.value == pytest.approx(1 / (1 + 10 / 10 + 500 / 1000 + 10 / 50))
