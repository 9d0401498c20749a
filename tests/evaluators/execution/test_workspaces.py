"""Strictly applied patches, preserved protected files, and folders with exactly one tree after any candidate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.execution.workspaces import prepare


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def created(path):
    """A patch that creates a file."""
    return f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"


def test_a_patch_changes_its_files_and_nothing_else(task, fix):
    workspace = prepare(task, fix)
    assert "return a + b" in workspace.after.read("calculator.py")
    assert workspace.before == task.base
    assert set(workspace.after.replaced) == {"calculator.py"}
    assert "return a - b" in (task.base.root / "calculator.py").read_text()


FORBIDDEN = (
    "open('tests/test_calculator.py', 'w')", "os.remove('tests/test_calculator.py')", "os.rename('tests', 'others')",
    "os.replace('calculator.py', 'tests/test_calculator.py')", "os.chmod('tests/test_calculator.py', 0o777)",
)  # fmt: skip
ALLOWED = ("open('calculator.py', 'a')", "open('tests/new.py', 'x')", "os.mkdir('made')")
AS_ANOTHER = """
import json, os, sys
os.chdir(sys.argv[1])
os.setgid(4242)
os.setuid(4242)
works = []
for statement in sys.argv[2:]:
    try:
        exec(statement)
        works.append(statement)
    except PermissionError:
        pass
print(json.dumps(works))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_not_change_or_replace_protected_files(task, tmp_path):
    """Runs as another user, as candidates do in a sandbox started by root."""
    folder = Folder(tmp_path / "folder")
    for _ in range(2):  # rewritten files are protected as well
        folder.write_tree(task.base, task.suite.protected_files)
        command = [sys.executable, "-c", AS_ANOTHER, str(folder.path), *FORBIDDEN, *ALLOWED]
        works = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert works == list(ALLOWED)
        assert (folder.path / "tests" / "test_calculator.py").read_text() == task.base.read("tests/test_calculator.py")


def test_the_empty_patch_changes_nothing(task):
    assert prepare(task, Patch("")).after == task.base


def test_files_are_added_and_deleted(task):
    before = {"README": task.base.read("README")}
    after = prepare(task, Patch.between(before, {"package/new.py": "x = 1\n"})).after
    assert after.read("package/new.py") == "x = 1\n"
    assert "README" not in after.paths()
    with pytest.raises(FileNotFoundError):
        after.read("README")


def test_a_plain_diff_without_prefixes_applies(task):
    text = "--- README\n+++ README\n@@ -1 +1 @@\n-A calculator.\n+Calculates.\n"
    assert prepare(task, Patch(text)).after.read("README") == "Calculates.\n"


def test_a_line_that_looks_like_a_header_is_none(task, tmp_path):
    text = "select 1;\n-- a/note\n++ b\nselect 2;\n"
    (tmp_path / "q.sql").write_text(text)
    patch = Patch.between({"q.sql": text}, {"q.sql": "select 1;\n-- c\nselect 2;\n"})
    assert "\n--- a/note\n" in patch.text
    assert prepare(replace(task, base=Tree(tmp_path)), patch).after.read("q.sql") == "select 1;\n-- c\nselect 2;\n"


