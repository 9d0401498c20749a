"""Which files of a tree are opened, whoever does it: this process, one of its children, a library in C."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

IN_OPEN = 0x20
IN_Q_OVERFLOW = 0x4000
IN_ISDIR = 0x40000000
EVENT = struct.Struct("iIII")
"""Of inotify(7): watch, mask, cookie, length of the name that follows."""


class Readings:
    """Watches a tree as it is now. The kernel notes what is opened, so that no Python runs at every call."""

    def __init__(self, root: str) -> None:
        """Raises OSError where the kernel watches no more, or nothing."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._root = root.rstrip("/")
        self._queue = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._queue < 0:
            raise OSError(ctypes.get_errno(), "inotify can't be used")
        self._folders: dict[int, str] = {}
        for folder, _, _ in os.walk(self._root):
            watch = libc.inotify_add_watch(self._queue, os.fsencode(folder), IN_OPEN)
            if watch < 0:
                raise OSError(ctypes.get_errno(), f"{folder} can't be watched")
            self._folders[watch] = folder[len(self._root) + 1 :]

    def opened(self) -> set[str]:
        """The files that were opened since the last call, relative to the root.

        Raises OSError where there were too many to be noted.
        """
        found: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                found |= self._paths(os.read(self._queue, 1 << 16))
        return found

    def _paths(self, events: bytes) -> set[str]:
        found = set()
        while events:
            watch, mask, _, length = EVENT.unpack_from(events)
            name = events[EVENT.size : EVENT.size + length].rstrip(b"\0")
            events = events[EVENT.size + length :]
            if mask & IN_Q_OVERFLOW:
                raise OSError("more files were opened than the kernel notes")
            if name and not mask & IN_ISDIR:
                folder = self._folders[watch]
                found.add(f"{folder}/{os.fsdecode(name)}" if folder else os.fsdecode(name))
        return found
