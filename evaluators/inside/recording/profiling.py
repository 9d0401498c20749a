"""Executed functions, measured at the least cost that the interpreter allows, and detection of unmeasured code."""

from __future__ import annotations

import _lsprof
import _thread
import contextlib
import multiprocessing.util
import os
import resource
import shutil
import subprocess
import sys
import threading
from types import CodeType, FrameType
from typing import Any

MONITORING: Any = getattr(sys, "monitoring", None)
"""Available since Python 3.12."""
ESCAPES = frozenset(
    {
        *("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.spawn"),
        "sys.addaudithook",
    }
)
QUERIES = frozenset(
    {
        *("arch", "cat", "cc", "clang", "file", "gcc", "getconf", "git", "hg", "hostname", "id", "ld", "ldconfig"),
        *("fc-list", "fc-match", "locale", "ls", "lsb_release", "lscpu", "nproc", "nvidia-smi", "objdump", "stty"),
        *("sysctl", "tput", "uname", "which", "whoami"),
    }
)
"""Programs that libraries run on import to query the machine. Any other program may run code of the tree."""


class Escapes:
    """Detects code that runs unmeasured: in another process, or in an unprofiled thread."""

    def __init__(self) -> None:
        # Audit events occur at every profiled call, so the hook is no Python function: `dict.pop` removes the names of
        # the events that occurred.
        self._pending = dict.fromkeys(ESCAPES)
        self._unwatched = False
        self._processes = _ProcessWatch()
        sys.addaudithook(self._pending.pop)
        self._wrap_tracers()
        if MONITORING is None:
            self._wrap_thread_start()

    def _wrap_tracers(self) -> None:
        """The interpreter profiles no code inside a tracer, and none in a thread that replaces its profiler."""
        trace, profile = sys.settrace, sys.setprofile

        def set_trace(function: Any) -> None:
            self._unwatched |= function is not None
            trace(function)

        def set_profile(function: Any) -> None:
            self._unwatched |= getattr(function, "__module__", "") != __name__
            profile(function)

        sys.settrace, sys.setprofile = set_trace, set_profile

    def _wrap_thread_start(self) -> None:
        """Threads of `threading` are profiled; it has its own reference to the original function by now."""
        start = _thread.start_new_thread

        def start_unwatched(*arguments: Any) -> int:
            self._unwatched = True
            return start(*arguments)

        _thread.start_new_thread = _thread.start_new = start_unwatched

    def has_started_processes(self) -> bool:
        """Was a process started that may run code of the tree, or is a child alive?"""
        occurred = ESCAPES - self._pending.keys() - {"subprocess.Popen", "sys.addaudithook"}
        return bool(occurred) or self._processes.stop() or has_living_children()

    def start(self) -> None:
        """Start a new measurement."""
        self._pending.update(dict.fromkeys(ESCAPES))
        self._unwatched = False

    def has_escaped(self) -> bool:
        """Did any code escape? Some ways to start a process raise no event; so children, also reaped ones, count."""
        return self._unwatched or len(self._pending) < len(ESCAPES) or has_children()


class _ProcessWatch:
    """Checks the programs that are started on import: libraries run `lscpu` and the like to query the machine."""

    def __init__(self) -> None:
        self._may_run_python = False
        self._open, self._spawn = subprocess.Popen.__init__, multiprocessing.util.spawnv_passfds

        def opened(popen: Any, args: Any, *rest: Any, **options: Any) -> None:
            self._may_run_python |= not _is_query(args, options)
            self._open(popen, args, *rest, **options)

        def spawned(path: bytes, args: Any, passfds: Any) -> int:
            self._may_run_python = True
            return self._spawn(path, args, passfds)

        subprocess.Popen.__init__ = opened  # type: ignore[assignment, method-assign]
        multiprocessing.util.spawnv_passfds = spawned

    def stop(self) -> bool:
        """Stop. Returns: may a started program have run code of the tree?"""
        subprocess.Popen.__init__ = self._open  # type: ignore[method-assign]
        multiprocessing.util.spawnv_passfds = self._spawn
        return self._may_run_python


