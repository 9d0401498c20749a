"""A pytest plugin that finds out which functions each test executes.

Each test runs in a fork of its own from the state after collection, so that neither a cache that an earlier test filled
nor a fixture that an earlier test set up hides what it depends on. A test whose work escapes the profiler (it starts
another process or replaces the profiler) is opaque: it may reach everything.

Lines: `["imported", [keys]]` and `["reach", id, [keys], opaque]`; a key is `file::qualified.name`, the name cut at the
outermost function.
"""

from __future__ import annotations

import _lsprof
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
MONITORING: Any = getattr(sys, "monitoring", None)
"""From Python 3.12 on."""
ESCAPES = frozenset({"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.spawn"})


class _Profiled:
    """The code that runs, by the interpreter's own C profiler; other threads call a Python function instead."""

    def __init__(self) -> None:
        self._profiler = _lsprof.Profiler()
        self._ended: list[_lsprof.Profiler] = []
        self._threads: dict[int, CodeType] = {}  # by identity: hashing a code object reads all of it

    def start(self) -> None:
        """Forget what ran before, and watch."""
        self._profiler.disable()
        # The last one is kept: to let go of all code that ran on import would copy its pages in every fork.
        self._ended.append(self._profiler)
        self._profiler = _lsprof.Profiler()
        self._threads = {}
        threading.setprofile(self._note)
        self._profiler.enable(subcalls=False, builtins=False)

    def stop(self) -> bool:
        """Watch no more. Was it watched until now?"""
        current: object = sys.getprofile()
        unbroken = current is self._profiler
        self._profiler.disable()
        threading.setprofile(None)
        return unbroken

    def codes(self) -> list[CodeType]:
        own = [entry.code for entry in self._profiler.getstats()]
        return [*(code for code in own if isinstance(code, CodeType)), *tuple(self._threads.values())]

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self._threads[id(frame.f_code)] = frame.f_code


class _Monitored:
    """The code that runs, by `sys.monitoring` (Python 3.12): each function speaks up once, and costs nothing then."""

    TOOL = 4
    """An id that no profiler, debugger or coverage tool takes by convention."""

    def __init__(self) -> None:
        self._codes: dict[int, CodeType] = {}
        self._ended: list[dict[int, CodeType]] = []
        self._events = MONITORING.events.PY_START | MONITORING.events.PY_RESUME
        MONITORING.use_tool_id(self.TOOL, __name__)
        for event in (MONITORING.events.PY_START, MONITORING.events.PY_RESUME):
            MONITORING.register_callback(self.TOOL, event, self._note)

    def start(self) -> None:
        self._ended.append(self._codes)  # see `_Profiled.start`
        self._codes = {}
        MONITORING.set_events(self.TOOL, self._events)
        MONITORING.restart_events()

    def stop(self) -> bool:
        ours = MONITORING.get_tool(self.TOOL) == __name__
        unbroken = ours and bool(MONITORING.get_events(self.TOOL) == self._events)
        if unbroken:
            MONITORING.set_events(self.TOOL, 0)
        return unbroken

    def codes(self) -> list[CodeType]:
        return list(self._codes.values())

    def _note(self, code: CodeType, _offset: int) -> Any:
        self._codes[id(code)] = code
        return MONITORING.DISABLE


class ReachRecorder:
    """Install before anything of the repository is imported."""

    def __init__(self, write: Callable[[str], None], root: str) -> None:
        self._write = write
        self._root = root.rstrip("/") + "/"
        # Events are raised at every call that is profiled, so what hears them is no Python: each takes its own name
        # from here, where it is one of them, and stores nothing.
        self._confined = dict.fromkeys(ESCAPES)
        sys.addaudithook(self._confined.pop)
        self._watch: _Monitored | _Profiled = _Monitored() if MONITORING else _Profiled()
        self._watch.start()

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
        opaque = True
        try:
            self._confined.update(dict.fromkeys(ESCAPES))
            self._watch.start()
            item.config.pluginmanager.unregister(self)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            opaque = len(self._confined) < len(ESCAPES)
        except BaseException:
            opaque = True
        finally:
            opaque = not self._watch.stop() or opaque
            self._write(json.dumps(["reach", item.nodeid, self._keys(), opaque]))
            os._exit(0)

    def _keys(self) -> list[str]:
        keys = set()
        for code in self._watch.codes():
            if code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(self._root):
                name = code.co_qualname.split(".<locals>")[0]
                keys.add(f"{code.co_filename[len(self._root) :]}::{name}")
        return sorted(keys)
