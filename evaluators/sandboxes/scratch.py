"""Scratch folders: created for a process, and removed by it or, if it was killed, by the next one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from regrade.datasets.process_identity import is_gone, this_process

NAME = re.compile(r"regrade-(\d+-\d+)-.+")


def scratch_folder() -> Path:
    """A new folder for temporary trees, in the system's temporary folder; those of dead processes there are removed."""
    for path in Path(tempfile.gettempdir()).glob("regrade-*-*-*"):
        named = NAME.fullmatch(path.name)
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # leftovers that can't be removed are ignored
            if named and is_gone(named.group(1)) and path.lstat().st_uid == os.getuid():
                remove(path)
    folder = Path(tempfile.mkdtemp(prefix=f"regrade-{this_process()}-"))
    folder.chmod(0o755)  # candidates may run as another user
    return folder


def remove_own() -> None:
    """Delete what this process has left in the system's temporary folder: a signal may have interrupted a clean-up."""
    for path in Path(tempfile.gettempdir()).glob(f"regrade-{this_process()}-*"):
        remove(path)


def remove(folder: Path) -> None:
    """Delete a folder with any content that a candidate left."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # too deep for Python
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False, timeout=300, stderr=subprocess.DEVNULL)
