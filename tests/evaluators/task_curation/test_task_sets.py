"""Task sets from a tiny repository with a history: every source, the written folder, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.sources import list_tasks, load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.built_repository import BuiltRepository, built_repository
from regrade.evaluators.task_curation.chosen_tests import TestChoice
from regrade.evaluators.task_curation.task_set_building import BuiltSet, write_tasks
from regrade.evaluators.task_curation.task_sources import from_commits
from regrade.rewards.evidence import TestRun

AMOUNTS = '''\
def clamp(value, low, high):
    """The value, not below `low` and not above `high`."""
    if value < low:
        return low
    if value >= high:
        return high
    return value


class Account:
    def __init__(self):
        self.balance = 0
        self.history = []

    def deposit(self, amount):
        """Add an amount, which must be positive."""
        if amount <= 0:
            raise ValueError("not positive")
        self.balance += amount
        self.history.append(amount)
'''
PRICES = """\
from shop.amounts import clamp


def reduced(price, percent):
    return price - clamp(percent, 0, 100) * price // 100
"""
OLD_PRICES = PRICES.replace("clamp(percent, 0, 100)", "percent")
TEST_AMOUNTS = """\
import pytest
from shop.amounts import Account, clamp


def test_low():
    assert clamp(1, 2, 5) == 2


def test_between():
    assert clamp(3, 2, 5) == 3


def test_deposit():
    account = Account()
    account.deposit(3)
    assert (account.balance, account.history) == (3, [3])


def test_nothing():
    with pytest.raises(ValueError):
        Account().deposit(0)
"""
TEST_PRICES = """\
from shop.prices import reduced


def test_reduced():
    assert reduced(200, 10) == 180
"""
TEST_FREE = """

