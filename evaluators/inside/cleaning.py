"""Clean-up of the folders that candidates share, so that no candidate leaves data for the next."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

from regrade.evaluators.inside.candidates import drop_rights

SHARED_FOLDERS = ("/tmp", "/dev/shm", "/dev/mqueue", "/var/tmp")
"""Folders that candidates can write to, apart from the working tree."""

IPC_COUNTS = {"shmctl": ((0, 14), 0), "semctl": ((0, 0, 19), 7), "msgctl": ((0, 12), 0)}
"""Call -> its arguments for SHM_INFO, SEM_INFO or MSG_INFO, and the index of the number of segments, sets or queues in
the answer. (gVisor has no /proc/sysvipc.)"""


def entries() -> set[str]:
    """Paths of all entries of the shared folders, without those of read-only mounts."""
    paths: set[str] = set()
    for top in SHARED_FOLDERS:
        for parent, folders, names in os.walk(top):
            if _is_read_only(parent):
                folders.clear()
                continue
            paths.update(f"{parent}/{name}" for name in (*folders, *names))
    return paths


def clean(user: int, original: set[str]) -> bool:
    """Remove all but the original entries. False: some entry is left, and the sandbox must be replaced."""
    if entries() != original:
        cleaner = os.fork()
        if cleaner == 0:
            with contextlib.suppress(BaseException):
                drop_rights(user)
                for folder in SHARED_FOLDERS:
                    _empty(folder, original)
            os._exit(0)
        os.waitpid(cleaner, 0)
    return entries() == original and not _shared_memory_left()


def _empty(folder: str, original: set[str]) -> None:
    if not os.path.isdir(folder) or _is_read_only(folder):  # noqa: PTH112 - same style as scandir below
        return
    for entry in os.scandir(folder):
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.path in original:
            if is_folder:
                _empty(entry.path, original)
        elif is_folder:
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink()


def _is_read_only(folder: str) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _shared_memory_left() -> bool:
    """Does System V shared memory, a semaphore or a message queue exist? They outlive their processes."""
    libc, counts = ctypes.CDLL(None), (ctypes.c_int * 64)()
    for name, (arguments, count) in IPC_COUNTS.items():
        ctypes.memset(counts, 0, ctypes.sizeof(counts))
        if getattr(libc, name)(*arguments, counts) < 0 or counts[count]:
            return True
    return False
