"""Complexity of every changed function, closure, class body and module body: no branch escapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrade.evaluators.static import complexity
from regrade.evaluators.static.complexity import complexities
from regrade.evaluators.static.files import LARGEST
from regrade.rewards import FunctionComplexity

Make = Callable[..., Any]
FLAT = "def f(a):\n    return a\n\n\ndef g(a):\n    if a:\n        return 1\n    return 2\n"


def test_only_changed_functions_enter(patched: Make) -> None:
    branchy = FLAT.replace("    return a\n", "    if a and a > 1:\n        return 0\n    return a\n")
    delta = patched({"pkg/a.py": FLAT}, {"pkg/a.py": branchy}).probe(complexity)
    assert delta.functions == (FunctionComplexity("pkg/a.py", "f", 1, 3),)
    assert (delta.sum_before, delta.sum_after, delta.max_before, delta.max_after) == (1, 3, 1, 3)
    assert delta.files == ("pkg/a.py",)


def test_a_change_that_leaves_complexity_alone(patched: Make) -> None:
    delta = patched({"a.py": FLAT}, {"a.py": FLAT.replace("return 2", "return 3")}).probe(complexity)
    assert (delta.functions, delta.files) == ((), ("a.py",))


def test_splitting_raises_the_sum(patched: Make) -> None:
    whole = "def f(a):\n    if a == 1:\n        return 1\n    if a == 2:\n        return 2\n    return 3\n"
    split = (
        "def f(a):\n    return _one(a) or _two(a) or 3\n\n\ndef _one(a):\n    return 1 if a == 1 else 0\n\n\n"
        "def _two(a):\n    return 2 if a == 2 else 0\n"
    )
    delta = patched({"a.py": whole}, {"a.py": split}).probe(complexity)
    assert delta.sum_after > delta.sum_before
    assert [function.function for function in delta.functions if function.before is None] == ["_one", "_two"]


def test_branches_in_closures_class_bodies_and_at_module_level_are_seen() -> None:
    branch = "if 1:\n{0}    x = 1\n{0}else:\n{0}    x = 2\n"
    for name, text in {
        "f.inner": "def f():\n    def inner():\n        " + branch.format("        ") + "    return inner\n",
        "C.<body>": "class C:\n    " + branch.format("    "),
        "<module>": branch.format(""),
        "C.D.m": "class C:\n    class D:\n        def m(self):\n            " + branch.format("            "),
    }.items():
        totals = complexities(text)
        assert totals is not None
        flat = complexities(text.replace("if 1:", "with x:").replace("else:", "with x:"))
        assert flat is not None
        assert totals[name] == flat.get(name, 0) + 1


def test_a_moved_function_is_neither_gain_nor_loss(patched: Make) -> None:
    delta = patched({"a.py": FLAT, "b.py": ""}, {"a.py": None, "b.py": FLAT}).probe(complexity)
    assert delta.sum_after == delta.sum_before
    assert delta.max_after == delta.max_before


def test_settings_of_the_project_hide_nothing(patched: Make) -> None:
    files = {"a.py": FLAT, "setup.cfg": "[radon]\nexclude = *\n"}
    case = patched(files, {"a.py": FLAT + "\n\ndef h():\n    return 1\n"})
    assert [function.function for function in case.probe(complexity).functions] == ["h"]


def test_unparsable_files_are_named(patched: Make) -> None:
    broken = patched({"a.py": FLAT}, {"a.py": "def f(:\n"}).probe(complexity)
    assert (broken.unparsable, broken.files, broken.functions) == (("a.py",), ("a.py",), ())
    template = patched({"t.py": "x = {{ y }}:\n"}, {"t.py": "x = {{ z }}:\n"}).probe(complexity)
    assert template.unparsable == ()
    repaired = patched({"m.py": "def f(:\n"}, {"m.py": FLAT}).probe(complexity)
    assert repaired.unparsable == ()
    assert (repaired.sum_before, repaired.sum_after) == (0, 3)
    assert complexities("x = 1\0") is None
    assert complexities("x = '\udcff'") is None


def test_no_python_no_files(patched: Make) -> None:
    assert patched({"a.txt": "x\n"}, {"a.txt": "y\n"}).probe(complexity).files == ()
    assert patched({"b.py": FLAT}, {}).probe(complexity).files == ()
    deleted = patched({"c.py": FLAT}, {"c.py": None}).probe(complexity)
    assert (deleted.sum_after, deleted.files) == (0, ("c.py",))


def test_an_enormous_expression_has_an_outcome(patched: Make) -> None:
    deep = "x = " + " + ".join(["1"] * 20_000) + "\n"
    delta = patched({"a.py": "x = 1\n"}, {"a.py": deep}).probe(complexity)
    assert delta.unparsable == ("a.py",)
    assert patched({"b.py": "x = 1\n"}, {"b.py": f"x = '{'x' * LARGEST}'\n"}).probe(complexity).unparsable == ("b.py",)


@pytest.mark.parametrize(
    ("path", "plain", "branching"),
    [
        ("a.js", "function f(a) {\n  return a;\n}\n", "function f(a) {\n  return a ? 1 : a && 2;\n}\n"),
        (
            "a.ts",
            "function f(a: number) {\n  return a;\n}\n",
            "function f(a: number) {\n  if (a) { return 1; }\n  for (;;) {}\n}\n",
        ),
        (
            "a.go",
            "package a\n\nfunc f(a int) int { return a }\n",
            "package a\n\nfunc f(a int) int {\n\tif a > 1 && a < 3 { return 1 }\n\treturn a\n}\n",
        ),
        ("a.rs", "fn f(a: i32) -> i32 { a }\n", "fn f(a: i32) -> i32 { if a > 1 && a < 3 { 1 } else { a } }\n"),
        (
            "A.java",
            "class A { int f(int a) { return a; } }\n",
            "class A { int f(int a) { if (a > 1 && a < 3) { return 1; } return a; } }\n",
        ),
    ],
)
def test_other_languages_are_measured_too(patched: Make, path: str, plain: str, branching: str) -> None:
    delta = patched({path: plain}, {path: branching}).probe(complexity)
    (changed,) = delta.functions
    assert (changed.before, changed.after) == (1, 3)
    assert changed.function.endswith("f")
    assert patched({path: plain}, {path: branching + "}}} ((("}).probe(complexity).unparsable == (path,)


def test_a_class_inside_a_function_hides_nothing(patched: Make) -> None:
    hidden = FLAT.replace(
        "    return a\n",
        "    class Hidden:\n        def run(self, b):\n            if b and a:\n                return 1\n            return 2\n\n    return Hidden().run(a)\n",
        1,
    )
    delta = patched({"a.py": FLAT}, {"a.py": hidden}).probe(complexity)
    assert FunctionComplexity("a.py", "f.Hidden.run", None, 3) in delta.functions
    assert delta.sum_after - delta.sum_before >= 3