def _is_query(args: Any, options: dict[str, Any]) -> bool:
    if options.get("shell"):
        return False
    program = options.get("executable") or (args if isinstance(args, (str, bytes, os.PathLike)) else args[0])
    path = shutil.which(os.fsdecode(program))
    return path is None or path.rpartition("/")[2] in QUERIES  # a missing program starts nothing


def has_living_children() -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def has_children() -> bool:
    """Does or did this process have children?"""
    return has_living_children() or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


class _Profiler(_lsprof.Profiler):
    """Records whether other code disabled it."""

    disabled = False

    def disable(self) -> None:
        self.disabled = True
        super().disable()


class ProfilerWatch:
    """Executed code, by the interpreter's own C profiler; other threads call a Python function instead."""

    def __init__(self) -> None:
        self._profiler = _Profiler()
        self._ended: list[_Profiler] = []
        self._threads: dict[int, CodeType] = {}  # by identity: hashing a code object reads all of it

    def start(self) -> None:
        """Discard earlier results, and start measuring."""
        self._profiler.disable()
        # The last one is not released: freeing the code that ran on import would copy its pages in every fork.
        self._ended.append(self._profiler)
        self._profiler = _Profiler()
        self._threads = {}
        threading.setprofile(self._note)
        self._profiler.enable(subcalls=False, builtins=False)

    def stop(self) -> bool:
        """Stop. Returns: did it measure without a break?"""
        current: object = sys.getprofile()
        is_whole = current is self._profiler and threading.getprofile() == self._note and not self._profiler.disabled
        self._profiler.disable()
        threading.setprofile(None)
        return is_whole

    def codes(self) -> list[CodeType]:
        own = [entry.code for entry in self._profiler.getstats()]
        return [*(code for code in own if isinstance(code, CodeType)), *tuple(self._threads.values())]

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self._threads[id(frame.f_code)] = frame.f_code


class MonitoringWatch:
    """Executed code, by `sys.monitoring` (Python 3.12): a function reports its first call, later ones cost nothing."""

    TOOL = 4
    """An id that no profiler, debugger or coverage tool uses by convention."""

    def __init__(self) -> None:
        self._codes: dict[int, CodeType] = {}
        self._ended: list[dict[int, CodeType]] = []
        events = MONITORING.events
        self._events = events.PY_START | events.PY_RESUME | events.PY_THROW
        MONITORING.use_tool_id(self.TOOL, __name__)
        for event in (events.PY_START, events.PY_RESUME):
            MONITORING.register_callback(self.TOOL, event, self._note)
        MONITORING.register_callback(self.TOOL, events.PY_THROW, self._note_throw)

    def start(self) -> None:
        """Discard earlier results, and start measuring."""
        self._ended.append(self._codes)  # see `ProfilerWatch.start`
        self._codes = {}
        MONITORING.set_events(self.TOOL, self._events)
        MONITORING.restart_events()

    def stop(self) -> bool:
        """Stop. Returns: did it measure without a break?"""
        ours = MONITORING.get_tool(self.TOOL) == __name__
        is_whole = ours and bool(MONITORING.get_events(self.TOOL) == self._events)
        if is_whole:
            MONITORING.set_events(self.TOOL, 0)
        return is_whole

    def codes(self) -> list[CodeType]:
        return list(self._codes.values())

    def _note(self, code: CodeType, _offset: int) -> Any:
        self._codes[id(code)] = code
        return MONITORING.DISABLE

    def _note_throw(self, code: CodeType, _offset: int, _error: BaseException) -> None:
        """An exception thrown into a suspended generator. This event can't be disabled for one function."""
        self._codes[id(code)] = code


def make_watch() -> ProfilerWatch | MonitoringWatch:
    """The cheapest watch that this interpreter supports."""
    return MonitoringWatch() if MONITORING else ProfilerWatch()
