"""Folders that a command writes: they appear at once, when they are complete, and replace only their own kind."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from regrade.datasets.errors import UserError


def check_parts(folder: Path, parts: Collection[str], kind: str) -> None:
    """Raises UserError if the folder holds other things than the parts of a folder of this kind."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: pass a new folder with `out=FOLDER`")
    if folder.is_dir() and any(path.name not in parts for path in folder.iterdir()):
        other = next(path.name for path in sorted(folder.iterdir()) if path.name not in parts)
        raise UserError(
            f"{folder} contains {other!r}, which is no part of a {kind}: pass a new folder with `out=FOLDER`"
        )


@contextmanager
def completed_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` once the block succeeds; else nothing has changed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    if old.is_dir() and not folder.exists():
        old.rename(folder)  # a run was killed between the two renames below
    for left in (made, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        made.mkdir()
        yield made
        if folder.is_dir():
            folder.rename(old)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
