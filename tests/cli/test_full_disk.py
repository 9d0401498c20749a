"""A full disk: which folder is full and what to do, not a consequence of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
REGRADE = (sys.executable, "-c", "from regrade.cli.main import main; main()")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(*words: object, **variables: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.run(
        [*REGRADE, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("is_measured", [False, True], ids=["first command", "later command"])
def test_a_full_folder_of_temporary_files_is_named(small, repo, fix, tmp_path, is_measured):
    cache = tmp_path / "own-cache"
    if is_measured:
        (tmp_path / "other.diff").write_text(fix.read_text().replace("+    return a + b", "+    return b + a"))
        assert run("score", tmp_path / "other.diff", "--repo", repo, REGRADE_CACHE=cache).returncode == 0
    done = run("score", fix, "--repo", repo, TMPDIR=small, REGRADE_CACHE=cache)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "FileExistsError" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "No space left on device" in last
    assert f"free space in '{small}', or name another folder for temporary files with $TMPDIR" in last
    assert list(small.iterdir()) == []
