"""The size of a patch, of unusual patches too; and byte-compilation of the changed files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.evaluation.footprint import footprint
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.static import builds, complexity, diff, lint, readability
from regrade.evaluators.static.dependencies import impact
from regrade.evaluators.static.tampering import integrity
from regrade.rewards import BuildRun, Diff

Make = Callable[..., Any]
RENAME = """diff --git a/pkg/old.py b/pkg/new.py
similarity index 100%
rename from pkg/old.py
rename to pkg/new.py
"""


def test_lines_and_files_are_counted_without_ignored_files(patched: Make) -> None:
    files = {"pkg/a.py": "x = 1\ny = 2\n", "tests/test_a.py": "def test_a(): pass\n", "setup.cfg": "[metadata]\n"}
    case = patched(
        files,
        {
            "pkg/a.py": "x = 1\ny = 3\nz = 4\n",
            "tests/test_a.py": "def test_a(): assert 1\n",
            "setup.cfg": "[metadata]\nname = x\n",
        },
    )
    assert case.probe(diff) == Diff(2, 1, ("pkg/a.py",))


def test_an_empty_patch_has_no_size_and_nothing_to_build(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n"}, {})
    assert case.probe(diff) == Diff(0, 0, ())
    assert case.probe(diff).is_empty
    assert case.probe(builds) == BuildRun(True, 0)


def test_new_deleted_and_renamed_files(patched: Make) -> None:
    case = patched({"pkg/a.py": "x = 1\n"}, {"pkg/a.py": None, "pkg/b.py": "y = 1\nz = 2\n"})
    assert case.probe(diff) == Diff(2, 1, ("pkg/a.py", "pkg/b.py"))
    assert case.probe(builds) == BuildRun(True, 1)


def test_a_pure_rename_is_a_file_without_lines(patched: Make) -> None:
    case = patched({"pkg/old.py": "x = 1\n"}, diff=RENAME)
    assert case.probe(diff) == Diff(0, 0, ("pkg/new.py",))
    assert case.probe(builds) == BuildRun(True, 1)


def test_a_patch_that_does_not_apply_changes_nothing(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n"}, {})
    other = Patch.between({"a.py": "y = 1\n"}, {"a.py": "y = 2\n"})
    assert diff.probe(case.before, case.before, other, case.task) == Diff(0, 0, ())


def test_text_that_is_no_patch_is_refused(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n"}, {})
    with pytest.raises(PatchError):
        prepare(case.task, Patch("hello"))


def test_the_first_error_is_given_with_file_and_line(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n", "b.py": "x = 1\n"}, {"a.py": "x = 1\n", "b.py": "x = 1\ndef f(:\n"})
    build = case.probe(builds)
    assert (build.ok, build.checked_files) == (False, 1)
    assert build.error.startswith("b.py:2: SyntaxError: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n  y = 2\n", "a.py:2: IndentationError"),
        ("return 1\n", "a.py:1: SyntaxError: 'return' outside function"),
        ("x = '\udcff'\n", "a.py:1: SyntaxError"),
        ("(" * 500 + ")" * 500 + "\n", "a.py:1: SyntaxError"),
    ],
)
def test_errors_of_compilation(patched: Make, text: str, expected: str) -> None:
    assert patched({"a.py": "x = 1\n"}, {"a.py": text}).probe(builds).error.startswith(expected)


def test_null_bytes_do_not_compile(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n"}, {})
    after = case.before.with_files({"a.py": "x = 1\0\n"})
    build = builds.probe(case.before, after, Patch.between({"a.py": "x = 1\n"}, {"a.py": "x = 1\0\n"}), case.task)
    assert not build.ok
    assert "null bytes" in build.error


def test_text_in_another_declared_encoding_compiles(patched: Make) -> None:
    old = b"# -*- coding: latin-1 -*-\nx = '\xe9'\n"
    case = patched({"a.py": old}, {"a.py": old.decode("utf-8", "surrogateescape") + "y = 1\n"})
    assert case.probe(builds) == BuildRun(True, 1)


def test_files_that_did_not_compile_before_are_no_error(patched: Make) -> None:
    case = patched({"template.py": "x = {{ name }}:\n"}, {"template.py": "x = {{ other }}:\n"})
    assert case.probe(builds) == BuildRun(True, 1)


def test_warnings_of_the_compiler_stay_silent(patched: Make, recwarn: pytest.WarningsRecorder) -> None:
    assert patched({"a.py": "x = 1\n"}, {"a.py": "x = 1 is 1\ny = '\\d'\n"}).probe(builds).ok
    assert not recwarn.list


@pytest.mark.parametrize(
    "header",
    [
        "--- a/a.py\n+++ b/a.py.new\n",
        "--- a/a.py.orig\n+++ b/a.py\n",
        "--- a.py.orig\n+++ a.py\n",
        "--- i/a.py\n+++ w/a.py~\n",
    ],
)
def test_the_names_in_a_header_decide_nothing(patched: Make, header: str) -> None:
    """`git apply` changes the file that exists, whatever the other name of the header is."""
    old, new = "def f(x):\n    return 1\n", "def f(x):\n    os._exit(2 if x else 1)\n"
    plain = patched({"a.py": old}, {"a.py": new})
    case = patched(
        {"a.py": old}, diff=f"{header}@@ -1,2 +1,2 @@\n def f(x):\n-    return 1\n+    os._exit(2 if x else 1)\n"
    )
    for probe in (diff, complexity, readability, impact, lint, integrity, builds):
        assert case.probe(probe) == plain.probe(probe)
    assert case.probe(diff).files == ("a.py",)
    assert case.probe(integrity).signs
    assert footprint(case.task, case.patch) == footprint(plain.task, plain.patch)


def test_a_renamed_file_is_compared_with_the_file_before(patched: Make) -> None:
    old = "".join(f"line{number} = {number}\n" for number in range(9))
    case = patched({"a.py": old}, {"a.py": None, "b.py": old + "more = 1\n"})
    assert case.probe(diff) == Diff(1, 0, ("b.py",))


def test_probes_take_any_tree(tmp_path: Any) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    tree = Tree(tmp_path)
    patch = Patch.between({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"})
    task = Task(id="task", repository="repository", base=tree, instruction="", fail_to_pass=(), pass_to_pass=())
    assert diff.probe(tree, tree.with_files({"a.py": "x = 2\n"}), patch, task).changed_lines == 2
