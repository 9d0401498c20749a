"""Byte code shared by all candidates of a suite: damaged byte code is never used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.replies import statuses
from regrade.evaluators.execution.warm_start import prepare_suite
from regrade.evaluators.execution.worker import Preparation, Request, Worker
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.task_curation.baseline import baseline
from regrade.rewards.evidence import TestStatus

LIMITS = Limits(wall_seconds=60.0)
FILES = {
    "large.py": "TEXT = '" + "x" * (1 << 20) + "'\n",
    "subject.py": "import large\nx = 1\n",
    "test_it.py": "import subject\ndef test_it(): assert subject.x == 1\n",
}
"""The byte code of one module is larger than a megabyte."""


@pytest.fixture
def tree(write_files) -> Tree:
    return write_files(FILES)


@pytest.fixture
def prepared(tree: Tree, tmp_path: Path) -> Iterator[Callable[..., Preparation]]:
    """Prepares the tree's suite."""
    tmp_path.chmod(0o755)
    for name in ("bytecode", "scratch"):
        (tmp_path / name).mkdir()

    def make(limits: Limits = LIMITS, tree: Tree = tree) -> Preparation:
        python, folders = Path(sys.executable), (tmp_path / "bytecode", tmp_path / "scratch")
        return prepare_suite(choose("bubblewrap"), python, tree, TestSuite(), limits, *folders, tree.digest)

    return make


def outcome(tree: Tree, preparation: Preparation, folder: Path) -> TestStatus | None:
    """The outcome of a candidate that uses the byte code."""
    (folder / "candidate").mkdir(exist_ok=True)
    with Worker(choose("bubblewrap"), Path(sys.executable), folder / "candidate", folder / "bytecode") as worker:
        reply = worker.run(tree, Request(suite=TestSuite(), limits=LIMITS), replace(preparation, session=""))
    outcomes = statuses(reply)
    return outcomes["test_it.py::test_it"].status if outcomes else None


def compiled(folder: Path, preparation: Preparation) -> dict[str, Path]:
    files = (folder / "bytecode" / preparation.bytecode).rglob("*.pyc")
    return {path.name.partition(".")[0]: path for path in files}


def test_truncated_byte_code_is_not_stored(tree, prepared, tmp_path):
    # Beyond the limit the kernel writes a part and says so, as it does where the disk is full. Nobody asks.
    preparation = prepared(replace(LIMITS, file_mb=1))
    assert outcome(tree, preparation, tmp_path) is TestStatus.PASSED
    assert compiled(tmp_path, preparation).keys() >= {"subject", "test_it"}
    assert "large" not in compiled(tmp_path, preparation)


def test_unchecked_byte_code_is_not_stored(write_files, prepared, tmp_path):
    killed = "import os\n\ndef pytest_collection_finish():\n    os._exit(0)\n"
    preparation = prepared(replace(LIMITS, file_mb=1), write_files({**FILES, "conftest.py": killed}))
    assert compiled(tmp_path, preparation) == {}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose(path: Path) -> None:
    path.unlink()


def blank(path: Path) -> None:
    """As after a power failure: same size and modification time, no content."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("damage", [cut, lose, blank])
def test_byte_code_damaged_later_is_compiled_again(tree, prepared, tmp_path, damage):
    first = prepared()
    whole = compiled(tmp_path, first)["large"].read_bytes()
    damage(compiled(tmp_path, first)["large"])
    again = prepared()
    assert again == first
    assert compiled(tmp_path, again)["large"].read_bytes()[16:] == whole[16:]
    assert outcome(tree, again, tmp_path) is TestStatus.PASSED


@pytest.mark.parametrize("change", [("modules", "module"), ('"session": "', '"session": "0'), ("}", "")])
def test_a_changed_description_is_not_used(prepared, tmp_path, change):
    first = prepared()
    description = tmp_path / "bytecode" / first.bytecode / "preparation.json"
    text = description.read_text()
    assert change[0] in text
    description.write_text(text.replace(*change))
    assert prepared() == first
    assert description.read_text() == text


def test_a_complete_preparation_is_not_repeated(prepared, tmp_path):
    first = prepared()
    folder = tmp_path / "bytecode" / first.bytecode
    before = folder.stat().st_ino
    assert (prepared(), folder.stat().st_ino) == (first, before)


def test_a_baseline_does_not_use_truncated_byte_code(tree):
    measured = baseline(tree, TestSuite(), limits=replace(LIMITS, file_mb=1), runs=2, sandbox=choose("bubblewrap"))
    assert (measured.stable, measured.flaky) == (("test_it.py::test_it",), ())
