"""A warm worker: one sandbox with a preloaded interpreter that forks a child per candidate."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import marshal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from typing import Any, Self, TypeVar

from regrade.datasets.globs import ProtectedFiles
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.datasets.visible_text import visible
from regrade.evaluators import inside
from regrade.evaluators.execution.activity import Listener, Reporter
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.execution.honest_runs import HonestRuns
from regrade.evaluators.execution.native_code import NativeBuild, NativeCode
from regrade.evaluators.execution.own_modules import own_modules, own_submodules
from regrade.evaluators.execution.records import (
    DoneEvent,
    Event,
    ExtensionsRecord,
    ForkedEvent,
    ReadyEvent,
    Record,
    RunningEvent,
    decode,
    decode_event,
)
from regrade.evaluators.sandboxes import Mount, Program, Sandbox, SandboxError, Session

logger = logging.getLogger(__name__)
LONGEST_ANSWER = 64 << 20
START_SECONDS = 300.0
"""A start takes a second; longer on a busy machine."""
GRACE_SECONDS = 60.0
PATIENCE = 10
"""The worker enforces the time limit; the sandbox counts as hung after this many times the limit, plus grace."""
TOLD_SECONDS = 0.2
"""Shortest interval between two reports of what runs."""
BUILD_SECONDS, BUILD_SLACK = 30.0, 5.0
"""Further time for a patch whose extensions are built: this, and so many times the duration of the base's build."""
OUTPUT_TAIL = 4000
"""Characters of what a candidate prints that are kept."""
TOOLS = "/tools"
"""Path in the sandbox of programs from outside the system folders."""
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "USER": "candidate",
    "LOGNAME": "candidate",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "COLUMNS": "120",
    # Candidates run side by side, and a library that starts threads can't be imported before a fork. The last variable
    # is for the allocator of pyarrow, which pandas imports.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
OfKind = TypeVar("OfKind", bound=Record)


class WorkerDiedError(RuntimeError):
    """The whole worker died.

    `running`: a candidate had been forked, which may be the cause. `killed`: this process killed it.
    """

    def __init__(self, reason: str, *, running: bool, killed: bool = False) -> None:
        super().__init__(reason)
        self.running = running and not killed
        self.killed = killed


@contextlib.contextmanager
def without_candidate() -> Iterator[None]:
    """For runs of the base or of the reference: no candidate is the cause if their sandbox dies."""
    try:
        yield
    except WorkerDiedError as death:
        raise WorkerDiedError(str(death), running=False, killed=death.killed) from death


@dataclass(frozen=True, kw_only=True)
class Request:
    """The work of a candidate."""

    suite: TestSuite
    limits: Limits
    kind: str = "tests"
    """`tests`; `imports`: import the modules and report failures; `wheel`: build the project's wheel; `extensions`:
    build its extensions; `check`: compile the files of `paths`; `candidate`: serve calls of another worker; `inputs`:
    call another worker's candidate."""
    paths: tuple[str, ...] = ()
    """Test files passed to pytest; empty: the suite's own paths."""
    select: frozenset[str] | None = None
    """Ids of the tests to run; None: all collected tests."""
    skip: frozenset[str] = frozenset()
    """Ids of tests that are left out."""
    test_limits: Mapping[str, float] | None = None
    """Test -> its limit in seconds; "" -> the limit of every other test. None: only the whole run has a limit."""
    options: tuple[str, ...] = ()
    """pytest options beyond the suite's own."""
    modules: tuple[str, ...] = ()
    reach: Mapping[str, float] | None = None
    """Measure the reach of each test instead of its outcome. The tests that pass in the suite, and their seconds."""
    part: tuple[int, int] = (0, 1)
    """(index, count): measure every `count`-th test, from this index on."""
    crossing: Mapping[str, Any] | None = None
    """Boundary to another worker's candidate (see `regrade.evaluators.verification.two_process`)."""
    libraries: tuple[str, ...] = ()
    """Modules that tests import: report what the code under test replaces in them, unless they are the tree's own."""
    watched_files: tuple[str, ...] = ()
    """Files of tests: report if the code under test opens one (see `inside/recording/reads_of_tests.py`)."""
    sources: bool = False
    """Also record the files that the tests come from (see `inside/recording/sources.py`)."""
    phase: str = ""
    """What a display shows for it, such as `base run 2 of 3`; empty: nothing."""
    finished: int = 0
    """Number of tests that an earlier run of the same phase finished."""
    cold: bool = False
    """Run in a new interpreter in a new sandbox, instead of a fork of the warm one."""


