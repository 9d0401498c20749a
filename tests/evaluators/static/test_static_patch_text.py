"""The text of a patch as evidence: the lines that it adds to the files, whatever its hunks repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.line_changes import changed_numbers
from regrade.datasets.patches import Patch
from regrade.evaluators.scoring.static_workers import _unended
from regrade.evaluators.static import patch_text
from regrade.rewards import ChangedLines, PatchText, Score, reward
from regrade.rewards.evidence import EvidenceSet

Make = Callable[..., Any]


@reward
def no_suppressions(patch: PatchText) -> Score:
    found = [f"{file}:{line}" for file, line, text in patch.added if "# noqa" in text or "print(" in text]
    return Score(1 / (1 + len(found)), why=", ".join(found) or "nothing suppressed, nothing printed")


def test_added_lines_are_those_of_the_files_without_protected_ones(patched: Make) -> None:
    case = patched(
        {"pkg/a.py": "x = 1\ny = 2\n", "tests/test_a.py": "def test_a(): pass\n"},
        {"pkg/a.py": "x = 1\ny = 3  # noqa\n", "tests/test_a.py": "def test_a(): print(1)\n"},
    )
    evidence = case.probe(patch_text)
    assert evidence.files == (ChangedLines("pkg/a.py", ((2, "y = 3  # noqa"),), ((2, "y = 2"),)),)
    assert evidence.added == (("pkg/a.py", 2, "y = 3  # noqa"),)
    assert "test_a(): print(1)" in evidence.text
    verdict = no_suppressions.evaluate(EvidenceSet({PatchText: evidence}))
    assert (verdict.value, verdict.parts[0].why) == (0.5, "pkg/a.py:2")


def test_a_line_that_a_hunk_repeats_is_not_added(patched: Make) -> None:
    diff = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-print(1)\n-x = 1\n+print(1)\n+x = 2\n"
    case = patched({"a.py": "print(1)\nx = 1\n"}, diff=diff)
    assert case.probe(patch_text).added == (("a.py", 2, "x = 2"),)
    assert patch_text.as_written(case.patch, {"a.py"}) == case.probe(patch_text)


def test_the_lines_of_a_copied_file_are_added(patched: Make) -> None:
    diff = "diff --git a/a.py b/b.py\nsimilarity index 100%\ncopy from a.py\ncopy to b.py\n"
    assert patched({"a.py": "print(1)\n"}, diff=diff).probe(patch_text).added == (("b.py", 1, "print(1)"),)


def test_a_patch_that_does_not_apply_has_its_text_and_no_lines(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n"}, {})
    other = Patch.between({"a.py": "y = 1\n"}, {"a.py": "y = 2\n"})
    assert patch_text.probe(case.before, case.before, other, case.task) == PatchText(other.text, ())


def test_text_that_is_no_patch_has_no_lines() -> None:
    assert patch_text.as_written(Patch("hello"), {"a.py"}) == PatchText("", ())


def test_files_that_are_not_read_in_time_have_the_lines_of_the_hunks(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n", "tests/test_a.py": "1\n"}, {"a.py": "x = 2\n", "tests/test_a.py": "2\n"})
    assert _unended(PatchText, case.patch, case.task, "not read within 20 s") == case.probe(patch_text)


LINES = st.lists(st.sampled_from(["a", "b", "c", "", "  d", "e # noqa"]), max_size=12).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)


@given(LINES, LINES)
def test_text_and_files_agree(before: str, after: str) -> None:
    """Without a tree, the added and removed lines turn the one text into the other as well."""
    patch = Patch.between({"a.py": before}, {"a.py": after})
    (changed,) = patch_text.as_written(patch, {"a.py"}).files or (ChangedLines("a.py", (), ()),)
    old, new = before.split("\n")[:-1], after.split("\n")[:-1]
    assert all(old[number - 1] == text for number, text in changed.removed)
    assert all(new[number - 1] == text for number, text in changed.added)
    removed, added = ({number for number, _ in side} for side in (changed.removed, changed.added))
    rest = [line for number, line in enumerate(old, 1) if number not in removed]
    assert rest == [line for number, line in enumerate(new, 1) if number not in added]
    assert len(added) >= len(new) - len(old)
    if not changed_numbers(old, new)[1]:
        assert not added


def test_every_line_of_a_new_file_is_added(patched: Make) -> None:
    case = patched({"a.py": "x = 1\n"}, {"b.py": "y = 1\nz = 2\n"})
    assert case.probe(patch_text).files == (ChangedLines("b.py", ((1, "y = 1"), (2, "z = 2")), ()),)
    assert patch_text.as_written(case.patch, {"b.py"}) == case.probe(patch_text)
