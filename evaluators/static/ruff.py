"""ruff as a function of options and text: without configuration files, `noqa` and ignore files."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.limited_processes import run_within

CPU_SECONDS = 30
"""CPU time of one run of ruff in seconds; a file takes about 0.02, some dozens of files 0.1."""
ISOLATED = ("--isolated", "--ignore-noqa", "--no-respect-gitignore", "--no-cache")
ISOLATED_CHECK = ("check", *ISOLATED, "--quiet", "--output-format", "json")


class RuffError(RuntimeError):
    """ruff refused the settings (rules of another version, for example), crashed, or timed out."""


def check_text(options: tuple[str, ...], path: str, source: bytes) -> list[dict[str, Any]]:
    """ruff's records for one text, passed on standard input.

    Args:
        options: `key=value` in TOML, for `--config`.
        path: the file name of the text for ruff, which does not read that path.

    Raises:
        RuffError: ruff refused the options, crashed, or timed out.
        UserError: ruff is not installed.
        OSError: it was killed from outside: not caused by the text.
    """
    # In the root of the file system, ruff cannot mistake other files for the project's.
    return _run([*_configured(options), "--stdin-filename", path, "-"], Path(Path.cwd().anchor), source)


def check_folder(options: tuple[str, ...], folder: Path) -> list[dict[str, Any]]:
    """ruff's records for every Python file below a folder. Raises as `check_text` does."""
    return _run([*_configured(options), "."], folder, b"")


def _run(arguments: list[str], folder: Path, source: bytes) -> list[dict[str, Any]]:
    command = [executable(), *arguments]
    process = run_within(command, folder=folder, given=source, cpu_seconds=CPU_SECONDS)
    if process.returncode == -signal.SIGXCPU:
        raise RuffError(f"ruff timed out after {CPU_SECONDS} s of CPU time")
    if process.returncode not in (0, 1):
        raise RuffError(" ".join(process.stderr.decode("utf-8", "replace").split())[:300])
    records: list[dict[str, Any]] = json.loads(process.stdout)
    return [record for record in records if record["code"] not in (None, "invalid-syntax")]


def _configured(options: tuple[str, ...]) -> list[str]:
    return [*ISOLATED_CHECK, *(f"--config={option}" for option in options)]


@lru_cache(maxsize=1)
def executable() -> str:
    """The path of ruff: beside the current interpreter, or else on PATH. Raises UserError without one."""
    beside = Path(sys.executable).parent / "ruff"
    path = str(beside) if beside.is_file() else shutil.which("ruff")
    if path is None:
        raise UserError(f"ruff is not installed beside {sys.executable}: run `pip install ruff`")
    return path