@dataclass(frozen=True)
class Preparation:
    """Data that candidates of one suite share."""

    bytecode: str
    """Name of the folder of byte code (see `Worker`); changed files differ in time, and are compiled again."""
    session: str = ""
    """Key of the prepared session; empty: the suite's conftest.py files rule it out."""
    configuration: str = ""
    """Path in the sandbox of pytest's configuration file; empty: none."""
    modules: tuple[str, ...] = ()
    """Modules from outside the tree that its tests import: the worker imports them once, for all candidates."""

    def of(self, task: Task) -> Preparation:
        """The preparation for a task; without the session if its base changes tests or configuration."""
        changed = (*task.base.replaced, *task.base.removed)
        if any(task.suite.protects(path) for path in changed):
            return Preparation(self.bytecode, modules=self.modules)
        return self


UNPREPARED = Preparation("")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The result of a request."""

    status: int
    """Exit status, or minus the number of the signal that killed it."""
    stopped: str
    """Why the worker stopped it: `timeout`, `memory`, `processes`, `disk`, `test` (one test ran for too long) or
    `tests` (several did, see `hanging_tests.py`); or empty."""
    records: tuple[Record, ...]
    """In the order of writing: the last one is a DoneRecord or a LeftRecord, unless it was killed."""
    output: str
    """The end of what it printed."""
    seconds: float
    cpu_seconds: float
    hanging: Mapping[str, float] = field(default_factory=dict)
    """Test -> the limit at which it was stopped (see `hanging_tests.py`)."""
    rewritten: tuple[str, ...] = ()
    """Protected files that the candidate changed on disk, and that the base's tests leave as they are."""
    tampered: tuple[str, ...] = ()
    """What the candidate replaced of the test runner, of Python's measures or of the tests, and the base does not."""
    raised_limit: float = 0.0
    """The time limit of all tests in seconds, if it was raised for a slow machine (see `slow_machine.py`)."""

    def of(self, kind: type[OfKind]) -> list[OfKind]:
        """The records of one kind, in order."""
        return [record for record in self.records if isinstance(record, kind)]


