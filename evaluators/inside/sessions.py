"""Prepared test sessions: pytest configured once for a suite, and forked just before it collects.

Reading the configuration and registering plugins takes half of a short run, and is the same for every candidate of a
suite. So the worker starts a session on the pristine configuration, pauses it in the hook before collection, and forks
each candidate there; the child collects and runs. A session that imports a module of the repository (a plugin, a
conftest.py), even an installed copy of one, is rejected: its candidates run unprepared.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from regrade.evaluators.inside import candidates, origins
from regrade.evaluators.inside.recording.recorder import Recorder

RequestMessage = dict[str, Any]
Write = Callable[[str], None]


class ForkingWorker(Protocol):
    """The interface of the worker that a session uses."""

    def execute(self, request: RequestMessage) -> Write | None: ...
    def next_request(self) -> RequestMessage | None: ...


class PreparedSessions:
    """Serves the requests that name a session, until the session is rejected."""

    def __init__(self, worker: ForkingWorker) -> None:
        self._worker = worker
        self._rejected: set[str] = set()

    def accepts(self, request: RequestMessage) -> bool:
        return bool(request["session"] and request["paths"]) and request["session"] not in self._rejected

    def serve(self, request: RequestMessage) -> RequestMessage | None:
        """Serve the request and those of the same session that follow. Returns the first request of another one."""
        session = _PreparedSession(self._worker, request)
        session.run()
        if not session.served:
            self._rejected.add(request["session"])
        return session.pending


class _PreparedSession:
    """One pytest session of the worker, and in each child the rest of it."""

    def __init__(self, worker: ForkingWorker, request: RequestMessage) -> None:
        self._worker = worker
        self._first = self._candidate = request
        self._recorder = Recorder(request["root"])
        self._write: Write | None = None
        self.pending: RequestMessage | None = request
        self.served = False

    def run(self) -> None:
        request = self._first
        is_named = request["base_configuration"] is not None or not request["configuration"]
        configuration = [] if is_named else ["-c", request["configuration"]]
        # A file outside the tree: the folder of a path argument decides which conftest.py files are imported at once.
        anchor = str(Path(__file__))
        os.chdir(request["root"])
        path, modules = sys.path[:], set(sys.modules)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        try:
            status = int(
                pytest.main([*candidates.arguments(request), *configuration, anchor], plugins=[self, self._recorder])
            )
        except BaseException as error:
            if self._write is not None:
                candidates.abort(self._write, error)
            status = -1
        if self._write is not None:
            candidates.report_origins(self._candidate, self._write)
            candidates.finish(self._write, status)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(request["root"] + "/"):
                del sys.modules[name]
        os.chdir("/")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool | None:
        """In the worker: fork a candidate per request, then return True, which ends the session. In a child: return
        None, which continues it."""
        request = self.pending
        while request is not None and request["session"] == self._first["session"] and request["paths"]:
            if _imported_from(request["root"]) or origins.is_any_loaded(request["own"]):
                return True
            self.served = True
            self._write = self._worker.execute(request)
            if self._write is not None:
                self._candidate = request
                self._continue(session, request, self._write)
                return None
            request = self.pending = self._worker.next_request()
        return True

    def _continue(self, session: pytest.Session, request: RequestMessage, write: Write) -> None:
        config = session.config
        config.args = list(request["paths"])
        config.option.file_or_dir = list(request["paths"])
        capture = config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            # Its files were opened before the fork: this child needs its own.
            capture.stop_global_capturing()
            capture.start_global_capturing()
            capture.suspend_global_capture(in_=True)
        self._recorder.begin(
            write,
            request["select"],
            request["skip"],
            request["doctests"],
            request["libraries"],
            watched=candidates.is_watched(request),
            sources=request["watched_files"],
        )


def _imported_from(root: str) -> bool:
    """Was any module of the tree imported?"""
    return any(
        (getattr(module, "__file__", None) or "").startswith(root + "/") for module in list(sys.modules.values())
    )
