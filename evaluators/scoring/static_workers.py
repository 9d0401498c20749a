"""Runs the static probes in processes that can be killed: a scan of hostile text must not stop the scorer.

Each probe has a limit of CPU time, which the kernel enforces even while one regular expression holds the interpreter.
The processes are started once, stay warm, and import neither torch nor a test.
"""

from __future__ import annotations

import contextlib
import json
import logging
import operator
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from regrade.datasets import applying
from regrade.datasets.limited_processes import FROM_OUTSIDE
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.sandboxes.piped import is_ready
from regrade.evaluators.scoring.own_probes import OwnProbe
from regrade.evaluators.scoring.probes import STATIC, import_probes, static_evidence
from regrade.evaluators.static.files import ChangedFile, is_unprotected, patched_files
from regrade.evaluators.static.patch_text import as_written
from regrade.evaluators.storage.serialisation import decode_plain
from regrade.rewards.evidence import (
    ComplexityDelta,
    Diff,
    Impact,
    Integrity,
    LintDelta,
    PatchText,
    ReadabilityDelta,
    Tampering,
)

logger = logging.getLogger(__name__)
CPU_SECONDS = 20.0
"""CPU time of one probe on one patch: an assumption, which no repository of a million lines has tested."""
WALL_SECONDS = 600.0
"""A process without an answer after this time hangs, whatever it waits for."""
LARGEST_MEMORY_MB = 8 << 10
"""Address space of a process. At most half of the machine's memory, so that a scan fails before the machine does."""
BACK_OFF = (0.5, 2.0, 8.0)
"""Seconds before each retry after a process ended, not by its clock, or after a failure of the machine."""
_LENGTH = struct.Struct(">Q")
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from regrade.evaluators.scoring.static_workers import serve
serve(int(sys.argv[2]))
"""


_TreeChange = Tree | tuple[dict[str, str], frozenset[str]] | None
_Sent = tuple[_TreeChange, _TreeChange, Patch, applying.Applied | PatchError]


class ScanStoppedError(RuntimeError):
    """A static probe did not end within its limits."""


@dataclass(frozen=True)
class _Scan:
    """The input of a probe."""

    before: Tree
    after: Tree
    patch: Patch
    task: Task

    def sent(self) -> _Sent:
        """What a process that has the task needs, with the outcome of the patch: `git apply` runs once for all."""
        base = self.task.base
        return _change(self.before, base), _change(self.after, base), self.patch, applying.outcome(base, self.patch)

    @classmethod
    def received(cls, sent: _Sent, task: Task) -> _Scan:
        before, after, patch, outcome = sent
        applying.remember(task.base, patch, outcome)
        return cls(_tree(before, task.base), _tree(after, task.base), patch, task)


def _change(tree: Tree, base: Tree) -> _TreeChange:
    """A tree by its difference from the base; the base itself as None."""
    if tree is base:
        return None
    return (dict(tree.replaced), tree.removed) if tree.root == base.root else tree


def _tree(change: _TreeChange, base: Tree) -> Tree:
    if change is None or isinstance(change, Tree):
        return change or base
    return replace(base, replaced=change[0], removed=change[1])


class StaticWorkers:
    """A pool of processes for static probes. Safe for several threads."""

    def __init__(self, cpu_seconds: float | None = None, memory_mb: int | None = None) -> None:
        """Limits of one probe on one patch; None: CPU_SECONDS, and `default_memory_mb`."""
        self._cpu_seconds = CPU_SECONDS if cpu_seconds is None else cpu_seconds
        self._memory_mb = default_memory_mb() if memory_mb is None else memory_mb
        self._idle: list[_StaticProcess] = []
        self._running: set[_StaticProcess] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def warm(self) -> None:
        """Start a process, unless one is idle: it imports the probes while the caller prepares its tree."""
        with self._lock:
            if not self._idle and not self._is_closed:
                self._idle.append(_StaticProcess(self._memory_mb))

    def evidence(
        self, kind: type, before: Tree, after: Tree, patch: Patch, task: Task, own: OwnProbe | None = None
    ) -> Any:
        """The evidence of one static probe, a built-in one or the user's `own`.

        A scan that does not end is caused by the patch, unless the scan of a trivial patch of the same files does not
        end either: then the base is to blame.

        Raises:
            SandboxError: the scan stopped, and the patch is not its cause: its process was killed from outside in every
                try, for example; or the probe is the user's own; or the pool is closed.
            ProbeError: the user's own probe is wrong.
        """
        try:
            answer = self._run(kind, _Scan(before, after, patch, task), own)
            return answer if own is None else decode_plain(kind, answer)
        except ScanStoppedError as stopped:
            reason = str(stopped)
        if own is not None:
            raise SandboxError(f"{kind.__name__}: {reason}")
        try:
            self._run(kind, _trivial_scan(before, patch, task), None)
        except ScanStoppedError as stopped:
            raise SandboxError(f"the repository's own files, without the patch, can't be read: {stopped}") from None
        return _unended(kind, patch, task, reason)

    def close(self) -> None:
        """Kill all processes."""
        with self._lock:
            self._is_closed = True
            processes = [*self._idle, *self._running]
            self._idle.clear()
        for process in processes:
            process.kill()

    def _run(self, kind: type, scan: _Scan, own: OwnProbe | None) -> Any:
        for pause in (*BACK_OFF, None):
            process = self._take()
            try:
                answer = process.ask(own or kind.__name__, scan, self._cpu_seconds)
            except EOFError:
                process.kill()
                if self._is_closed:
                    raise SandboxError("stopped") from None
                if own is not None and process.hangs:  # a wait of the user's code, which no retry ends
                    raise ScanStoppedError(f"no answer within {WALL_SECONDS:g} s") from None
                if process.exceeded_its_clock:
                    raise ScanStoppedError(f"not read within {self._cpu_seconds:g} s of CPU time") from None
                if pause is None and process.ended_by_itself:
                    raise ScanStoppedError("the process that reads it dies") from None
                self._before_retry(kind, f"static process {process.end}", pause)
                continue
            except OSError as error:  # git, not the process
                process.kill()
                self._before_retry(kind, str(error), pause)
                continue
            except BaseException:
                process.kill()
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
            with self._lock:
                if self._is_closed:
                    process.kill()
                else:
                    self._idle.append(process)
            if isinstance(answer, OSError):
                self._before_retry(kind, str(answer), pause)
                continue
            if isinstance(answer, (MemoryError, RecursionError)):
                raise ScanStoppedError(f"the scan ends with {type(answer).__name__}")
            if isinstance(answer, BaseException):
                raise answer
            return answer
        raise AssertionError  # the last try returns or raises

    @staticmethod
    def _before_retry(kind: type, failure: str, pause: float | None) -> None:
        """Wait. Raises SandboxError after the last try (`pause` is None)."""
        if pause is None:
            raise SandboxError(f"{failure}, {1 + len(BACK_OFF)} times, and not by a limit of its own")
        logger.warning("%s: %s, retry in %.1f s", kind.__name__, failure, pause)
        time.sleep(pause)

    def _take(self) -> _StaticProcess:
        with self._lock:
            if self._is_closed:
                raise SandboxError("stopped")
            process = self._idle.pop() if self._idle else _StaticProcess(self._memory_mb)
            self._running.add(process)
            return process


class _StaticProcess:
    """One process, and which inputs it has."""

    def __init__(self, memory_mb: int) -> None:
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(memory_mb)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=-1
            )
        except OSError as error:
            raise SandboxError(f"{sys.executable} did not start: {error}") from error
        self.hangs = False
        self._task: Task | None = None
        self._scan: tuple[Tree, Tree, Patch] | None = None

    @property
    def exceeded_its_clock(self) -> bool:
        return self._process.returncode == -signal.SIGPROF

    @property
    def ended_by_itself(self) -> bool:
        """Did it crash, or exit? The text that it reads may cause that, and no signal from outside, nor a hang."""
        return not self.hangs and -self._process.returncode not in FROM_OUTSIDE

    @property
    def end(self) -> str:
        code = self._process.returncode
        if self.hangs:
            return f"without an answer within {WALL_SECONDS:g} s"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def ask(self, probe: str | OwnProbe, scan: _Scan, cpu_seconds: float) -> Any:
        """The evidence, or the exception of the probe. Raises EOFError: the process died or hangs.

        Args:
            probe: the name of a built-in type of evidence, or the user's own probe.
        """
        inputs = (scan.before, scan.after, scan.patch)
        is_known = self._task is scan.task
        is_same = is_known and self._scan is not None and all(map(operator.is_, inputs, self._scan))
        message = (
            probe,
            cpu_seconds,
            None if is_known else pickle.dumps(scan.task),
            None if is_same else pickle.dumps(scan.sent()),
        )
        self._task, self._scan = scan.task, inputs
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _write(self._process.stdin, message)
        except OSError as error:
            raise EOFError from error
        if not is_ready(self._process.stdout.fileno(), WALL_SECONDS):
            self.hangs = True
            raise EOFError
        return _read(self._process.stdout)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()


def default_memory_mb() -> int:
    """Address space of a process, in MiB."""
    return min(LARGEST_MEMORY_MB, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 21)


def serve(memory_mb: int) -> None:
    """The program of a process: answers until its standard input ends."""
    import resource

    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a probe that prints must not write into the answers
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nor may it read the requests
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the scorer, which kills this process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import_probes()  # so that the first patch does not wait for it
    kinds = {kind.__name__: kind for kind in STATIC}
    task, scan = None, None
    while True:
        try:
            probe, cpu_seconds, new_task, new_inputs = _read(requests)
        except EOFError:
            return
        task = pickle.loads(new_task) if new_task is not None else task
        assert task is not None
        scan = _Scan.received(pickle.loads(new_inputs), task) if new_inputs is not None else scan
        assert scan is not None
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer: Any
        try:
            if isinstance(probe, OwnProbe):
                answer = probe(scan.before, scan.after, scan.patch, task)
            else:
                answer = static_evidence(STATIC[kinds[probe]], kinds[probe], scan.before, scan.after, scan.patch, task)
        except Exception as error:
            answer = error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        _write(answers, answer)


def _write(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: IO[bytes]) -> Any:
    """Raises EOFError."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def _trivial_scan(before: Tree, patch: Patch, task: Task) -> _Scan:
    """An added empty line in each file that the patch changes, at the state before the patch."""
    files = _changed(task, patch)
    old = {file.old_path: file.before for file in files if file.before is not None}
    new = {path: f"{text}\n" for path, text in old.items()} | {file.path: "\n" for file in files if file.before is None}
    return _Scan(before, before.with_files(new), Patch.between(old, new), task)


