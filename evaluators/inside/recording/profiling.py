"""Which code runs, seen at the least cost that the interpreter allows, and whether anything ran unseen."""

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
"""From Python 3.12 on."""
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
"""Programs that libraries ask on import what machine this is. Any other may run code of the tree."""


class Escapes:
    """Does anything run outside of what is watched: in another process, or in a thread that nobody was told of?"""

    def __init__(self) -> None:
        # Events are raised at every call that is profiled, so what hears them is no Python: each takes its own name
        # from here, where it is one of them, and stores nothing.
        self._unheard = dict.fromkeys(ESCAPES)
        self._unwatched = False
        self._processes = _Processes()
        sys.addaudithook(self._unheard.pop)
        self._hear_of_tracers()
        if MONITORING is None:
            self._hear_of_threads()

    def _hear_of_tracers(self) -> None:
        """The interpreter profiles nothing that runs inside of a tracer, or in a thread that lets no profiler be."""
        trace, profile = sys.settrace, sys.setprofile

        def set_trace(function: Any) -> None:
            self._unwatched |= function is not None
            trace(function)

        def set_profile(function: Any) -> None:
            self._unwatched |= getattr(function, "__module__", "") != __name__
            profile(function)

        sys.settrace, sys.setprofile = set_trace, set_profile

    def _hear_of_threads(self) -> None:
        """`threading`, which has the function for itself by now, tells each of its threads to be watched."""
        begin = _thread.start_new_thread

        def begin_unwatched(*arguments: Any) -> int:
            self._unwatched = True
            return begin(*arguments)

        _thread.start_new_thread = _thread.start_new = begin_unwatched

    def begun(self) -> bool:
        """Was a process started so far in which code of the tree may run, or lives one?"""
        told = ESCAPES - self._unheard.keys() - {"subprocess.Popen", "sys.addaudithook"}
        return bool(told) or self._processes.stop() or has_living_children()

    def start(self) -> None:
        """Listen from now on."""
        self._unheard.update(dict.fromkeys(ESCAPES))
        self._unwatched = False

    def heard(self) -> bool:
        """Not every way to start a process raises an event; but its parent has it as a child, or has had it."""
        return self._unwatched or len(self._unheard) < len(ESCAPES) or has_children()


class _Processes:
    """Looks at the programs that are started on import: libraries ask `lscpu` and the like what machine this is."""

    def __init__(self) -> None:
        self._python = False
        self._open, self._spawn = subprocess.Popen.__init__, multiprocessing.util.spawnv_passfds

        def opened(popen: Any, args: Any, *others: Any, **options: Any) -> None:
            self._python |= not _is_query(args, options)
            self._open(popen, args, *others, **options)

        def spawned(path: bytes, args: Any, passfds: Any) -> int:
            self._python = True
            return self._spawn(path, args, passfds)

        subprocess.Popen.__init__ = opened  # type: ignore[assignment, method-assign]
        multiprocessing.util.spawnv_passfds = spawned

    def stop(self) -> bool:
        """Look no more. Was it Python, as far as can be told?"""
        subprocess.Popen.__init__ = self._open  # type: ignore[method-assign]
        multiprocessing.util.spawnv_passfds = self._spawn
        return self._python


def _is_query(args: Any, options: dict[str, Any]) -> bool:
    if options.get("shell"):
        return False
    program = options.get("executable") or (args if isinstance(args, (str, bytes, os.PathLike)) else args[0])
    path = shutil.which(os.fsdecode(program))
    return path is None or path.rpartition("/")[2] in QUERIES  # where there is no such program, nothing is started


def has_living_children() -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def has_children() -> bool:
    """Has this process children, or had it some?"""
    return has_living_children() or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


class _Profiler(_lsprof.Profiler):
    """Notices if somebody else turns it off for a while."""

    touched = False

    def disable(self) -> None:
        self.touched = True
        super().disable()


class Profiled:
    """The code that runs, by the interpreter's own C profiler; other threads call a Python function instead."""

    def __init__(self) -> None:
        self._profiler = _Profiler()
        self._ended: list[_Profiler] = []
        self._threads: dict[int, CodeType] = {}  # by identity: hashing a code object reads all of it

    def start(self) -> None:
        """Forget what ran before, and watch."""
        self._profiler.disable()
        # The last one is kept: to let go of all code that ran on import would copy its pages in every fork.
        self._ended.append(self._profiler)
        self._profiler = _Profiler()
        self._threads = {}
        threading.setprofile(self._note)
        self._profiler.enable(subcalls=False, builtins=False)

    def stop(self) -> bool:
        """Watch no more. Was everything watched until now?"""
        current: object = sys.getprofile()
        unbroken = current is self._profiler and threading.getprofile() == self._note and not self._profiler.touched
        self._profiler.disable()
        threading.setprofile(None)
        return unbroken

    def codes(self) -> list[CodeType]:
        own = [entry.code for entry in self._profiler.getstats()]
        return [*(code for code in own if isinstance(code, CodeType)), *tuple(self._threads.values())]

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self._threads[id(frame.f_code)] = frame.f_code


class Monitored:
    """The code that runs, by `sys.monitoring` (Python 3.12): each function speaks up once, and costs nothing then."""

    TOOL = 4
    """An id that no profiler, debugger or coverage tool takes by convention."""

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
        """Forget what ran before, and watch."""
        self._ended.append(self._codes)  # see `Profiled.start`
        self._codes = {}
        MONITORING.set_events(self.TOOL, self._events)
        MONITORING.restart_events()

    def stop(self) -> bool:
        """Watch no more. Was everything watched until now?"""
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

    def _note_throw(self, code: CodeType, _offset: int, _error: BaseException) -> None:
        """Into a generator that waits, or started elsewhere. This event can't be turned off for one function."""
        self._codes[id(code)] = code


def make_watch() -> Profiled | Monitored:
    """The cheapest that this interpreter has."""
    return Monitored() if MONITORING else Profiled()