def test_free():
    assert reduced(200, 150) == 0
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits: a bug, its fix with a test, and a later secret."""
    folder = tmp_path_factory.mktemp("repositories") / "shop"
    write(
        folder,
        {
            "shop/__init__.py": "",
            "shop/amounts.py": AMOUNTS,
            "shop/prices.py": OLD_PRICES,
            "tests/test_amounts.py": TEST_AMOUNTS,
            "tests/test_prices.py": TEST_PRICES,
            "LICENSE": "MIT License\n",
        },
    )
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "A shop")
    write(folder, {"shop/prices.py": PRICES, "tests/test_prices.py": TEST_PRICES + TEST_FREE})
    git(folder, "commit", "--quiet", "-am", "Clamp the percentage to 100")
    write(folder, {"LATER.txt": "the secret of a later commit\n"})
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Later")
    return folder


@pytest.fixture(scope="module")
def built(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltRepository]:
    cache = tmp_path_factory.mktemp("cache")
    with Scorer(workers=1, cache=cache) as scorer:
        yield built_repository(shop, scorer, runs=1, limit=5, python=sys.executable, cache=cache)


@pytest.fixture(scope="module")
def made(built: BuiltRepository, tmp_path_factory: pytest.TempPathFactory) -> BuiltSet:
    return write_tasks([built], tmp_path_factory.mktemp("out") / "set")


@pytest.mark.slow
def test_every_source_gives_tasks_that_hold_when_they_are_read_again(built: BuiltRepository, made: BuiltSet) -> None:
    tasks = load_tasks(made.folder)
    assert {task.source for task in tasks} == {"commits", "mutation", "cross-module", "features"}
    assert [task.digest for task in tasks] == [task.digest for task in made.tasks]
    jobs = [(task, patch) for task in tasks for patch in (Patch(""), task.reference or Patch(""))]
    runs = [evidence.records[TestRun] for evidence in built.scorer.gather(jobs, [TestRun])]
    for task, unpatched, patched in zip(tasks, runs[::2], runs[1::2], strict=True):
        assert not unpatched.fixed, task.id
        assert not unpatched.broken, task.id
        assert patched.resolved, task.id
    assert [entry.id for entry in list_tasks(made.folder)] == [task.id for task in tasks]


@pytest.mark.slow
def test_a_commit_becomes_its_tests_on_the_code_before_it_without_its_history(
    built: BuiltRepository, made: BuiltSet
) -> None:
    (task,) = (task for task in load_tasks(made.folder) if task.source == "commits")
    assert task.fail_to_pass == ("tests/test_prices.py::test_free",)
    assert task.base.read("shop/prices.py") == OLD_PRICES
    assert task.base.read("tests/test_prices.py") == TEST_PRICES + TEST_FREE
    assert task.reference is not None
    assert [file.path for file in task.reference.files] == ["shop/prices.py"]
    assert "Clamp" not in task.instruction
    assert "test_free" in task.instruction
    names = {path.name for path in task.base.root.rglob("*")}
    assert not names & {".git", "LATER.txt"}
    assert [each.id for each in from_commits(built)] == [task.id]


@pytest.mark.slow
def test_a_commit_whose_files_are_lost_is_dropped_and_the_build_goes_on(shop: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "shop"
    shutil.copytree(shop, damaged)
    blob = git(damaged, "rev-parse", "HEAD~2:shop/prices.py").strip()
    (damaged / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        opened = built_repository(damaged, scorer, runs=1, limit=5, python=sys.executable, cache=tmp_path / "cache")
        assert list(from_commits(opened)) == []
        reasons = {reason for row in opened.yields.rows.values() for reason in row.dropped}
    assert reasons == {"the history is damaged: git can't read its files"}


@pytest.mark.slow
def test_the_folder_is_complete_or_absent_and_the_same_again(
    built: BuiltRepository, made: BuiltSet, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    (tmp_path / ".set.partial" / "suites").mkdir(parents=True)  # of a killed run
    again = write_tasks([built], out)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    for path in files:
        assert (out / path).read_bytes() == (made.folder / path).read_bytes(), path
    assert [task.id for task in again.tasks] == [task.id for task in made.tasks]
    card = (out / "README.md").read_text()
    assert card.startswith(f"# {len(made.tasks)} tasks from shop\n")
    assert "MIT License" in card
    splits = {line["split"] for line in map(json.loads, (out / "tasks.jsonl").read_text().splitlines())}
    assert sum(len(load_tasks(out, split)) for split in splits) == len(made.tasks)
    with pytest.raises(UserError, match="has no task in the split 'nothing'"):
        load_tasks(out, "nothing")

    def mine(repository: BuiltRepository) -> Iterator[Task]:
        for task in from_commits(repository):
            yield replace(task, id=f"mine/{task.id}")

    own = write_tasks([built], tmp_path / "own", sources=[mine])
    assert [task.id for task in load_tasks(own.folder)] == [f"mine/{each.id}" for each in from_commits(built)]
    (out / "own.txt").write_text("notes")
    with pytest.raises(UserError, match=r"contains 'own.txt', which is no part of a task set"):
        write_tasks([built], out)
    assert (out / "own.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({}, "no test was found"),
        ({"test_a.py": "import a\ndef test_a():\n    assert a.f(1) == 2"}, "none of the 1 tests passes in every run"),
        (
            {
                "test_a.py": "import a, urllib.request\ndef test_a():\n    a.f(urllib.request.urlopen('http://example.org'))"
            },
            "1 of 1 tests need the network",
        ),
        ({"test_a.py": "import a\nwhile a: pass"}, "they were stopped"),
        ({"test_a.py": "import a\ndef test_a(): assert a.f(1)"}, r"no task of .* is valid"),
    ],
    ids=["none", "failing", "network", "hanging", "weak"],
)
def test_a_suite_that_can_judge_nothing(tests: dict[str, str], message: str, tmp_path: Path) -> None:
    write(tmp_path / "repo", {"a.py": "def f(a):\n    return a\n", **tests})
    repo, out = tmp_path / "repo", tmp_path / "set"
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer, pytest.raises(UserError, match=message):
        build_alone(repo, out, scorer, tmp_path / "cache")
    assert not out.exists()


def build_alone(repo: Path, out: Path, scorer: Scorer, cache: Path) -> None:
    choice = TestChoice(time_limit=6)
    write_tasks([built_repository(repo, scorer, python=sys.executable, cache=cache, choice=choice, runs=1)], out)
