"""The size of a patch, of unusual patches too; and byte-compilation of the changed files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static import builds, diff
from regrade.evaluators.static.files import patched_text
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
    case = patched({"pkg/a.py": "x = 1\n"}, {"pkg/a.py": None, "pkg/b.py": "x = 1\ny = 2\n"})
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
        diff.probe(case.before, case.after, Patch("hello"), case.task)


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


def test_a_text_is_rebuilt_from_its_hunks_alone(patched: Make) -> None:
    old = "".join(f"line {number}\n" for number in range(1, 40))
    new = old.replace("line 3\n", "").replace("line 20\n", "line 20\nmore\nand more\n").replace("line 39\n", "end")
    case = patched({"tests/test_a.py": old}, {"tests/test_a.py": new})
    assert case.after.read("tests/test_a.py") == old, "tests stay pristine"
    assert patched_text(old, case.patch.files[0]).rstrip("\n") == new


def test_probes_take_any_tree(tmp_path: Any) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    tree = Tree(tmp_path)
    patch = Patch.between({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"})
    task = Task(id="task", repository="repository", base=tree, instruction="", fail_to_pass=(), pass_to_pass=())
    assert diff.probe(tree, tree.with_files({"a.py": "x = 2\n"}), patch, task).changed_lines == 2
