"""The virtual environment of a repository, beside its files."""

from __future__ import annotations

from pathlib import Path

FOLDERS = (".venv", "venv")


def own_interpreters(repository: Path) -> list[Path]:
    """Where the interpreter of the repository's virtual environment would be, whether it exists or not."""
    return [repository / folder / "bin" / "python" for folder in FOLDERS]


def own_interpreter(repository: Path) -> Path | None:
    """The interpreter of the repository's virtual environment; None: there is none."""
    return next((path for path in own_interpreters(repository) if path.exists()), None)
