"""Differences of texts that someone wrote to stop a machine are found in bounded time, and apply."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrade.datasets import text_diffs
from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Tree

CPU_SECONDS = 40
"""Some times the limit: difflib takes hours for these texts."""
SHUFFLED = [f"line {number % 150}\n" for number in range(15_000)]
HOSTILE = {
    "shuffled": (SHUFFLED, random.Random(0).sample(SHUFFLED, len(SHUFFLED))),
    "interleaved": (
        [f"{number % 200}\n" for number in range(20_000)],
        [line for number in range(20_000) for line in (f"{number % 200}\n", f"new {number % 90}\n")],
    ),
    "blank": (["\n"] * 400_000, [*["\n"] * 200_000, "x\n", *["\n"] * 200_000, "y"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_have_a_patch_in_bounded_time_that_applies(tmp_path: Path, name: str) -> None:
    before, after = map("".join, HOSTILE[name])
    (tmp_path / "a.txt").write_text(before)
    began = time.process_time()
    patch = Patch.between({"a.txt": before}, {"a.txt": after})
    assert time.process_time() - began < CPU_SECONDS
    assert apply_patch(Tree(tmp_path), patch).read("a.txt") == after


TEXTS = st.lists(st.sampled_from("abc"), max_size=30).map("\n".join)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=TEXTS, after=TEXTS, more=TEXTS)
def test_both_ways_to_align_lines_give_patches_that_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, more: str
) -> None:
    before, after = f"{more}\nend\n{before}", f"{more}\nend\n{after}"
    (tmp_path / "a.txt").write_text(before)
    for most in (-1, text_diffs.MOST_STEPS):
        monkeypatch.setattr(text_diffs, "MOST_STEPS", most)
        patch = Patch.between({"a.txt": before}, {"a.txt": after})
        assert apply_patch(Tree(tmp_path), patch).read("a.txt") == after
        assert patch.is_empty == (before == after)


def test_a_change_at_both_ends_of_a_long_file_is_two_hunks() -> None:
    """Whichever way the lines are aligned."""
    before = [f"line {number}\n" for number in range(30_000)]
    after = ["first\n", *before[1:-1], "last\n"]
    patch = Patch.between({"a.txt": "".join(before)}, {"a.txt": "".join(after)})
    assert [(len(file.removed), len(file.added)) for file in patch.files] == [(2, 2)]
    assert patch.text.count("@@ -") == 2
