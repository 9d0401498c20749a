"""The folder in which a contract's program runs: a repository with a bug, its task, and two rewards."""

from __future__ import annotations

import json
import os
from pathlib import Path

LIBRARY = """\
def second(items):
    if len(items) < 2:
        return None
    return items[2]


def double(number):
    return number * 2
"""
TESTS = """\
from library import double, second


def test_second():
    assert second([1, 2, 3]) == 2


def test_second_of_too_few():
    assert second([1]) is None


def test_double():
    assert double(3) == 6
"""
REWARDS = """\
from regrade.policy_training import TrainingReward
from regrade.rewards import style, tests

plain = 0.9 * tests + 0.1 * style
priced = TrainingReward(reward=plain, malformed=-0.6, no_op=0.0, breakage=-1.2)
"""
TASK = {
    "id": "second",
    "instruction": "second() returns the third item.",
    "repository": "library",
    "fail_to_pass": ["test_library.py::test_second"],
    "pass_to_pass": ["test_library.py::test_second_of_too_few", "test_library.py::test_double"],
}


def variables(folder: Path, reward: str = "plain") -> dict[str, str]:
    """Write the files, and return the environment of a process that reads them."""
    repository = folder / "library"
    repository.mkdir(exist_ok=True)
    (repository / "library.py").write_text(LIBRARY)
    (repository / "test_library.py").write_text(TESTS)
    (folder / "tasks.jsonl").write_text(json.dumps(TASK) + "\n")
    (folder / "rewards.py").write_text(REWARDS)
    return {
        **os.environ,
        "REGRADE_TASKS": str(folder / "tasks.jsonl"),
        "REGRADE_REWARD": f"{folder / 'rewards.py'}:{reward}",
        "REGRADE_WORKERS": "1",
    }
