"""Locks between processes. The kernel releases the lock of a process that ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where nothing runs that writes into a run for long
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Lock an existing file or folder against other processes and threads that do so. Not reentrant.

    A file system or a system without locks (see `has_locks`) locks nothing.

    Raises:
        BlockingIOError: somebody else holds the lock, and this one does not wait.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def has_locks(folder: Path) -> bool:
    """Does the file system of this folder have locks? Some network file systems have none, nor has Windows."""
    if fcntl is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
