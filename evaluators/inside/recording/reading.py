"""Files of a tree that are opened by this process, its children or a library in C, observed by inotify(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

IN_OPEN = 0x20
IN_Q_OVERFLOW = 0x4000
IN_ISDIR = 0x40000000
EVENT = struct.Struct("iIII")
"""Of inotify(7): watch, mask, cookie, length of the following name."""


class OpenedFiles:
    """Watches the current files of a tree. The kernel records the events, so that no Python runs at every call."""

    def __init__(self, root: str) -> None:
        """Raises OSError: inotify is unavailable or has reached its limit of watches."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._root = root.rstrip("/")
        self._queue = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._queue < 0:
            raise OSError(ctypes.get_errno(), "inotify is not available")
        self._folders: dict[int, str] = {}
        for folder, _, _ in os.walk(self._root):
            watch = libc.inotify_add_watch(self._queue, os.fsencode(folder), IN_OPEN)
            if watch < 0:
                raise OSError(ctypes.get_errno(), f"{folder} can't be watched by inotify")
            self._folders[watch] = folder[len(self._root) + 1 :]

    def opened(self) -> set[str]:
        """The files that were opened since the last call, relative to the root.

        Raises OSError: the kernel's queue overflowed.
        """
        paths: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                paths |= self._paths(os.read(self._queue, 1 << 16))
        return paths

    def _paths(self, events: bytes) -> set[str]:
        paths = set()
        while events:
            watch, mask, _, length = EVENT.unpack_from(events)
            name = events[EVENT.size : EVENT.size + length].rstrip(b"\0")
            events = events[EVENT.size + length :]
            if mask & IN_Q_OVERFLOW:
                raise OSError("too many files were opened at once for the inotify queue")
            if name and not mask & IN_ISDIR:
                folder = self._folders[watch]
                paths.add(f"{folder}/{os.fsdecode(name)}" if folder else os.fsdecode(name))
        return paths
