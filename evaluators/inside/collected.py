"""A session that is held after collection: candidates fork from there, with the code of their functions put in place.

To import the tests and what they test takes most of a short run, and comes out the same for every patch that changes
nothing but the bodies of functions that nothing executes on import. So the suite is collected once, on the pristine
tree. In each fork the functions that the patch changes get the code of the patched text, wherever they are: a function
that was decorated, renamed or handed on is the same object still. The tree on disk is the patched one.

Where something was begun on import that forks would share (a thread, a file, a temporary folder), or where a change can
be no other body for the same function, the session says that it is unfit, and candidates run from the start.
"""

from __future__ import annotations
import __future__

import ctypes
import gc
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn, Protocol

import pytest

from regrade.evaluators.inside import candidates
from regrade.evaluators.inside.recorder import Recorder, wanted_of

Request = dict[str, Any]
Write = Callable[[str], None]
Change = dict[str, Any]
"""What `regrade.evaluators.outlines.Change` says, as JSON."""

KIND = 0x20 | 0x80 | 0x200
"""Flags of the code of generators, coroutines and asynchronous generators: decorators may have looked at them."""
PR_SET_PDEATHSIG = 1
FUTURES = 0
for _name in __future__.all_feature_names:
    FUTURES |= getattr(__future__, _name).compiler_flag


class Unfit(Exception):
    """Candidates can't be forked from the collected session."""


class Holding(Protocol):
    """The worker, as far as a session needs it."""

    user: int

    def execute(self, request: Request) -> Write | None: ...
    def next_request(self) -> Request | None: ...
    def is_empty(self) -> bool: ...
    def tell(self, message: dict[str, Any]) -> None: ...


