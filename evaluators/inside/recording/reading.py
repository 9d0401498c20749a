"""Files that are opened by this process, its children or a library in C, observed by inotify(7)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable

IN_OPEN = 0x20
IN_CLOSE_NOWRITE = 0x10
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


class FileOpenings:
    """Counts how often some files are opened, whichever path leads there. Without inotify, it counts nothing."""

    def __init__(self, paths: Iterable[str]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._paths: dict[int, str] = {}
        for path in set(paths) if self._queue >= 0 else ():
            # The event of closing stands between two openings: the kernel merges equal events in a row.
            watch = libc.inotify_add_watch(self._queue, os.fsencode(path), IN_OPEN | IN_CLOSE_NOWRITE)
            if watch >= 0:
                self._paths[watch] = path

    def opened(self) -> list[str]:
        """The files that were opened since the last call, each as often as that happened."""
        found: list[str] = []
        with contextlib.suppress(OSError):
            while self._is_ours():
                events = os.read(self._queue, 1 << 16)
                while events:
                    watch, mask, _, length = EVENT.unpack_from(events)
                    events = events[EVENT.size + length :]
                    if mask & IN_OPEN:
                        found.append(self._paths[watch])
        return found

    def _is_ours(self) -> bool:
        """Code under test may close descriptors that it did not open, and get their numbers for its own files."""
        return os.readlink(f"/proc/self/fd/{self._queue}").endswith("inotify")  # noqa: PTH115 (quick)
