"""Impact: the modules that depend on a change, the files on the path, and the formula."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators.static.dependencies import impact
from regrade.evaluators.static.dependencies.changes import BODY, REMOVED, SIGNATURE, changed_symbols
from regrade.evaluators.static.languages.python import PYTHON
from regrade.rewards import Impact, ImpactedModule, TestOutcome, TestRun, TestStatus
from regrade.rewards import impact as impact_reward

Make = Callable[..., Any]
CORE = '''"""Core."""
LIMIT = 3


def helper(a):
    return a + LIMIT


def public(a):
    """Doc."""
    return helper(a)  # comment


class Shape:
    def area(self):
        return 1

    def double(self):
        return 2 * self.area()
'''
PROJECT = {
    "pkg/__init__.py": "from .core import public, Shape\n",
    "pkg/core.py": CORE,
    "pkg/user.py": "from pkg import public\n\n\ndef use():\n    return public(1)\n",
    "pkg/far.py": "import pkg.user\n\n\ndef reuse():\n    return pkg.user.use()\n",
    "pkg/drawing.py": "from .core import Shape\n\n\ndef draw(shape):\n    return Shape().area()\n",
    "pkg/alone.py": "import os\n\n\ndef alone():\n    return os.getcwd()\n",
    "tests/test_user.py": "from pkg.user import use\n\n\ndef test_use():\n    assert use() == 4\n",
    "tests/test_far.py": "from pkg import far\n\n\ndef test_reuse():\n    assert far.reuse() == 4\n",
}


def modules(evidence: Impact) -> dict[str, ImpactedModule]:
    return {module.module: module for module in evidence.modules}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return a + LIMIT", "return LIMIT + a", {"helper": BODY}),
        ("def helper(a):", "def helper(a, b=1):", {"helper": SIGNATURE}),
        ("def helper(a):", "def helper(a: int) -> int:", {"helper": SIGNATURE}),
        ("def helper(a):", "@cache\ndef helper(a):", {"helper": BODY}),
        ("  # comment", "", {}),
        ('"""Doc."""', '"""Other."""', {}),
        ("    return helper(a)", "\n    return helper(a)", {}),
        ("LIMIT = 3", "LIMIT = 4", {"LIMIT": BODY}),
        ("LIMIT = 3\n", "", {"LIMIT": REMOVED}),
        ("    def area(self):\n        return 1\n\n", "", {"Shape.area": REMOVED}),
        ("class Shape:", "class Shape(Base):", {"Shape": SIGNATURE}),
        ("LIMIT = 3", "LIMIT = 3\nNEW = 1", {}),
        ("LIMIT = 3", "from .limits import LIMIT", {"LIMIT": BODY}),
        ("LIMIT = 3", "LIMIT = 3\nprint(1)", {"<module>": BODY}),
    ],
)
def test_changed_symbols_and_their_weights(old: str, new: str, expected: dict[str, float]) -> None:
    assert old in CORE
    assert changed_symbols(CORE, CORE.replace(old, new, 1), PYTHON) == expected


def test_a_line_that_leaves_its_block_is_a_change() -> None:
    before = "def f(a):\n    if a:\n        a = 1\n        a = 2\n    return a\n"
    after = "def f(a):\n    if a:\n        a = 1\n    a = 2\n    return a\n"
    assert changed_symbols(before, after, PYTHON) == {"f": BODY}


def test_new_and_deleted_files() -> None:
    assert changed_symbols(None, CORE, PYTHON) == {}
    assert set(changed_symbols(CORE, None, PYTHON)) >= {"helper", "public", "Shape", "Shape.area", "LIMIT"}


def test_dependents_are_found_through_helpers_aliases_and_modules(patched: Make) -> None:
    evidence = patched(PROJECT, {"pkg/core.py": CORE.replace("def helper(a):", "def helper(a, b=1):")}).probe(impact)
    assert evidence.changed_symbols == ("pkg/core.py::helper",)
    reached = modules(evidence)
    assert set(reached) == {"pkg/__init__.py", "pkg/user.py", "pkg/far.py"}
    user, far = reached["pkg/user.py"], reached["pkg/far.py"]
    assert (user.hops, user.weight, user.path) == (1, 1.0, ("pkg/core.py::helper", "pkg/user.py"))
    assert (far.hops, far.weight) == (2, 0.5)
    assert far.path == ("pkg/core.py::helper", "pkg/user.py", "pkg/far.py")
    assert user.tests == ("tests/test_user.py", "tests/test_far.py")  # the nearest first
    assert far.tests == ("tests/test_far.py",)


def test_a_body_weighs_less_than_a_signature(patched: Make) -> None:
    evidence = patched(PROJECT, {"pkg/core.py": CORE.replace("return a + LIMIT", "return LIMIT + a")}).probe(impact)
    assert modules(evidence)["pkg/user.py"].weight == pytest.approx(0.3)


def test_a_method_reaches_its_users_and_with_less_weight_users_of_its_class(patched: Make) -> None:
    files = {
        **PROJECT,
        "pkg/other.py": "from .core import Shape\n\n\ndef make():\n    return Shape()\n",
        "pkg/blind.py": "def area_of(thing):\n    return thing.area()\n",
    }
    evidence = patched(files, {"pkg/core.py": CORE.replace("def area(self):", "def area(self, unit=1):")}).probe(impact)
    reached = modules(evidence)
    assert reached["pkg/drawing.py"].weight == 1.0
    assert reached["pkg/other.py"].weight == 0.5
    assert reached["pkg/blind.py"].weight == 1.0, "no other class has such a method"
    shared = {**files, "pkg/second.py": "class Second:\n    def area(self):\n        return 2\n"}
    evidence = patched(shared, {"pkg/core.py": CORE.replace("def area(self):", "def area(self, unit=1):")}).probe(
        impact
    )
    assert modules(evidence)["pkg/blind.py"].weight == 0.5


def test_an_unused_symbol_has_no_dependents(patched: Make) -> None:
    evidence = patched(PROJECT, {"pkg/alone.py": PROJECT["pkg/alone.py"].replace("alone():", "alone(a):")}).probe(
        impact
    )
    assert evidence.modules == ()
    comment = patched(PROJECT, {"pkg/core.py": CORE.replace("# comment", "# another")}).probe(impact)
    assert (comment.changed_symbols, comment.modules) == ((), ())


def test_removed_names_dangle_where_they_are_used(patched: Make) -> None:
    evidence = patched(PROJECT, {"pkg/core.py": CORE.replace("def public(a):", "def published(a):")}).probe(impact)
    reached = modules(evidence)
    assert reached["pkg/__init__.py"].dangling == ("pkg/core.py::public",)
    assert reached["pkg/user.py"].dangling == ("pkg/core.py::public",)
    assert reached["pkg/far.py"].dangling == ()


def test_a_name_that_is_imported_from_elsewhere_does_not_dangle(patched: Make) -> None:
    moved = CORE.replace("def public(a):\n", "from .alone import alone as public\n\n\ndef _old(a):\n")
    assert not any(module.dangling for module in patched(PROJECT, {"pkg/core.py": moved}).probe(impact).modules)


def test_an_import_that_expects_to_fail_does_not_dangle(patched: Make) -> None:
    careful = "try:\n    from pkg.core import public\nexcept ImportError:\n    public = None\n"
    files = {"pkg/__init__.py": "", "pkg/core.py": CORE, "pkg/careful.py": careful}
    evidence = patched(files, {"pkg/core.py": CORE.replace("def public(a):", "def published(a):")}).probe(impact)
    assert modules(evidence)["pkg/careful.py"].dangling == ()


def test_deleted_and_renamed_files_leave_their_importers_dangling(patched: Make) -> None:
    deleted = patched(PROJECT, {"pkg/user.py": None}).probe(impact)
    assert modules(deleted)["pkg/far.py"].dangling == ("pkg/user.py::use",)
    rename = "diff --git a/pkg/user.py b/pkg/used.py\nsimilarity index 100%\n"
    rename += "rename from pkg/user.py\nrename to pkg/used.py\n"
    renamed = patched(PROJECT, diff=rename).probe(impact)
    assert modules(renamed)["pkg/far.py"].dangling == ("pkg/user.py::use",)


def test_star_imports_export_public_names_again(patched: Make) -> None:
    files = {
        "pkg/__init__.py": "from .core import *\n",
        "pkg/core.py": CORE,
        "pkg/user.py": "import pkg\n\n\ndef use():\n    return pkg.public(1)\n",
    }
    evidence = patched(files, {"pkg/core.py": CORE.replace("def public(a):", "def public(a, b):")}).probe(impact)
    assert {name: module.hops for name, module in modules(evidence).items()} == {"pkg/__init__.py": 1, "pkg/user.py": 1}


def test_a_source_layout_and_tests_beside_their_helpers(patched: Make) -> None:
    files = {
        "src/pkg/__init__.py": "",
        "src/pkg/core.py": CORE,
        "src/pkg/user.py": "from pkg.core import public\n\n\ndef use():\n    return public(1)\n",
        "tests/helpers.py": "from pkg.user import use\n\n\ndef check(value):\n    assert use() == value\n",
        "tests/test_user.py": "from helpers import check\n\n\ndef test_use():\n    check(4)\n",
    }
    case = patched(
        files, {"src/pkg/core.py": CORE.replace("def public(a):", "def public(a, b=1):")}, python_path=("src",)
    )
    reached = modules(case.probe(impact))
    assert set(reached) == {"src/pkg/user.py"}
    assert reached["src/pkg/user.py"].tests == ("tests/test_user.py",)


def test_new_import_cycles_are_found_and_old_ones_are_not(patched: Make) -> None:
    cyclic = "from pkg.user import use\n" + CORE
    files = {
        **PROJECT,
        "pkg/__init__.py": "",
        "pkg/user.py": PROJECT["pkg/user.py"].replace("from pkg ", "from pkg.core "),
    }
    assert patched(files, {"pkg/core.py": cyclic}).probe(impact).new_cycles == (
        ("pkg/core.py", "pkg/user.py", "pkg/core.py"),
    )
    lazy = CORE + "\n\ndef late():\n    from pkg.user import use\n    return use\n"
    assert patched(files, {"pkg/core.py": lazy}).probe(impact).new_cycles == ()
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.user import use\n" + CORE
    assert patched(files, {"pkg/core.py": typing}).probe(impact).new_cycles == ()
    already = {**files, "pkg/core.py": cyclic}
    assert patched(already, {"pkg/core.py": cyclic.replace("LIMIT = 3", "LIMIT = 4")}).probe(impact).new_cycles == ()


def test_circular_imports_end(patched: Make) -> None:
    files = {
        "a.py": "from b import g\n\n\ndef f():\n    return g()\n",
        "b.py": "from a import f\n\n\ndef g():\n    return f()\n",
    }
    evidence = patched(files, {"a.py": files["a.py"].replace("def f():", "def f(x=1):")}).probe(impact)
    assert [module.module for module in evidence.modules] == ["b.py"]


def test_unparsable_files_are_named(patched: Make) -> None:
    broken = patched(PROJECT, {"pkg/core.py": "def public(:\n"}).probe(impact)
    assert broken == Impact(changed_symbols=(), modules=(), unparsable=("pkg/core.py",))
    template = patched({"t.py": "x = {{ y }}:\n"}, {"t.py": "x = {{ z }}:\n"}).probe(impact)
    assert template.unparsable == ()
    assert patched({"a.txt": "x\n"}, {"a.txt": "y\n"}).probe(impact) == Impact(changed_symbols=(), modules=())
    assert patched({"b.py": CORE}, {}).probe(impact) == Impact(changed_symbols=(), modules=())


def test_undecodable_neighbours_are_no_obstacle(patched: Make) -> None:
    files = {
        **PROJECT,
        "pkg/latin.py": b"# -*- coding: latin-1 -*-\nfrom pkg.core import public\nx = '\xe9' + public(1)\n",
        "pkg/binary.py": b"\x00\xff\x00",
    }
    evidence = patched(files, {"pkg/core.py": CORE.replace("def public(a):", "def public(a, b):")}).probe(impact)
    assert "pkg/latin.py" in modules(evidence)


def test_the_reward_names_symbol_module_and_test(patched: Make) -> None:
    evidence = patched(PROJECT, {"pkg/core.py": CORE.replace("def helper(a):", "def helper(a, b=1):")}).probe(impact)
    ids = ("tests/test_user.py::test_use", "tests/test_far.py::test_reuse")
    good = TestRun(outcomes=dict.fromkeys(ids, TestOutcome(TestStatus.PASSED)), fail_to_pass=(), pass_to_pass=ids)
    bad = TestRun(outcomes={**good.outcomes, ids[0]: TestOutcome(TestStatus.FAILED)}, fail_to_pass=(), pass_to_pass=ids)
    assert impact_reward(evidence, good).value == 1.0
    score = impact_reward(evidence, bad)
    assert score.value is not None
    assert score.value < 0.5
    assert "pkg/core.py::helper -> " in score.why
    assert "tests/test_user.py (broken)" in score.why


PARTS = {
    "pkg/__init__.py": "",
    "pkg/core.py": "def one(a):\n    return a + 1\n\n\ndef two(a):\n    return a + 2\n",
    "pkg/user.py": "from pkg.core import one, two\n\n\ndef ones(a):\n    return one(a)\n\n\ndef twos(a):\n    return two(a)\n",
    "tests/test_user.py": (
        "from pkg.user import ones, twos\n\n\ndef test_ones():\n    assert ones(1) == 2\n\n\n"
        "class TestTwos:\n    def test_twos(self):\n        assert twos(1) == 3\n"
    ),
}
ONES, TWOS = "tests/test_user.py::test_ones", "tests/test_user.py::TestTwos::test_twos"
BOTH = {"pkg/core.py": "def one(a):\n    return 1 + a\n\n\ndef two(a):\n    return a - 2\n"}


def test_of_two_changed_functions_the_reason_names_the_one_that_the_broken_test_reaches(patched: Make) -> None:
    evidence = patched(PARTS, BOTH).probe(impact)
    assert evidence.nearest == (("pkg/core.py::one", (ONES,)), ("pkg/core.py::two", (TWOS,)))
    good = TestRun(
        outcomes=dict.fromkeys((ONES, TWOS), TestOutcome(TestStatus.PASSED)), fail_to_pass=(), pass_to_pass=(ONES, TWOS)
    )
    for test, name in ((ONES, "one"), (TWOS, "two")):
        broken = TestRun(
            outcomes={**good.outcomes, test: TestOutcome(TestStatus.FAILED)}, fail_to_pass=(), pass_to_pass=(ONES, TWOS)
        )
        assert f"pkg/core.py::{name} -> " in impact_reward(evidence, broken).why
    assert patched(PARTS, {"pkg/core.py": PARTS["pkg/core.py"].replace("a + 1", "a - 1")}).probe(impact).nearest == ()


def test_an_executed_symbol_is_nearer_than_one_from_the_graph(patched: Make) -> None:
    case = patched(PARTS, BOTH)
    crossed = {"pkg/core.py::one": (f"{TWOS}[1]", f"{TWOS}[2]"), "pkg/core.py::two": (ONES,)}
    task = replace(case.task, suite=replace(case.task.suite, reach=crossed))
    evidence = replace(case, task=task).probe(impact)
    assert evidence.nearest == (("pkg/core.py::one", (TWOS,)), ("pkg/core.py::two", (ONES,)))
    assert evidence.cause_of(f"{TWOS}[2]") == "pkg/core.py::one"
    assert evidence.cause_of("tests/test_other.py::test_it") == ""


def test_the_same_patch_gives_the_same_evidence_in_every_process(patched: Make) -> None:
    case = patched(PROJECT, {"pkg/core.py": CORE.replace("def area(self):", "def area(self, unit=1):")})
    code = (
        "import sys; from pathlib import Path; from regrade.datasets.patches import Patch\n"
        "from regrade.datasets.tasks import Task, Tree\n"
        "from regrade.evaluators.static.dependencies import impact\n"
        "tree = Tree(Path(sys.argv[1])); patch = Patch(sys.argv[2])\n"
        "after = tree.with_files({'pkg/core.py': sys.argv[3]})\n"
        "print(impact.probe(tree, after, patch, Task(id='task', repository='r', base=tree, instruction='', fail_to_pass=(), pass_to_pass=())))\n"
    )
    arguments = [str(case.before.root), case.patch.text, case.after.read("pkg/core.py")]
    said = {
        subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{case.probe(impact)}\n"}


def test_a_patch_in_a_hundred_files_is_judged_in_hundredths_of_a_second(patched: Make) -> None:
    files = {
        f"pkg/m{index}.py": f"from pkg.m{max(0, index - 1)} import f{max(0, index - 1)}\n\n\n" * (index > 0)
        + f"def f{index}(a):\n    return {'f' + str(index - 1) + '(a)' if index else 'a'}\n" * 1
        + "".join(f"\n\ndef g{index}_{n}(a):\n    return a.b + {n}\n" for n in range(20))
        for index in range(100)
    }
    files["pkg/__init__.py"] = ""
    patched(files, {"pkg/m50.py": files["pkg/m50.py"] + "\nx = 1\n"}).probe(impact)
    case = patched({}, {})
    base = case.before
    spent = []
    for turn in range(5):
        text = files["pkg/m50.py"].replace("def f50(a):", f"def f50(a, b={turn}):")
        patch = Patch.between({"pkg/m50.py": files["pkg/m50.py"]}, {"pkg/m50.py": text})
        started = time.process_time()
        evidence = impact.probe(base, base.with_files({"pkg/m50.py": text}), patch, case.task)
        spent.append(time.process_time() - started)
        assert [module.module for module in evidence.modules] == ["pkg/m51.py", "pkg/m52.py", "pkg/m53.py"]
    assert min(spent) < 0.03, f"{min(spent) * 1000:.0f} ms of CPU time"
