"""The digest of a reward's source changes with what the reward computes, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.rewards.algebra import own_code
from regrade.rewards.loading import load_reward

FILE = """\
import re
from regrade.rewards import Diff, Score, reward, tests

MOST = 3
PATTERN = re.compile("x")


def share(count):
    return min(1.0, count / MOST)


@reward
def few(diff: Diff) -> Score:
    return Score(share(len(diff.files)))


@reward
def other(diff: Diff) -> Score:
    return Score(1.0)


both = 0.5 * tests + 0.5 * few
"""


def digests(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [code.source for code in own_code(load_reward(f"{path}:both"))]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("before", "after"),
    [("MOST = 3", "MOST = 4"), ("min(1.0,", "min(0.5,"), ("share(len(diff.files))", "share(2)")],
)
def test_what_a_reward_uses_counts(tmp_path: Path, before: str, after: str) -> None:
    (first,) = digests(tmp_path / "own.py", FILE)
    (second,) = digests(tmp_path / "own.py", FILE.replace(before, after))
    assert first != second
    assert len(first) == len(second) == 16


@pytest.mark.parametrize(
    ("before", "after"), [("MOST = 3", "MOST = 3  # files"), ("Score(1.0)", "Score(0.0)"), ('"x"', '"y"')]
)
def test_what_it_does_not_use_counts_nothing(tmp_path: Path, before: str, after: str) -> None:
    assert digests(tmp_path / "own.py", FILE) == digests(tmp_path / "own.py", FILE.replace(before, after))


def test_a_reward_without_own_code_has_none() -> None:
    assert not list(own_code(load_reward("default")))