class CollectedSession:
    """Holds one suite for as long as the worker lives."""

    def __init__(self, worker: Holding, request: Request) -> None:
        self._worker = worker
        self._request = request
        self._recorder = Recorder(request["root"])
        self._write: Write | None = None
        self._is_held = False
        self._functions: dict[tuple[str, str], list[FunctionType]] = {}
        self._spellings: dict[str, set[str]] = {}
        self._before: set[str] = set()
        self._shared: set[str] = set()
        self._errors: list[str] = []
        self._problem = ""

    def serve(self) -> None:
        """Collect, and serve requests until there are no more. Says `held` or `unfit` first."""
        request = self._request
        self._before, self._shared = _descriptors(), _shared_memory()
        status = -1
        try:
            candidates.settle(request)
            self._recorder.begin(self._note, None)
            _become(self._worker.user)
            status = int(
                pytest.main([*candidates.arguments(request), *request["paths"]], plugins=[self._recorder, self])
            )
        except BaseException as error:
            if self._write is not None:
                candidates.leave(self._write, error)
            self._problem = f"{type(error).__name__}: {error}"[:300]
        if self._write is not None:
            candidates.finish(self._write, status)
        _become(0)
        if not self._is_held:
            self._worker.tell({"event": "unfit", "reason": self._problem or f"pytest left with status {status}"})

    def _note(self, line: str) -> None:
        """What the recorder says during the collection: an error of a file makes the session unfit."""
        if json.loads(line)[0] == "collect":
            self._errors.append(line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """In the worker: fork a candidate for each request; True ends the session. In a child: None, to go on."""
        _become(0)
        try:
            self._check()
        except Unfit as unfit:
            self._problem = str(unfit)
            return True
        self._functions = _functions_of(self._request["root"])
        self._spellings = _spellings(self._functions)
        by_id = {item.nodeid: item for item in session.items}
        gc.collect()
        gc.freeze()
        self._is_held = True
        self._worker.tell({"event": "held", "tests": len(by_id)})
        request = self._worker.next_request()
        while request is not None:
            self._write = self._worker.execute(request)
            if self._write is not None:
                self._go_on(session, request, self._write)
                return None
            request = self._worker.next_request()
        return True

    def _check(self) -> None:
        """Raises Unfit if forks would share something that each candidate should have for itself."""
        if self._errors:
            raise Unfit(f"not all of it can be collected: {self._errors[0][:200]}")
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 (quick)
            raise Unfit("a thread was started on import")
        if not self._worker.is_empty():
            raise Unfit("something was written to the temporary folders on import")
        if _shared_memory() - self._shared:
            raise Unfit("memory was shared on import")
        opened = _descriptors() - self._before
        if opened:
            raise Unfit(f"something was opened on import: {min(opened)}")

    def _go_on(self, session: pytest.Session, request: Request, write: Write) -> None:
        try:
            for file in dict.fromkeys(change["file"] for change in request["changes"]):
                self._put(file, [change for change in request["changes"] if change["file"] == file])
        except (Unfit, SyntaxError, OSError, ValueError) as error:
            _leave_unfit(write, error)
        capture = session.config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            # Its files are open since before the fork: this child needs its own.
            capture.stop_global_capturing()
            capture.start_global_capturing()
            capture.suspend_global_capture(in_=True)
        self._recorder.begin(write, request["select"])
        wanted = None if request["select"] is None else frozenset(request["select"])
        if wanted is not None:
            session.items[:] = wanted_of(session.items, wanted)

    def _put(self, file: str, changes: list[Change]) -> None:
        """Give the changed functions of one file their new code, and those below their new lines."""
        path = f"{self._request['root']}/{file}"
        spellings = self._spellings.get(path)
        if not spellings:
            return  # it is imported later, as it is on disk, or never
        if spellings != {path}:
            raise Unfit(f"{file} is loaded by another path as well")
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
        if any(re.search(r"coding[:=](?!\s*utf-?8)", line) for line in lines[:2]):
            raise Unfit(f"{file} is written in another encoding")
        moved: list[tuple[int, int]] = []
        done: set[int] = set()
        for change in changes:
            functions = self._functions_at(path, change)
            old = functions[0].__code__
            new = _compiled(lines, path, change, old)
            for function in functions:
                function.__code__ = new
                done.add(id(function))
            moved.append((change["old_end"], change["end"] - change["old_end"]))
        self._move(path, moved, done)

    def _functions_at(self, path: str, change: Change) -> list[FunctionType]:
        """The function objects of a place. Raises Unfit where there is none, or code of several."""
        first, last = change["old_definition"] + 1, change["old_end"]
        found = [
            function
            for function in self._functions.get((path, change["name"]), ())
            if function.__code__.co_firstlineno <= first < _last_line(function.__code__) <= last
        ]
        if not found or any(function.__code__ is not found[0].__code__ for function in found):
            raise Unfit(f"{change['name']} is not one function")
        return found

    def _move(self, path: str, moved: list[tuple[int, int]], done: set[int]) -> None:
        if not any(grown for _, grown in moved):
            return
        for (place, _), functions in self._functions.items():
            for function in functions if place == path else ():
                code = function.__code__
                shift = sum(grown for end, grown in moved if code.co_firstlineno > end)
                if shift and id(function) not in done:
                    function.__code__ = _shifted(code, shift)


def _functions_of(root: str) -> dict[tuple[str, str], list[FunctionType]]:
    """(path, qualified name) -> the functions of the tree that live, whoever holds them, by whatever path."""
    found: dict[tuple[str, str], list[FunctionType]] = {}
    own: dict[str, bool] = {}
    for thing in gc.get_objects():
        if type(thing) is not FunctionType:
            continue
        name = thing.__code__.co_filename
        if name not in own:
            own[name] = os.path.realpath(name).startswith(f"{root}/")
        if own[name]:
            found.setdefault((thing.__code__.co_filename, thing.__code__.co_qualname), []).append(thing)
    return found


def _spellings(functions: dict[tuple[str, str], list[FunctionType]]) -> dict[str, set[str]]:
    """File -> the paths by which it was loaded, as a module or otherwise."""
    names = {path for path, _ in functions}
    names |= {str(getattr(module, "__file__", None)) for module in list(sys.modules.values())}
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(os.path.realpath(name), set()).add(name)
    return found


def _compiled(lines: list[str], path: str, change: Change, old: CodeType) -> CodeType:
    """The code of the changed function, as the whole file would give it. Raises Unfit, SyntaxError."""
    *classes, name = change["name"].split(".")
    first = change["definition"] - (change["old_definition"] + 1 - old.co_firstlineno)  # with its decorators
    body = lines[first : change["end"]]
    headers = [f"{' ' * depth}class {each}:" for depth, each in enumerate(classes)]
    if body[0][:1].isspace() and not headers:
        headers = ["if True:"]
    if first < len(headers):
        raise Unfit(f"{change['name']} stands too high in its file")
    text = "\n".join([*[""] * (first - len(headers)), *headers, *body, ""])
    code: CodeType = compile(text, path, "exec", flags=old.co_flags & FUTURES, dont_inherit=True)
    for each in (*classes, name):
        inner: list[CodeType] = [
            const for const in code.co_consts if isinstance(const, CodeType) and const.co_name == each
        ]
        if len(inner) != 1:
            raise Unfit(f"{change['name']} is not one function")
        code = inner[0]
    if code.co_freevars != old.co_freevars or (code.co_flags ^ old.co_flags) & KIND:
        raise Unfit(f"{change['name']} becomes a function of another kind")
    return code


def _last_line(code: CodeType) -> int:
    inner = [_last_line(const) for const in code.co_consts if isinstance(const, CodeType)]
    return max([line for _, _, line in code.co_lines() if line] + inner, default=0)


def _shifted(code: CodeType, by: int) -> CodeType:
    consts = tuple(_shifted(const, by) if isinstance(const, CodeType) else const for const in code.co_consts)
    return code.replace(co_firstlineno=code.co_firstlineno + by, co_consts=consts)


def _become(user: int) -> None:
    """Be the user, or root again: what is imported may ask who it is, and what it writes must be the candidate's."""
    if user >= 0 and os.getresuid()[2] == 0:
        os.setresuid(-1, 0, -1)
        os.setresgid(user, user, 0)
        os.setresuid(user, user, 0)
        # The kernel forgets it at every change of the user.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _descriptors() -> set[str]:
    """What is open, but for files without a name."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (quick)
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except OSError:
            continue
        if not target.endswith("(deleted)") and not target.startswith(("/proc/", "/dev/null")):
            found.add(f"{name}: {target}")
    return found


def _shared_memory() -> set[str]:
    """The parts of memory that forks would share, by their addresses."""
    mappings = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    return {fields[0] for fields in mappings if fields[1].endswith("s")}


def _leave_unfit(write: Write, error: BaseException) -> NoReturn:
    write(json.dumps(["unfit", f"{type(error).__name__}: {error}"[:300]]))
    os._exit(candidates.FAILED)
