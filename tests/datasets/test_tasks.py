"""The digest of a tree: all that is laid into a workspace changes it, and nothing else does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from regrade.datasets.tasks import Tree

FILES = {"run.sh": "echo\n", "subject.py": "x = 1\n"}


def tree_of(folder: Path, files: dict[str, str]) -> Tree:
    folder.mkdir(parents=True)
    for path, text in files.items():
        (folder / path).write_text(text)
    return Tree(folder)


def test_a_file_that_is_executable_is_another_file(tmp_path):
    plain, other = tree_of(tmp_path / "plain", FILES), tree_of(tmp_path / "executable", FILES)
    (other.root / "run.sh").chmod(0o755)
    assert plain.digest != other.digest
    # Written over, it keeps its mode in a workspace; so the two stay apart, and each is equal to itself.
    written = {"run.sh": "true\n"}
    assert plain.with_files(written).digest != other.with_files(written).digest
    assert other.with_files({"run.sh": FILES["run.sh"]}).digest == other.digest
    assert plain.without(["run.sh"]).digest == other.without(["run.sh"]).digest


def test_the_mode_of_a_file_behind_a_link_counts_where_it_is_written_over(tmp_path):
    tree = tree_of(tmp_path / "tree", FILES)
    (tmp_path / "target").write_text("")
    (tree.root / "link").symlink_to(tmp_path / "target")
    before = tree.with_files({"link": ""}).digest
    (tmp_path / "target").chmod(0o755)
    assert tree.with_files({"link": ""}).digest != before


@pytest.mark.parametrize(("mode", "same"), [(0o600, True), (0o666, True), (0o644, True), (0o744, False)])
def test_what_is_not_laid_into_workspaces_does_not_count(tmp_path, mode, same):
    tree = tree_of(tmp_path / "tree", FILES)
    before = tree.digest
    (tree.root / "run.sh").chmod(mode)
    assert (Tree(tree.root).digest == before) is same


def test_a_name_with_a_line_in_it_is_not_two_files(tmp_path):
    folder = tree_of(tmp_path / "tree", {"a": "1\n", "b": "2\n"}).root
    name = f"a\n{hashlib.sha256(b'2').hexdigest()} b"
    two, one = Tree(folder, {"b": "2"}), Tree(folder, {name: "1\n"}, frozenset({"a", "b"}))
    assert two.digest != one.digest
    (folder / "new\nline").write_text("")  # of a real file as well
    (folder / "a").chmod(0o755)
    digests = {Tree(folder, replaced).digest for replaced in ({}, {"new\nline": "x"}, {"a": "x"})}
    assert len({*digests, one.digest, two.digest}) == 5


def test_trees_of_plain_files_have_the_digests_that_they_always_had(tmp_path):
    # What is stored of earlier runs, the ready-made tasks' among it, is found by them.
    assert tree_of(tmp_path / "tree", FILES).digest == hashlib.sha256(
        "".join(f"{hashlib.sha256(text.encode()).hexdigest()} {path}\n" for path, text in FILES.items()).encode()
    ).hexdigest()  # fmt: skip
