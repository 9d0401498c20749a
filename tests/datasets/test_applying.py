"""Patches applied in memory give what git would give, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.applying import apply_patch
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


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match=r"no file x\.txt"):
        apply_patch(Tree(tmp_path), Patch.between({"x.txt": "one\n"}, {"x.txt": "two\n"}))


def test_an_existing_file_is_not_created_again(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one\n")
    with pytest.raises(PatchError, match="exists"):
        apply_patch(Tree(tmp_path), Patch.between({}, {"x.txt": "two\n"}))