@pytest.mark.parametrize(
    "name", ["f\u00f6.py", 'a "b" c.py', "tab\there.py", "back\\slash.py", "\u65e5\u672c/\u8a9e.py", "plain.py"]
)
def test_names_that_git_writes_in_quotes_are_read_as_they_are(task, tmp_path, name):
    git = ("git", "-c", "user.name=n", "-c", "user.email=e")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x = 1\n")
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "add", "-A"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "base"], cwd=tmp_path, check=True)
    (tmp_path / name).write_text("x = 2\n")
    text = subprocess.run([*git, "diff"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert (text.count('"a/') > 0) == (name != "plain.py")
    subprocess.run([*git, "checkout", "-q", "."], cwd=tmp_path, check=True)
    patch = Patch(text)
    assert [(file.path, file.old_path) for file in patch.files] == [(name, name)]
    assert prepare(replace(task, base=Tree(tmp_path)), patch).after.read(name) == "x = 2\n"


def test_quotes_hide_no_name(task):
    hidden = '--- /dev/null\n+++ "b/tests/\\143onftest.py"\n@@ -0,0 +1 @@\n+x = 1\n'
    assert Patch(hidden).files[0].path == "tests/conftest.py"
    assert prepare(task, Patch(hidden)).ignored == ("tests/conftest.py",)
    with pytest.raises(PatchError, match="leaves the repository"):
        _ = Patch(hidden.replace("tests/", "\\056\\056/")).files


def test_tests_and_configuration_stay_pristine(task):
    path = "tests/test_calculator.py"
    files = {path: task.base.read(path)}
    changed = {
        path: "def test_add(): pass\n",
        "tests/conftest.py": "collect_ignore = ['test_calculator.py']\n",
        "a.py": "\n",
    }
    workspace = prepare(task, Patch.between(files, changed))
    assert workspace.ignored == ("tests/conftest.py", path)
    assert workspace.after.read(path) == files[path]
    assert workspace.after.paths() == ["README", "a.py", "calculator.py", path]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no diff at all", "unified diff"),
        ("--- a/calculator.py\n+++ b/calculator.py\n@@ -1 +1 @@\n-other text\n+text\n", "does not apply"),
        ("--- a/gone.py\n+++ b/gone.py\n@@ -1 +1 @@\n-x\n+y\n", "does not apply"),
        ("--- /dev/null\n+++ b/../outside.py\n@@ -0,0 +1 @@\n+x\n", "leaves the repository"),
        ("--- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+x\n", "leaves the repository"),
        ("--- /dev/null\n+++ b/README\n@@ -0,0 +1 @@\n+x\n", "does not apply"),
        (
            "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+/etc/passwd\n"
            "\\ No newline at end of file\n",
            "a link",
        ),
        (created("a" * 300), "too long"),
        (created("d/" * 600 + "x"), "too long"),
        (created("calculator.py/x.py"), "'calculator.py' is a file, not a folder"),
        (created("tests"), "a folder of that name"),
        ("--- a/calculator.py\r\n+++ b/calculator.py\r\n@@ -1 +1 @@\r\n-x\r\n+y\r\n", "patch failed: calculator.py:1"),
        ("diff --git a/sub b/sub\nnew file mode 160000\n" + created("sub"), "submodule"),
        (created("x") + "+" * (5 << 20), "the patch has 5.0 MB; the limit is 4 MB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_patch_that_does_not_apply_is_refused_with_the_reason(task, text, reason):
    with pytest.raises(PatchError, match=reason):
        prepare(task, Patch(text))


def test_a_patch_may_not_follow_a_link_out_of_the_repository(task, tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    (task.base.root / "link").symlink_to(tmp_path)
    with pytest.raises(PatchError):
        prepare(task, Patch("--- a/link/secret\n+++ b/link/secret\n@@ -1 +1 @@\n-secret\n+public\n"))
    assert (tmp_path / "secret").read_text() == "secret\n"


def test_text_may_not_come_as_a_binary_patch(task, tmp_path):
    """Checks read its lines; git treats a file as binary if its attributes demand it."""
    for path, content in (("calculator.py", task.base.read("calculator.py")), (".gitattributes", "*.py binary\n")):
        (tmp_path / path).write_text(content)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "calculator.py").write_text("cheat = 1\n")
    text = subprocess.run([*git, "diff", "--binary"], check=True, capture_output=True, text=True).stdout
    assert "GIT binary patch" in text
    with pytest.raises(PatchError, match="binary patch"):
        prepare(task, Patch(text))


def test_a_link_in_the_repository_can_not_be_patched(task):
    (task.base.root / "link.py").symlink_to("calculator.py")
    with pytest.raises(PatchError, match="is a link"):
        prepare(task, Patch("--- a/link.py\n+++ b/link.py\n@@ -1 +1 @@\n-calculator.py\n+x = 1\n"))


def test_a_bad_byte_survives(task):
    (task.base.root / "latin.txt").write_bytes(b"caf\xe9\nline\n")
    text = "--- a/latin.txt\n+++ b/latin.txt\n@@ -1,2 +1,2 @@\n caf\udce9\n-line\n+other\n"
    after = prepare(task, Patch(text)).after
    assert after.read("latin.txt").encode("utf-8", "surrogateescape") == b"caf\xe9\nother\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("test_a.py", True), ("a/b/test_a.py", True), ("tests/data/x.json", True), ("a/tests/x", True), ("conftest.py", True),
        ("a/conftest.py", True), ("setup.cfg", True), ("a/setup.cfg", False), ("latest/x.py", False), ("a/b_test.py", True),
        ("testing.py", False),
    ],
)  # fmt: skip
def test_the_default_globs_protect_tests_and_configuration(path, expected):
    assert TestSuite().protects(path) is expected


def test_a_folder_contains_exactly_the_tree_written_last(task, tmp_path):
    folder = Folder(tmp_path / "folder")
    changed = task.base.with_files({"calculator.py": "x = 1\n", "deep/er/new.py": "y = 2\n"}).without(["README"])
    for tree in (task.base, changed, task.base, changed.with_files({"README": "back\n"}), task.base):
        folder.write_tree(tree)
        assert contents(folder.path) == {path: tree.read(path).encode() for path in tree.paths()}


def test_a_folder_without_files_is_gone(task, tmp_path):
    folder = Folder(tmp_path / "folder")
    folder.write_tree(task.base.with_files({"a/b/new.py": ""}))
    folder.write_tree(task.base.without(["tests/test_calculator.py"]))
    assert not (folder.path / "a").exists()
    assert (folder.path / "tests").exists() == any(
        path.startswith("tests/") for path in task.base.without(["tests/test_calculator.py"]).paths()
    )
    folder.write_tree(task.base)
    assert contents(folder.path) == {path: task.base.read(path).encode() for path in task.base.paths()}


def test_all_changes_of_a_candidate_to_the_folder_are_undone(task, tmp_path):
    folder = Folder(tmp_path / "folder")
    folder.write_tree(task.base)
    expected = contents(folder.path)
    status = (folder.path / "calculator.py").stat()
    (folder.path / "calculator.py").write_text("y" * status.st_size)
    os.utime(folder.path / "calculator.py", ns=(status.st_atime_ns, status.st_mtime_ns))  # looks untouched
    (folder.path / "README").unlink()
    (folder.path / "README").mkdir()
    (folder.path / "README" / "inside").write_text("x")
    (folder.path / "left" / "behind").mkdir(parents=True)
    (folder.path / "left" / "behind" / "x").write_text("x")
    (folder.path / "left").chmod(0o000)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "test_calculator.py").write_text("outside")
    (folder.path / "tests" / "test_calculator.py").unlink()
    (folder.path / "tests").rmdir()
    (folder.path / "tests").symlink_to(tmp_path / "outside")
    folder.path.chmod(0o500)
    folder.write_tree(task.base)
    assert contents(folder.path) == expected
    assert not (folder.path / "tests").is_symlink()
    assert (tmp_path / "outside" / "test_calculator.py").read_text() == "outside"


