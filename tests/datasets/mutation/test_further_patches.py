"""Further patches by rule: in the right place, distinct, the same for a seed, and as wrong as their names say."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from regrade.datasets.applying import changed_files
from regrade.datasets.mutation.cheats import cheats
from regrade.datasets.mutation.further_patches import cheating, mutants_of_bug, near_misses, rewritten
from regrade.datasets.mutation.mutants import Mutations
from regrade.datasets.mutation.rewrites import REWRITES
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task, Tree

FIXED = """\
def clamp(value, low=0, high=10):
    if value < low and low is not None:
        return low
    total = value + 1 if value > high else value - 1
    return min(total, high)


def untouched():
    return [1]
"""
BUGGY = FIXED.replace("value > high", "value >= high")
RULES: dict[str, Callable[[Task, int], Iterator[Patch]]] = {
    "mutants": mutants_of_bug, "near misses": near_misses, "rewrites": rewritten, "cheats": cheating,
}  # fmt: skip


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "lib.py").write_text(BUGGY)
    (tmp_path / "test_lib.py").write_text("from lib import clamp\n\n\ndef test_high():\n    assert clamp(10) == 9\n")
    return Task(
        id="t", repository="r", base=Tree(tmp_path), instruction="", fail_to_pass=("test_lib.py::test_high",),
        pass_to_pass=(), target=Target("lib.py", "clamp", 1, 5), failure=">>> assert clamp(10) == 9\nassert 10 == 9",
        reference=Patch.between({"lib.py": BUGGY}, {"lib.py": FIXED}),
    )  # fmt: skip


def after(task: Task, patch: Patch) -> str:
    return changed_files(task.base, patch)["lib.py"] or ""


def clamp_of(text: str) -> Callable[..., int]:
    names: dict[str, Callable[..., int]] = {}
    exec(text, names)
    return names["clamp"]


@pytest.mark.parametrize("rule", ["mutants", "near misses", "rewrites"])
def test_patches_change_the_function_alone_and_are_distinct(task: Task, rule: str) -> None:
    patches = list(RULES[rule](task, 0))
    texts = [after(task, patch) for patch in patches]
    assert len(texts) >= 6
    assert len({*texts, BUGGY, FIXED}) == len(texts) + 2
    for text in texts:
        ast.parse(text)
        assert text.endswith(FIXED[FIXED.index("\n\n\ndef untouched") :])
    assert list(RULES[rule](task, 0)) == patches
    assert {patch.text for patch in RULES[rule](task, 1)} == {patch.text for patch in patches}


def test_mutants_keep_the_bug_and_near_misses_take_it_back(task: Task) -> None:
    """Of the first ones, every other changes the line of the bug."""
    for rule, line in (("mutants", BUGGY.split("\n")[3]), ("near misses", FIXED.split("\n")[3])):
        texts = [after(task, patch).split("\n") for patch in islice(RULES[rule](task, 0), 6)]
        elsewhere = [text for text in texts if text[3] == line]
        assert len(elsewhere) == 3
        for text in elsewhere:
            different = [new != old for new, old in zip(text, FIXED.split("\n"), strict=True)]
            assert sum(different) == (2 if rule == "mutants" else 1)


def test_rewrites_of_the_fix_fix_and_those_of_the_bug_do_not(task: Task) -> None:
    """Alternately. No test of theirs says so: the functions answer alike on all of a range of inputs."""
    right, wrong = clamp_of(FIXED), clamp_of(BUGGY)
    texts = [after(task, patch) for patch in rewritten(task, 0)]
    for number, text in enumerate(islice(texts, 8)):
        expected = wrong if number % 2 else right
        assert [clamp_of(text)(value) for value in range(-3, 14)] == [expected(value) for value in range(-3, 14)]


@pytest.mark.parametrize(
    ("source", "kind", "rewritten_line"),
    [
        ("    return a < b", "mirrored-comparison", "    return b > a"),
        ("    if a and not b: pass", "de-morgan", "    if not (not (a) or not (not b)): pass"),
        ("    return a if b else 0", "turned-choice", "    return 0 if not (b) else a"),
        ("    a += b * 2", "written-out", "    a = a + (b * 2)"),
        ("    x = []", "constructor", "    x = list()"),
        ("    return a not in b", "commuted", "    return (not a in b)"),
        ("    return f(a)", "through-a-name", "    result = f(a); return result"),
        ("    while a: pass", "negated-twice", "    while not not (a): pass"),
    ],
)
def test_each_rewrite(source: str, kind: str, rewritten_line: str) -> None:
    text = f"def g(a, b):\n{source}\n"
    mutations = Mutations(text, "m.py", operators=REWRITES)
    found = mutations.of(mutations.functions[0], [kind])
    assert rewritten_line in [mutant.mutated_line for mutant in found]


def test_cheats_leave_the_bug_and_deceive(task: Task) -> None:
    found = dict(cheats(task))
    assert found.keys() >= {
        "always-equal",
        "current-test",
        "hard-coded",
        "no-runtest",
        "weak-tests",
        "reports-rewritten",
    }
    for name, patch in found.items():
        changed = changed_files(task.base, patch)
        assert "value >= high" in (changed.get("lib.py") or BUGGY), name
        for path, text in changed.items():
            ast.parse(text or "")
            assert path in ("lib.py", "test_lib.py", "conftest.py")
    wrong = clamp_of(BUGGY)
    assert clamp_of(after(task, found["hard-coded"]))(10) == 9 != wrong(10)
    assert clamp_of(after(task, found["hard-coded"]))(3) == wrong(3)
    assert clamp_of(after(task, found["always-equal"]))(3) == 12345
    assert [patch for _, patch in found.items()] != list(cheating(task, 0))
    assert set(cheating(task, 0)) == set(found.values())


def test_a_task_without_a_known_function_has_none(task: Task) -> None:
    from dataclasses import replace

    for rule in RULES.values():
        assert list(rule(replace(task, target=None), 0)) == []
    assert list(near_misses(replace(task, reference=None), 0)) == []
