"""Fixtures: a small repository with a bug, a patch that fixes it, and the `regrade` command."""

from __future__ import annotations

import json
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

PLANTED = {"add": ("a + b", "a - b"), "double": ("a * 2", "a * 3"), "half": ("a / 2", "a / 4"), "negate": ("-a", "+a")}
LIBRARY = """\
def add(a, b):
    return a + b


def double(a):
    return a * 2


def half(a):
    return a / 2


def negate(a):
    return -a
"""
LIBRARY_TESTS = """\
from calc import add, double, half, negate


def test_add():
    assert add(1, 2) == 3


def test_double():
    assert double(2) == 4


def test_half():
    assert half(4) == 2


def test_negate():
    assert negate(1) == -1
"""


@pytest.fixture(autouse=True)
def without_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output as for a pipe: pytest-xdist sets COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def is_refusal(self, *words: str) -> bool:
        """Exit code 2, an empty stdout, and a single error line at the end of stderr that contains the words."""
        assert self.code == 2, (self.out, self.err)
        assert self.out == ""
        lines = self.err.strip().splitlines()[-1:]
        assert self.err.count("error: ") == 1, self.err
        assert lines[0].startswith("error: ")
        for word in words:
            assert word in lines[0], lines[0]
        return True


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests of this folder: the tests of equal repositories run once."""
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
    """A package with its tests; its `add` subtracts."""
    root = tmp_path / "repo"
    (root / "calc").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "calc" / "__init__.py").write_text(BUGGY)
    (root / "tests" / "test_calc.py").write_text(TESTS)
    return root


@pytest.fixture
def diff(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a patch file that replaces a text of the package."""

    def make(old: str, new: str) -> Path:
        name = "calc/__init__.py"
        path = tmp_path / f"{len(list(tmp_path.glob('*.diff')))}.diff"
        path.write_text(Patch.between({name: BUGGY}, {name: BUGGY.replace(old, new)}).text)
        return path

    return make


@pytest.fixture
def fix(diff: Callable[[str, str], Path]) -> Path:
    """The patch that fixes `add`."""
    return diff("a - b", "a + b")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A task file: one repository, with one bug per function."""
    repo = tmp_path / "library"
    (repo / "tests").mkdir(parents=True)
    (repo / "calc.py").write_text(LIBRARY)
    (repo / "tests" / "test_calc.py").write_text(LIBRARY_TESTS)
    lines = []
    for name, (good, bad) in PLANTED.items():
        buggy = {"calc.py": LIBRARY.replace(good, bad)}
        start = (
            LIBRARY.splitlines().index(next(line for line in LIBRARY.splitlines() if line.startswith(f"def {name}")))
            + 1
        )
        task = {
            "id": name,
            "instruction": f"mend {name}",
            "repository": "library",
            "base_patch": Patch.between({"calc.py": LIBRARY}, buggy).text,
            "reference": Patch.between(buggy, {"calc.py": LIBRARY}).text,
            "failure": f"test_{name}\nAssertionError",
            "fail_to_pass": [f"tests/test_calc.py::test_{name}"],
            "pass_to_pass": [f"tests/test_calc.py::test_{other}" for other in PLANTED if other != name],
            "target": {"file": "calc.py", "function": name, "first_line": start, "last_line": start + 1},
        }
        lines.append(json.dumps(task))
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(lines))
    return path
