"""Files that a user names: read whole if they are files of a bounded size; only a patch may come through a pipe."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from regrade.datasets.errors import UserError

LARGEST = 4 * 10**9
"""Bytes of a file. A device has no end."""
LONGEST_PATCH = 64 << 20
"""Bytes read of a patch: a pipe may never end. The limit of a patch is far lower."""
WAIT_FOR_WRITER = 2.0
"""Seconds until a named pipe must have a writer."""
# Windows has its own set: text and binary files differ, and a file that another process should not inherit is the rule.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def open_input(path: Path) -> BinaryIO:
    """Open a file for reading, without a wait for the writer of a pipe.

    Raises:
        OSError: it is a folder, missing or unreadable.
    """
    return os.fdopen(os.open(path, _FLAGS), "rb")


def read_input(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a file.

    Raises:
        UserError: a pipe or a device, which may never end, or a file above the limit.
        OSError: it is a folder, missing or unreadable.
    """
    with open_input(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"cannot read {path}: it is a pipe or a device: save its content in a file, and give that")
        if status.st_size > largest:
            raise UserError(f"cannot read {path}: it has more than {largest:,} bytes: give a smaller file")
        return file.read()


def read_patch_file(path: Path) -> bytes:
    """The content of a patch file or of a pipe, such as that of `<(git diff)`, up to a limit.

    Raises:
        UserError: a device, or a pipe without a writer.
        OSError: it is a folder, missing or unreadable.
    """
    with open_input(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise UserError(f"patch {str(path)!r} is a device: give a file with a unified diff, or -")
        if stat.S_ISFIFO(mode):
            # The pipe of a shell has no name: its path leads to none that exists. Its end without a writer is the end.
            is_named = Path(os.path.realpath(path)).exists()
            if is_named and not select.select([file], [], [], WAIT_FOR_WRITER)[0]:
                raise UserError(
                    f"no program writes into the pipe {str(path)!r}: give a file with a unified diff, or - for "
                    "standard input"
                )
            os.set_blocking(file.fileno(), True)
        return file.read(LONGEST_PATCH)
