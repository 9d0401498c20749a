"""A patch gives what git gives: the same bytes, and the same patches refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from regrade.datasets.applying import apply_patch, notes_on
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Tree

TEXTS = st.lists(st.sampled_from(["a", "b", "", "  c", "-d", "+e", "\\f"]), max_size=12).map("\n".join)


@given(before=TEXTS, after=TEXTS)
def test_a_patch_between_two_texts_turns_one_into_the_other(before: str, after: str) -> None:
    tree = Tree(Path(__file__).parent, {"x.txt": before})
    assert apply_patch(tree, Patch.between({"x.txt": before}, {"x.txt": after})).read("x.txt") == after


def test_files_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("one\n")
    patch = Patch.between({"old.txt": "one\n"}, {"new.txt": "two\n"})
    after = apply_patch(Tree(tmp_path), patch)
    assert after.paths() == ["new.txt"]
    assert after.read("new.txt") == "two\n"
    assert (tmp_path / "old.txt").read_text() == "one\n"


@pytest.mark.parametrize("before", ["other\n", "", "zero\none\n"])
def test_a_hunk_that_does_not_match_is_refused(tmp_path: Path, before: str) -> None:
    (tmp_path / "x.txt").write_text(before)
    with pytest.raises(PatchError, match=r"x\.txt"):
        apply_patch(Tree(tmp_path), Patch.between({"x.txt": "one\n"}, {"x.txt": "two\n"}))


@pytest.mark.parametrize("line", ["1", "2", "3", "5", "6", "7"])
def test_every_line_of_context_must_match(tmp_path: Path, line: str) -> None:
    before = "1\n2\n3\n4\n5\n6\n7\n"
    patch = Patch.between({"x.txt": before}, {"x.txt": before.replace("4", "four")})
    (tmp_path / "x.txt").write_text(before.replace(line, "other"))
    with pytest.raises(PatchError, match=r"x\.txt: patch does not apply"):
        apply_patch(Tree(tmp_path), patch)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match=r"x\.txt: No such file"):
        apply_patch(Tree(tmp_path), Patch.between({"x.txt": "one\n"}, {"x.txt": "two\n"}))


def test_an_existing_file_is_not_created_again(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\n")
    with pytest.raises(PatchError, match="already exists"):
        apply_patch(Tree(tmp_path), Patch.between({}, {"x.txt": "two\n"}))


Files = dict[str, bytes]

NAMES = (
    "x.txt", "deep/er/y.py", "deep/z", "two words.txt", "f\u00f6.py", "\u65e5\u672c/\u8a9e.py", 'a "b" c', "tab\there",
    "back\\slash", "node", "node/leaf",
)  # fmt: skip
LINES = (
    "a", "b", "c", "", "  c", "-d", "+e", "\\ f", "-- a/x.txt", "++ b", "@@ -1 +1 @@", "g\r", "h\r", "caf\u00e9", "\f",
)  # fmt: skip
OPTIONS = ((), ("-U0",), ("-U1",), ("--no-renames",), ("-M30%",), ("--binary",), ("--text",), ("--no-prefix",))
"""Options of `git diff`."""


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.sampled_from(LINES), max_size=14))
    end = draw(st.sampled_from(["\n", "\r\n", ""]))
    return ("\n".join(lines) + end).encode() if lines else b""


@st.composite
def edits(draw: st.DrawFn, old: bytes) -> bytes:
    """Most of the lines as they are."""
    lines = old.split(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(lines)))
        new = [line.encode() for line in draw(st.lists(st.sampled_from(LINES), max_size=2))]
        lines[first : first + draw(st.integers(0, 2))] = new
    return b"\n".join(lines)


@st.composite
def changes(draw: st.DrawFn, files: Files) -> Files:
    """The files with some edited, deleted, renamed or created."""
    changed = {}
    for path, content in files.items():
        act = draw(st.sampled_from(["keep", "edit", "edit", "delete", "rename", "rename and edit"]))
        name = draw(st.sampled_from(NAMES)) if "rename" in act else path
        if act != "delete":
            changed[name] = draw(edits(content)) if "edit" in act else content
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=1)):
        changed[name] = draw(contents())
    return possible(changed)


def possible(files: Files) -> Files:
    """No file where a folder must be."""
    return {path: content for path, content in files.items() if path != "node" or "node/leaf" not in files}


def git(
    *arguments: str, folder: Path, index: Path | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    environment = {
        "PATH": os.environ["PATH"], "HOME": os.devnull, "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }  # fmt: skip
    if index is not None:
        environment |= {"GIT_DIR": str(index), "GIT_WORK_TREE": str(folder)}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, input=given, capture_output=True, check=False
    )


def written(folder: Path, files: Mapping[str, bytes], executable: frozenset[str] = frozenset()) -> Path:
    folder.mkdir()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        if path in executable:
            (folder / path).chmod(0o755)
    return folder


def read(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    assert git("init", "-q", "--bare", ".", folder=folder).returncode == 0
    return folder


def difference(repository: Path, before: Path, after: Path, options: tuple[str, ...]) -> str:
    trees = []
    for folder in (before, after):
        assert git("add", "--all", folder=folder, index=repository).returncode == 0
        trees.append(git("write-tree", folder=folder, index=repository).stdout.decode().strip())
    return git("diff", "-M", *options, *trees, folder=after, index=repository).stdout.decode("utf-8", "surrogateescape")


@st.composite
def cases(draw: st.DrawFn) -> tuple[Files, Files, frozenset[str], Files]:
    """Files before and after a change, those of them that are executable after it, and the files to patch."""
    before = possible(draw(st.dictionaries(st.sampled_from(NAMES), contents(), min_size=1, max_size=4)))
    after = draw(changes(before))
    drifted = draw(st.sampled_from(["as before", "as before", "moved", "edited", "changed"]))
    base = dict(before)
    if drifted == "moved":
        base = {path: b"one\ntwo\n" + content for path, content in before.items()}
    elif drifted == "edited":
        base = {path: draw(edits(content)) for path, content in before.items()}
    elif drifted == "changed":
        base = draw(changes(before))
    if "node/leaf" in base:
        after.pop("node", None)  # git puts a file in the place of a folder that its patch empties; we refuse it
    executable = draw(st.frozensets(st.sampled_from(sorted(after)), max_size=1)) if after else frozenset()
    return before, after, executable, base


def is_without_context(patch: Patch) -> bool:
    """Such as the output of `git diff -U0`, which git applies only with --unidiff-zero."""
    return not patch.plain.has_context


@given(case=cases(), options=st.sampled_from(OPTIONS), between=st.booleans(), data=st.data())
def test_any_patch_gives_what_git_gives_in_a_plain_folder(
    repository: Path,
    case: tuple[Files, Files, frozenset[str], Files],
    options: tuple[str, ...],
    between: bool,
    data: st.DataObject,
) -> None:
    before, after, executable, base = case
    names = before.keys() | after.keys()
    # `Patch.between` puts no name in quotes.
    between = between and "tab\there" not in names and not any('"' in path for path in names)
    if any(" " in path for path in names):
        options = tuple(option for option in options if option != "--no-prefix")  # these, `Patch` doesn't read
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if between:
            texts = [{path: content.decode() for path, content in files.items()} for files in (before, after)]
            patch = Patch.between(*texts)
        else:
            folders = written(place / "before", before), written(place / "after", after, executable)
            patch = Patch(difference(repository, *folders, options))
        assume(not patch.is_empty)
        plain = written(place / "plain", base)
        level = "-p0" if options == ("--no-prefix",) and not between else "-p1"
        # Without a prefix and without a file of the tree, the first folder counts as the prefix, as for git itself.
        changed = {path for path in names if before.get(path) != after.get(path)}
        assume(level == "-p1" or not changed.isdisjoint(base))
        text = patch.text.encode("utf-8", "surrogateescape")
        done = git("apply", "--whitespace=nowarn", level, "-", folder=plain, given=text)
        event("refused" if done.returncode else "applied")
        replaced = data.draw(st.sets(st.sampled_from(sorted(base)))) if base else set()
        lacking = {"deep/z": b"gone\n"} if "deep/z" not in base else {}
        root = written(place / "root", lacking | {path: base[path] for path in base.keys() - replaced})
        tree = Tree(root, {path: base[path].decode() for path in replaced}, frozenset(lacking))
        if done.returncode and is_without_context(patch):
            with contextlib.suppress(PatchError):
                patched = apply_patch(tree, patch)
                done = git("apply", "--whitespace=nowarn", "--unidiff-zero", level, "-", folder=plain, given=text)
                assert {path: patched.read(path).encode() for path in patched.paths()} == read(plain)
        elif done.returncode:
            with pytest.raises(PatchError):
                apply_patch(tree, patch)
        else:
            patched = apply_patch(tree, patch)
            assert {path: patched.read(path).encode() for path in patched.paths()} == read(plain)


@pytest.mark.parametrize("target", ["pkg.py", "folder", "nowhere"])
def test_nothing_is_created_below_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "pkg.py").write_text("x = 1\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(PatchError, match=r"'link' is a link"):
        apply_patch(Tree(tmp_path), Patch.between({}, {"link/x.py": "y = 2\n"}))


def test_a_file_without_a_name_is_refused() -> None:
    with pytest.raises(PatchError, match=r"/dev/null on both sides"):
        _ = Patch("--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+x\n").files


def test_lines_beyond_the_counts_of_the_last_hunk_are_applied_and_noted(tmp_path):
    """`git apply` ignores them, with exit code 0."""
    (tmp_path / "a.py").write_text("one\ntwo\nthree\nfour\n")
    text = "--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,4 @@\n one\n+more\n two\n three\n-four\n+4\n"
    tree = Tree(tmp_path)
    assert apply_patch(tree, Patch(text)).read("a.py") == "one\nmore\ntwo\nthree\n4\n"
    (note,) = notes_on(tree, Patch(text))
    assert "goes on for 2 lines beyond its header's counts" in note
    lost = text.replace("-four\n", "-fifth\n")
    with pytest.raises(PatchError, match="does not apply"):
        apply_patch(tree, Patch(lost))
