"""ruff as a function of options and text: no configuration, `noqa` or ignore file has a say in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError

SECONDS = 30.0
"""How long ruff may take; a file needs about 0.02, some dozens of files 0.1."""
ISOLATED = (
    "check", "--isolated", "--ignore-noqa", "--no-respect-gitignore", "--no-cache", "--quiet",
    "--output-format", "json",
)  # fmt: skip


class RuffError(RuntimeError):
    """ruff does not accept the settings (another version's rules, say), or did not come to an end with the text."""


def check_text(options: tuple[str, ...], path: str, source: bytes) -> list[dict[str, Any]]:
    """ruff's records for one text, given on standard input.

    Args:
        options: `key=value` in TOML, for `--config`.
        path: the name that the text goes by; nothing is read there.

    Raises:
        RuffError: ruff does not accept the options, died, or took too long.
        UserError: ruff is not installed.
    """
    # From the root of the file system: nothing there can be taken for the project's neighbours.
    return _run([*_configured(options), "--stdin-filename", path, "-"], Path(Path.cwd().anchor), source)


def check_folder(options: tuple[str, ...], folder: Path) -> list[dict[str, Any]]:
    """ruff's records for every Python file below a folder. Raises as `check_text` does."""
    return _run([*_configured(options), "."], folder, b"")


def _run(arguments: list[str], folder: Path, source: bytes) -> list[dict[str, Any]]:
    command = [executable(), *arguments]
    try:
        done = subprocess.run(command, input=source, capture_output=True, cwd=folder, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuffError(f"ruff did not end within {SECONDS:g} s") from error
    if done.returncode not in (0, 1):
        raise RuffError(" ".join(done.stderr.decode("utf-8", "replace").split())[:300])
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return [record for record in records if record["code"] not in (None, "invalid-syntax")]


def _configured(options: tuple[str, ...]) -> list[str]:
    return [*ISOLATED, *(f"--config={option}" for option in options)]


@lru_cache(maxsize=1)
def executable() -> str:
    """The path of ruff, that beside this interpreter first. Raises UserError where there is none."""
    beside = Path(sys.executable).parent / "ruff"
    found = str(beside) if beside.is_file() else shutil.which("ruff")
    if found is None:
        raise UserError(f"ruff is not installed beside {sys.executable}: run `pip install ruff`")
    return found