def test_the_folder_of_an_added_file_does_not_stay(task, tmp_path):
    folder = Folder(tmp_path / "folder")
    folder.write_tree(task.base)
    folders = {path for path in folder.path.rglob("*") if path.is_dir()}
    folder.write_tree(task.base.with_files({"numpy/x/y.txt": "x\n", "tests/more/z.py": "z = 1\n"}))
    folder.write_tree(task.base)
    assert {path for path in folder.path.rglob("*") if path.is_dir()} == folders


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b/c", "b/d/e", "d/e/f", "d/g", "h/a"]), st.text("xy", max_size=2)),
        min_size=2,
        max_size=5,
    )
)
@settings(deadline=None, max_examples=30)
def test_any_tree_after_any_other_is_as_in_a_new_folder(states):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "root")
        for name in ("b/c", "d/e/f", "h/a"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("base")
        used, number = Folder(Path(place, "used")), 0
        for number, state in enumerate(states):
            tree = Tree(root).with_files(state).without([path for path in ("b/c", "d/e/f") if path not in state])
            used.write_tree(tree)
            fresh = Folder(Path(place, f"fresh{number}"))
            fresh.write_tree(tree)
            assert looks(used.path) == looks(fresh.path)


def looks(folder):
    """Everything below a folder, with what programs see of it: kind, mode, content, modification time, attributes."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mtime if path.is_file() else 0,
            os.listxattr(path),
        )
        for path in folder.rglob("*")
    }


def test_what_a_candidate_read_or_marked_does_not_show(task, tmp_path):
    folder = Folder(tmp_path / "folder")
    folder.write_tree(task.base)
    paths = ("", "tests", "README")
    for path in paths:
        try:
            os.setxattr(folder.path / path, "user.left", b"42")
        except OSError:
            pytest.skip("this file system has no extended attributes")
    os.utime(folder.path, (42, 42))
    os.utime(folder.path / "tests", (42, 42))
    os.utime(folder.path / "calculator.py", ns=(42, (folder.path / "calculator.py").stat().st_mtime_ns))
    (folder.path / "tests" / "test_calculator.py").read_bytes()
    folder.write_tree(task.base)
    for path in paths:
        assert os.listxattr(folder.path / path) == []
    for path in (folder.path, *folder.path.rglob("*")):
        status = path.stat()
        assert status.st_mtime != 42
        assert path.is_dir() or status.st_atime_ns == status.st_mtime_ns, path


def test_byte_code_is_distinguished_by_the_times_of_files(task, tmp_path):
    folder = Folder(tmp_path / "folder")
    folder.write_tree(task.base)
    pristine = (folder.path / "calculator.py").stat().st_mtime
    same_size = task.base.read("calculator.py").replace("a - b", "a + b")
    folder.write_tree(task.base.with_files({"calculator.py": same_size}))
    assert (folder.path / "calculator.py").stat().st_mtime != pristine
    folder.write_tree(task.base)
    assert (folder.path / "calculator.py").stat().st_mtime == pristine


def test_another_root_replaces_the_first(task, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.py").write_text("x = 1\n")
    folder = Folder(tmp_path / "folder")
    folder.write_tree(task.base)
    folder.write_tree(Tree(other))
    assert contents(folder.path) == {"x.py": b"x = 1\n"}
