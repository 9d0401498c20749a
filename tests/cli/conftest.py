"""A small repository with a bug, a patch that mends it, and the command line over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regrade.cli.main import app
from regrade.datasets.patches import Patch

BUGGY = "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return a * 2\n"
TESTS = (
    "from calc import add, double\n\n\n"
    "def test_add():\n    assert add(1, 2) == 3\n\n\n"
    "def test_double():\n    assert double(2) == 4\n"
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def is_refusal(self, *words: str) -> bool:
        """It ended with code 2, nothing on stdout, and one line on stderr that holds the words."""
        assert self.code == 2, (self.out, self.err)
        assert self.out == ""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        for word in words:
            assert word in lines[0], lines[0]
        return True


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests here: equal repositories are measured once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def regrade(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.setenv("REGRADE_CACHE", str(cache))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def run(*arguments: str | Path, text: str | None = None) -> Outcome:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A package whose `add` subtracts, and its tests."""
    root = tmp_path / "repo"
    (root / "calc").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "calc" / "__init__.py").write_text(BUGGY)
    (root / "tests" / "test_calc.py").write_text(TESTS)
    return root


@pytest.fixture
def diff(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a patch file that replaces some text of the package by another."""

    def make(old: str, new: str) -> Path:
        name = "calc/__init__.py"
        path = tmp_path / f"{len(list(tmp_path.glob('*.diff')))}.diff"
        path.write_text(Patch.between({name: BUGGY}, {name: BUGGY.replace(old, new)}).text)
        return path

    return make


@pytest.fixture
def fix(diff: Callable[[str, str], Path]) -> Path:
    """The patch that mends `add`."""
    return diff("a - b", "a + b")
