"""A pytest plugin that finds out which functions each test executes.

Each test runs in a fork of its own from the state after collection, so that neither a cache that an earlier test filled
nor a fixture that an earlier test set up hides what it depends on. A test whose work escapes the profiler (it starts
another process or replaces the profile function) is opaque: it may reach everything.

Lines: `["imported", [keys]]` and `["reach", id, [keys], opaque]`; a key is `file::qualified.name`, the name cut at the
outermost function.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import pytest

CO_OPTIMIZED = 0x1
"""Flag of the code of functions; modules and class bodies lack it."""
ESCAPES = frozenset({"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.spawn"})


class ReachRecorder:
    """Install before anything of the repository is imported."""

    def __init__(self, write: Callable[[str], None], root: str) -> None:
        self._write = write
        self._root = root.rstrip("/") + "/"
        self._codes: dict[int, CodeType] = {}  # by identity: hashing a code object reads all of it
        # Events are raised at every call that is profiled, so what hears them is no Python: each takes its own name
        # from here, where it is one of them, and stores nothing.
        self._confined = dict.fromkeys(ESCAPES)
        sys.addaudithook(self._confined.pop)
        self._install()

    def _install(self) -> None:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self._codes[id(frame.f_code)] = frame.f_code

    def pytest_collection_finish(self) -> None:
        self._write(json.dumps(["imported", self._keys()]))
        # So that a fork does not touch, and thereby copy, all that lives here.
        gc.collect()
        gc.freeze()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        child = os.fork()
        if child == 0:
            self._measure(item)
        os.waitpid(child, 0)
        return True

    def _measure(self, item: pytest.Item) -> None:
        """In the child: run one test and leave."""
        self._codes.clear()
        self._confined.update(dict.fromkeys(ESCAPES))
        profile = self._profile_in_place()
        opaque = False
        try:
            item.config.pluginmanager.unregister(self)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            opaque = len(self._confined) < len(ESCAPES) or sys.getprofile() is not profile
        except BaseException:
            opaque = True
        finally:
            sys.setprofile(None)
            self._write(json.dumps(["reach", item.nodeid, self._keys(), opaque]))
            os._exit(0)

    def _profile_in_place(self) -> Any:
        self._install()
        return sys.getprofile()

    def _keys(self) -> list[str]:
        keys = set()
        for code in tuple(self._codes.values()):
            if code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(self._root):
                name = code.co_qualname.split(".<locals>")[0]
                keys.add(f"{code.co_filename[len(self._root) :]}::{name}")
        return sorted(keys)
