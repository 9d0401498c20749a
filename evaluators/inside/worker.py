"""The warm worker: a preloaded interpreter that forks one child per candidate.

It reads one JSON request a line from standard input. To standard output it writes `{"event": "forked"}` when the
candidate runs, `{"event": "running", ...}` once a second if a display wants it, then one line with the result. No code
of a candidate is imported here: it runs in the child, which writes its results to a memory file of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import json
import os
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regrade.evaluators.inside import candidates, cleaning, watching
from regrade.evaluators.inside.recording.tampering_watch import take_snapshot
from regrade.evaluators.inside.running_test import RunningTest
from regrade.evaluators.inside.sealing import new_key, sealing_writer, unsealed_lines
from regrade.evaluators.inside.sessions import PreparedSessions

RequestMessage = dict[str, Any]
Write = Callable[[str], None]

LARGEST_RESULT = 16 << 20
OUTPUT_TAIL = 4000
LONGEST_ID = 200
"""Characters of an announced test, so that the message is far shorter than what a channel accepts at once."""
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PRELOADED = """
    abc argparse array ast asyncio base64 bisect calendar cmath collections collections.abc concurrent.futures
    contextlib copy copyreg csv ctypes dataclasses datetime decimal difflib dis doctest encodings.idna enum errno
    fractions functools gc glob gzip hashlib heapq html importlib.metadata inspect io itertools json keyword linecache
    locale logging marshal math multiprocessing.connection multiprocessing.pool multiprocessing.queues
    multiprocessing.synchronize numbers operator os.path pathlib pickle pkgutil platform pprint queue random re secrets
    shlex shutil socket statistics string struct subprocess sysconfig tempfile textwrap threading time timeit token
    tokenize traceback types typing unicodedata unittest unittest.mock urllib.parse uuid warnings weakref
    xml.etree.ElementTree zipfile
"""
"""Modules of the standard library that most suites import."""


def main(candidate_users: range, alone: bool, warm: bool) -> None:
    """Serve until the standard input ends.

    Args:
        candidate_users: user ids that the children change to, one after another; empty: the current one.
        alone: this process is the first of its own pid namespace and may kill every other process in it.
        warm: candidates are forked from this interpreter, not started in new ones.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Without this a candidate of the same user could read or trace this process.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    worker = ForkServer(candidate_users, alone)
    if warm:
        _preload()
    worker.serve()


class ForkServer:
    """Reads requests, forks candidates, watches them and writes their results."""

    def __init__(self, candidate_users: range, alone: bool) -> None:
        self._users = itertools.cycle(candidate_users or [-1])
        self._alone = alone
        # Not descriptors 0 to 2, which candidates write to.
        self._requests, self._answers = os.dup(0), os.dup(1)
        self._output = os.memfd_create("output")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(self._output, 1)
        os.close(null)
        self._sessions = PreparedSessions(self)
        self._original: set[str] = set()

    def serve(self) -> None:
        self._original = cleaning.entries() if self._alone else set()
        self._write({"event": "ready", "python": sys.version.split()[0]})
        request = self.next_request()
        while request is not None:
            candidates.import_early(request["early"])
            request = (
                self._sessions.serve(request) if self._sessions.accepts(request) else self._serve_unprepared(request)
            )

    def next_request(self) -> RequestMessage | None:
        """The next request; None: end of input. Reads nothing beyond it."""
        data = b""
        while not data.endswith(b"\n"):
            block = os.read(self._requests, 1 << 16)
            if not block:
                return None
            data += block
        request: RequestMessage = json.loads(data)
        return request

    def execute(self, request: RequestMessage) -> Write | None:
        """Fork. In the child: return its result writer. Here: watch the child, clean up, report, and return None."""
        results, key, user = os.memfd_create("results"), new_key(), next(self._users)
        os.ftruncate(self._output, 0)
        os.lseek(self._output, 0, os.SEEK_SET)
        started = time.monotonic()
        try:
            child = os.fork()
            if child == 0:
                return self._become_candidate(request, results, key, user)
            self._write({"event": "forked"})
            running = RunningTest(results, key)
            ending = watching.watch(
                child, self._requests, request, running, lambda: self._announce(running), alone=self._alone
            )
            watching.kill_rest(child, alone=self._alone)
            is_clean = cleaning.clean(user, self._original) if self._alone else True
            self._write(
                {
                    "event": "done",
                    "status": ending.status,
                    "stopped": ending.stopped,
                    "seconds": time.monotonic() - started,
                    "cpu": ending.cpu_seconds,
                    "lines": _lines(results, key),
                    "output": _tail(self._output),
                    "clean": is_clean,
                }
            )
        finally:
            os.close(results)
        return None

    def _announce(self, running: RunningTest) -> None:
        """Tell what runs, unless nobody reads: a full channel must not keep this process from enforcing limits."""
        if select.select([], [self._answers], [], 0)[1]:
            test = running.id[-LONGEST_ID:]
            self._write({"event": "running", "test": test, "done": running.done, "total": running.total})

    def _serve_unprepared(self, request: RequestMessage) -> RequestMessage | None:
        write = self.execute(request)
        if write is not None:
            candidates.run(request, write)
        return self.next_request()

    def _become_candidate(self, request: RequestMessage, results: int, key: bytes, user: int) -> Write:
        results = os.dup(results)  # the caller closes the original
        os.close(self._requests)
        os.close(self._answers)
        os.dup2(self._output, 2)

        write = sealing_writer(results, key)
        try:
            candidates.confine(request, user)
            if request["cold"]:
                candidates.start_fresh_interpreter(request, results, key)
        except BaseException as error:
            candidates.abort(write, error)
        return write

    def _write(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._answers, data) :]


def _preload() -> None:
    """Import modules that tests commonly need, and run one small session to fill the caches of pytest and re."""
    import pytest

    candidates.import_runner()
    _skip_statements()
    candidates.import_early(PRELOADED.split())
    folder = tempfile.mkdtemp()
    before = set(sys.modules)
    Path(folder, "test_preload.py").write_text(
        "import pytest\n@pytest.mark.parametrize('a', [1])\ndef test_a(a): pass\n"
        "class TestB:\n    def test_b(self): pass\n"
    )
    # Candidates load no installed plugin either; and one that is loaded here would shadow a module of the tree.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull, folder])
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]
    take_snapshot()
    sys.path_importer_cache.clear()
    shutil.rmtree(folder, ignore_errors=True)


def _skip_statements() -> None:
    """Stop pytest from parsing every file of a traceback to quote whole statements: after a broken import, which fails
    in each test module, parsing costs ten times the rest. pytest then quotes one line, as for a file that does not
    parse."""
    import _pytest._code.code

    def unparsed(*_: object, **__: object) -> None:
        raise SyntaxError

    if hasattr(_pytest._code.code, "getstatementrange_ast"):
        _pytest._code.code.getstatementrange_ast = unparsed


def _lines(results: int, key: bytes) -> list[str]:
    size = min(os.fstat(results).st_size, LARGEST_RESULT)
    return unsealed_lines(os.pread(results, size, 0), key)


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    return os.pread(output, OUTPUT_TAIL, max(0, size - OUTPUT_TAIL)).decode("utf-8", "replace")