_Unended = Callable[[tuple[str, ...], int], Any]
_UNENDED: Mapping[type, _Unended] = {
    LintDelta: lambda files, lines: LintDelta((), (), max(1, lines), unparsable=files),
    ComplexityDelta: lambda files, _: ComplexityDelta(
        functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0, unparsable=files, files=files
    ),
    ReadabilityDelta: lambda files, _: ReadabilityDelta((), files, files),
    Impact: lambda files, _: Impact(changed_symbols=(), modules=(), unparsable=files),
    Diff: lambda files, lines: Diff(lines, 0, files),
}


def _unended(kind: type, patch: Patch, task: Task, reason: str) -> Any:
    """The evidence of a patch whose scan does not end: it scores low, with the reason."""
    files = _changed(task, patch)
    paths = [file.path for file in files if file.after is not None]
    if kind is Integrity:
        return Integrity(tuple(Tampering("unreadable code", path, 1, reason) for path in paths))
    if kind is PatchText:
        return as_written(patch, frozenset(path for path in paths if is_unprotected(path, task)))
    if kind not in _UNENDED:
        raise SandboxError(f"{kind.__name__}: {reason}")
    lines = sum(len(file.added) + len(file.removed) for file in files)
    return _UNENDED[kind](tuple(f"{path} ({reason})" for path in paths), lines)


def _changed(task: Task, patch: Patch) -> list[ChangedFile]:
    """The files that the patch changes; none if it does not apply."""
    try:
        return patched_files(task.base, patch)
    except PatchError:
        return []