class Worker:
    """One warm sandbox with one folder for trees. Not for use by several threads at once."""

    def __init__(
        self,
        sandbox: Sandbox,
        python: Path,
        scratch: Path,
        bytecode: Path | None = None,
        *,
        writable_bytecode: bool = False,
        limits: Limits | None = None,
        packages: Path | None = None,
        tools: Path | None = None,
        channel: Mount | None = None,
        listener: Listener | None = None,
    ) -> None:
        """
        Args:
            scratch: an existing folder for this worker only.
            bytecode: a folder of byte code, mounted for candidates.
            packages: a folder `node_modules`, mounted above the tree.
            tools: a folder whose `bin` is first on the candidates' PATH.
            channel: a folder shared by two workers, for a socket between their candidates.
            listener: receives reports of what runs.
        """
        self._sandbox = sandbox
        self._python = python
        self._scratch = scratch
        self._limits = limits or Limits()
        self._writable_bytecode = writable_bytecode
        self._programs = Mount(write_programs(scratch / "programs"), "/regrade")
        self._bytecode: Mount | None = None
        if bytecode and (sandbox.isolated or writable_bytecode):  # candidates must not write byte code of others
            self._bytecode = Mount(bytecode, "/bytecode", writable_bytecode)
        self._packages = packages
        self._tools = tools
        self._channel = channel
        self._session: Session | None = None
        self._folder = Folder(scratch / "tree")
        self._native_code = NativeCode(self._build_extensions)
        self._suite = TestSuite()
        self._own: dict[tuple[Path, tuple[str, ...], bool], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._buffer = b""
        self._killed = False
        self._reporter = Reporter(listener)
        self._rewritten: set[str] = set()
        self._candidate_users = range(0)
        self._is_warm = True
        self.honest_runs = HonestRuns()
        self.starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def isolated(self) -> bool:
        """Does the sandbox isolate candidates from this machine?"""
        return self._sandbox.isolated

    def run(self, tree: Tree, request: Request, preparation: Preparation = UNPREPARED) -> Reply:
        """Write the tree and run the request on it.

        Raises:
            SandboxError, OSError: the sandbox or the disk failed before any candidate ran.
            WorkerDiedError: the worker died or hung.
            StaleExtensionError: the tree changes sources of an extension that can't be built.
        """
        with self._reporter.running(request.phase, request.finished):
            return self._run(tree, request, preparation)

    def _run(self, tree: Tree, request: Request, preparation: Preparation) -> Reply:
        rebuild = self._rebuild_seconds(tree, request)
        if rebuild is not None:
            seconds = request.limits.wall_seconds + BUILD_SECONDS + BUILD_SLACK * rebuild
            request = replace(request, limits=replace(request.limits, wall_seconds=seconds))
        if request.cold or not self._is_warm:
            self.close()
        self._write_tree(tree, request.suite.protected_files)
        self._ensure_started(warm=not request.cold)
        own, below = self._own_modules(tree, request.suite)
        libraries = [name for name in request.libraries if name.partition(".")[0] not in own]
        found = {"own": own, "own_below": below, "rebuild": rebuild is not None, "libraries": libraries}
        self._send({**self._message(request, preparation), **found})
        event = self._receive(START_SECONDS)
        if isinstance(event, ForkedEvent):
            longest = request.limits.wall_seconds + max((request.test_limits or {"": 0.0}).values())
            event = self._receive(longest * PATIENCE + GRACE_SECONDS, running=True)
        if not isinstance(event, DoneEvent):
            raise self._unexpected(event)
        if not self._candidate_users:
            self._rewritten |= self._folder.rewritten()
        if event.stopped or not event.clean:
            self.close()  # a new sandbox for the next candidate
        facts = (self._scratch, request.kind, event.status, event.stopped or "none", event.seconds)
        logger.debug("candidate ended: folder %s, %s, status %s, limit reached: %s, %.2f s", *facts)
        return Reply(
            status=event.status,
            stopped=event.stopped,
            records=decode(event.lines),
            output=event.output,
            seconds=event.seconds,
            cpu_seconds=event.cpu,
        )

    def take_rewritten(self) -> frozenset[str]:
        """The protected files that were changed on disk since the last call.

        None if candidates have user ids of their own: the kernel then denies that.
        """
        rewritten, self._rewritten = frozenset(self._rewritten), set()
        return rewritten

    def close(self) -> None:
        """Kill the sandbox and its processes; the next run starts a new one."""
        session, self._session, self._buffer = self._session, None, b""
        if session is not None:
            session.close()

    def kill(self) -> None:
        """From another thread: kill the sandbox, so that a run in progress raises WorkerDiedError."""
        session = self._session
        if session is not None:
            self._killed = True
            session.kill()

    def _write_tree(self, tree: Tree, protected: ProtectedFiles) -> None:
        try:
            self._folder.write_tree(tree, protected)
        except (OSError, RecursionError):
            # The last candidate's changes can't be undone file by file: start with an empty folder.
            self.close()
            subprocess.run(["rm", "-rf", "--", str(self._folder.path)], check=False, timeout=300)
            if self._folder.path.exists():
                self._folder.path.rename(self._scratch / f"abandoned-{time.time_ns()}")
            self._folder = Folder(self._scratch / "tree")
            self._folder.write_tree(tree, protected)

    def _ensure_started(self, *, warm: bool) -> None:
        """
        Args:
            warm: import beforehand what tests commonly need; a cold candidate would use none of it.
        """
        if self._session is not None:
            return
        mounts = [Mount(self._folder.path, "/repo", writable=True), self._programs]
        if self._bytecode:
            mounts.append(self._bytecode)
        if self._packages is not None:
            # Above the tree, where Node searches packages after those of the tree.
            if self._sandbox.isolated:
                mounts.append(Mount(self._packages, f"/{self._packages.name}"))
            elif not (self._scratch / self._packages.name).exists():
                (self._scratch / self._packages.name).symlink_to(self._packages)
        if self._channel is not None:
            mounts.append(self._channel)
        environment = dict(ENVIRONMENT)
        if self._tools is not None:
            mount = Mount(self._tools, TOOLS)
            mounts.append(mount)
            environment["PATH"] = f"{self._sandbox.seen_at(mount)}/bin:{environment['PATH']}"
        if not self._sandbox.isolated:
            (self._scratch / "home").mkdir(exist_ok=True)
            environment |= dict.fromkeys(("HOME", "TMPDIR"), str(self._scratch / "home"))
        program = Program(
            python=self._python,
            arguments=("-s", "-P", "-c", self._program(warm=warm)),
            mounts=tuple(mounts),
            environment=environment,
            limits=self._limits,
        )
        self._killed, self._is_warm = False, warm
        began = time.monotonic()
        self._session = self._sandbox.start(program)
        self.starts += 1
        try:
            event = self._receive(START_SECONDS)
            if not isinstance(event, ReadyEvent):
                raise self._unexpected(event)
        except WorkerDiedError as error:
            raise SandboxError(f"the worker did not start in the {self._sandbox.name} sandbox: {error}") from error
        seconds = time.monotonic() - began
        logger.info("worker started: sandbox %s, folder %s, %.2f s", self._sandbox.name, self._scratch, seconds)

    def _program(self, *, warm: bool) -> str:
        folder = self._sandbox.seen_at(self._programs)
        self._candidate_users = self._sandbox.candidate_users()
        return (
            f"import sys; sys.path.insert(0, {folder!r}); from regrade.evaluators.inside.worker import main; "
            f"sys.path.pop(0); main({self._candidate_users!r}, {self._sandbox.alone}, {warm})"
        )

    def _message(self, request: Request, preparation: Preparation) -> dict[str, Any]:
        root = self._sandbox.seen_at(Mount(self._folder.path, "/repo", writable=True))
        may_use_session = (
            request.kind == "tests" and request.reach is None and request.crossing is None and not request.cold
        )
        bytecode = None
        if self._bytecode and preparation.bytecode:
            bytecode = f"{self._sandbox.seen_at(self._bytecode)}/{preparation.bytecode}"
        return {
            "kind": request.kind,
            "runner": request.suite.runner,
            "root": root,
            "python_path": request.suite.python_path,
            "paths": request.paths or request.suite.paths,
            "options": (*request.suite.options, *request.options),
            "select": None if request.select is None else sorted(request.select),
            "skip": sorted(request.skip),
            "test_limits": request.test_limits,
            "modules": request.modules,
            "limits": asdict(request.limits),
            "reach": request.reach,
            "part": request.part,
            "sources": request.sources,
            "watched_files": request.watched_files,
            "crossing": self._crossing(request),
            "cold": request.cold,
            "bytecode": bytecode,
            "early": [] if request.cold else preparation.modules,
            "session": preparation.session if may_use_session else "",
            "configuration": preparation.configuration,
            "base_configuration": request.suite.configuration,
            "announce": self._reporter.is_heard,
            "doctests": request.suite.doctests,
            "test_files": request.suite.test_files,
            "test_modules": request.suite.test_modules,
            "foreign_modules": request.suite.foreign_modules,
            "write_bytecode": self._writable_bytecode and bytecode is not None,
        }

    def _rebuild_seconds(self, tree: Tree, request: Request) -> float | None:
        if request.suite.runner != "pytest" or request.kind in ("wheel", "check", "extensions"):
            return None
        self._suite = request.suite
        return self._native_code.rebuild_seconds(tree)

    def _build_extensions(self, tree: Tree) -> NativeBuild:
        reply = self.run(tree, Request(suite=self._suite, limits=self._limits, kind="extensions"))
        for record in reply.of(ExtensionsRecord):
            return NativeBuild(record.error, frozenset(record.sources), reply.seconds)
        return NativeBuild(f"the build was stopped ({reply.stopped or reply.status})", frozenset(), reply.seconds)

    def _own_modules(self, tree: Tree, suite: TestSuite) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tree's own modules; and those in its packages, once a run has shown which of them come from elsewhere."""
        place, is_measured = (tree.root, suite.python_path), bool(suite.test_modules)
        if (*place, is_measured) not in self._own:
            own = own_modules(*place) if suite.runner == "pytest" else ()
            self._own[(*place, is_measured)] = (own, own_submodules(*place, own) if is_measured else ())
        return self._own[(*place, is_measured)]

    def _crossing(self, request: Request) -> dict[str, Any] | None:
        if request.crossing is None:
            return None
        assert self._channel is not None
        return {**request.crossing, "socket": f"{self._sandbox.seen_at(self._channel)}/{request.crossing['socket']}"}

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._session is not None
        try:
            self._session.send(json.dumps(message).encode() + b"\n")
        except SandboxError as error:
            raise self._death(str(error), running=False) from error

    def _receive(self, seconds: float, *, running: bool = False) -> Event:
        """The next event, past those that tell what runs: they set back no deadline."""
        deadline = time.monotonic() + seconds
        told = 0.0
        while isinstance(event := self._next_event(deadline, running=running), RunningEvent):
            if time.monotonic() - told > TOLD_SECONDS:  # whatever comes in between
                told = time.monotonic()
                self._reporter.report(event.test, event.done, event.total)
        return event

    def _next_event(self, deadline: float, *, running: bool) -> Event:
        assert self._session is not None
        while b"\n" not in self._buffer:
            try:
                block = self._session.receive(deadline - time.monotonic())
            except TimeoutError:
                block = b""
            except (SandboxError, OSError):
                block = b""
            if not block or len(self._buffer) > LONGEST_ANSWER:
                reason = self._session.errors or "it did not answer"
                raise self._death(f"the worker died or hung: {reason}", running=running)
            self._buffer += block
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            return decode_event(line)
        except ValueError as error:
            raise self._unexpected(line) from error

    def _unexpected(self, answer: object) -> WorkerDiedError:
        return self._death(f"unexpected answer from the worker: {str(answer)[:200]}", running=False)

    def _death(self, reason: str, *, running: bool) -> WorkerDiedError:
        """Close the sandbox. Returns the error to raise."""
        self.close()
        if self._killed:
            logger.debug("worker killed: folder %s", self._scratch)
        elif logger.isEnabledFor(logging.WARNING):
            logger.warning("worker died: folder %s: %s", self._scratch, visible(reason))
        return WorkerDiedError(reason, running=running, killed=self._killed)


def write_programs(folder: Path) -> Path:
    """Copies the programs that run inside, importable by their own names without the rest of the package."""
    source = Path(inside.__file__).parent
    for path in source.rglob("*.py"):
        copy = folder / "regrade" / "evaluators" / "inside" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        copy.write_bytes(content)
        compiled = Path(cache_from_source(str(copy)))
        compiled.parent.mkdir(exist_ok=True)
        compiled.write_bytes(_bytecode(path.name, content))
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.chmod(0o755)
    return folder


@functools.cache
def _bytecode(name: str, content: bytes) -> bytes:
    """A program, compiled: that takes longer than to run it. An interpreter of another version ignores the result."""
    code = compile(content, name, "exec", dont_inherit=True)
    unchecked = (0b01).to_bytes(4, "little")  # a hash that nobody compares: the copied program never changes
    return MAGIC_NUMBER + unchecked + source_hash(content) + marshal.dumps(code)
