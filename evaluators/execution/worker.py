"""A warm worker: one sandbox with a preloaded interpreter that forks a child per candidate."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from regrade.datasets.globs import is_protected
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.datasets.visible_text import visible
from regrade.evaluators import inside
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.execution.records import DoneEvent, Event, ForkedEvent, ReadyEvent, Record, decode, decode_event
from regrade.evaluators.sandboxes import Mount, Program, Sandbox, SandboxError, Session

logger = logging.getLogger(__name__)
LONGEST_ANSWER = 64 << 20
START_SECONDS = 300.0
"""A start takes a second; on a machine that is very busy it takes longer."""
GRACE_SECONDS = 60.0
PATIENCE = 10
"""The worker keeps the candidate's clock; only after this many times the limit, and the grace, is the whole sandbox
hung.
"""
TOOLS = "/tools"
"""Where candidates see programs that are not among the system's own."""
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
    # Candidates run side by side, and a library that starts threads could not be imported before a fork: the last one
    # is of the allocator that pyarrow, and with it pandas, brings along.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
OfKind = TypeVar("OfKind", bound=Record)


class WorkerDiedError(RuntimeError):
    """The whole worker died.

    `running`: a candidate had been forked, so it may be the candidate's doing. `killed`: this side did it.
    """

    def __init__(self, reason: str, *, running: bool, killed: bool = False) -> None:
        super().__init__(reason)
        self.running = running and not killed
        self.killed = killed


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a candidate is to do."""

    suite: TestSuite
    limits: Limits
    kind: str = "tests"
    """`tests`; `imports`: import the modules and report those that fail; `wheel`: build the project's wheel;
    `check`: see whether the files of `paths` compile; `candidate`: serve what crosses from another worker;
    `inputs`: ask another worker's candidate."""
    paths: tuple[str, ...] = ()
    """Test files given to pytest; empty: the suite's own paths."""
    select: frozenset[str] | None = None
    """Ids of the tests to run; None: all that are collected."""
    options: tuple[str, ...] = ()
    """pytest options beyond the suite's own."""
    modules: tuple[str, ...] = ()
    reach: Mapping[str, float] | None = None
    """Find out which functions each test executes instead of what becomes of it. The tests that pass in the suite, and
    their seconds there."""
    crossing: Mapping[str, Any] | None = None
    """How calls cross to another worker's candidate (see `regrade.evaluators.verification.two_process`)."""
    cold: bool = False
    """In an interpreter started for it, in a sandbox started for it, instead of a fork of the warm one."""


@dataclass(frozen=True)
class Preparation:
    """What candidates of one suite share."""

    bytecode: str
    """Name of the folder of byte code (see `Worker`); what a candidate changed is compiled anew, by its other time."""
    session: str = ""
    """Key of the prepared session; empty: the suite's conftest.py files need a session from the start."""
    configuration: str = ""
    """Path in the sandbox of the configuration file that pytest chose; empty: none."""
    modules: tuple[str, ...] = ()
    """Modules of other places than the tree that its tests import: the worker imports them once, for all candidates."""

    def of(self, task: Task) -> Preparation:
        """The same for a task; one whose base changes tests or configuration shares no session."""
        changed = (*task.base.replaced, *task.base.removed)
        if any(is_protected(path, task.suite.protected) for path in changed):
            return Preparation(self.bytecode, modules=self.modules)
        return self


UNPREPARED = Preparation("")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of it."""

    status: int
    """Exit status, or minus the number of the signal that killed it."""
    stopped: str
    """What this side stopped it for: `timeout`, `memory`, `disk`; or empty."""
    records: tuple[Record, ...]
    """In the order in which they were written: the last one is a DoneRecord or a LeftRecord, unless it was killed."""
    output: str
    """The end of what it printed."""
    seconds: float
    cpu_seconds: float

    def of(self, kind: type[OfKind]) -> list[OfKind]:
        """The records of one kind, in their order."""
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
    ) -> None:
        """
        Args:
            scratch: an existing folder of its own.
            bytecode: a folder of byte code that candidates see.
            packages: a folder `node_modules` that candidates see beside their tree.
            tools: a folder whose `bin` comes first on their path.
            channel: a folder that two workers share, for a socket between their candidates.
        """
        self._sandbox = sandbox
        self._python = python
        self._scratch = scratch
        self._limits = limits or Limits()
        self._writable_bytecode = writable_bytecode
        self._programs = Mount(_programs(scratch / "programs"), "/regrade")
        self._bytecode: Mount | None = None
        if bytecode and (sandbox.isolated or writable_bytecode):  # no candidate may write what another one reads
            self._bytecode = Mount(bytecode, "/bytecode", writable_bytecode)
        self._packages = packages
        self._tools = tools
        self._channel = channel
        self._session: Session | None = None
        self._folder = Folder(scratch / "tree")
        self._buffer = b""
        self._killed = False
        self.starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def isolated(self) -> bool:
        """Is it a sandbox that keeps candidates from this machine?"""
        return self._sandbox.isolated

    def run(self, tree: Tree, request: Request, preparation: Preparation = UNPREPARED) -> Reply:
        """Lay the tree and run the request on it.

        Raises:
            SandboxError, OSError: the sandbox or the disk failed before any candidate ran.
            WorkerDiedError: the worker died or hung.
        """
        if request.cold:
            self.close()
        self._lay(tree, request.suite.protected)
        self._ensure_started()
        self._send(self._message(request, preparation))
        event = self._receive(START_SECONDS)
        if isinstance(event, ForkedEvent):
            event = self._receive(request.limits.wall_seconds * PATIENCE + GRACE_SECONDS, running=True)
        if not isinstance(event, DoneEvent):
            raise self._unexpected(event)
        if event.stopped or not event.clean:
            self.close()  # a fresh sandbox for the next candidate
        logger.debug(
            "candidate ended: folder %s, %s, status %s, limit reached: %s, %.2f s",
            self._scratch, request.kind, event.status, event.stopped or "none", event.seconds,
        )  # fmt: skip
        return Reply(
            status=event.status,
            stopped=event.stopped,
            records=decode(event.lines),
            output=event.output,
            seconds=event.seconds,
            cpu_seconds=event.cpu,
        )

    def close(self) -> None:
        """Kill the sandbox and everything in it; the next run starts a fresh one."""
        session, self._session, self._buffer = self._session, None, b""
        if session is not None:
            session.close()

    def kill(self) -> None:
        """From another thread: kill the sandbox, so that a run in progress raises WorkerDiedError."""
        session = self._session
        if session is not None:
            self._killed = True
            session.kill()

    def _lay(self, tree: Tree, protected: tuple[str, ...]) -> None:
        try:
            self._folder.lay(tree, protected)
        except (OSError, RecursionError):
            # The last candidate left something that can't be undone file by file: start from an empty folder.
            self.close()
            subprocess.run(["rm", "-rf", "--", str(self._folder.path)], check=False, timeout=300)
            if self._folder.path.exists():
                self._folder.path.rename(self._scratch / f"abandoned-{time.time_ns()}")
            self._folder = Folder(self._scratch / "tree")
            self._folder.lay(tree, protected)

    def _ensure_started(self) -> None:
        if self._session is not None:
            return
        mounts = [Mount(self._folder.path, "/repo", writable=True), self._programs]
        if self._bytecode:
            mounts.append(self._bytecode)
        if self._packages is not None:
            # In a folder above the tree, where Node looks for packages after the tree's own.
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
            arguments=("-s", "-P", "-c", self._program()),
            mounts=tuple(mounts),
            environment=environment,
            limits=self._limits,
        )
        self._killed = False
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

    def _program(self) -> str:
        folder = self._sandbox.seen_at(self._programs)
        return (
            f"import sys; sys.path.insert(0, {folder!r}); from regrade.evaluators.inside.worker import main; "
            f"sys.path.pop(0); main({self._sandbox.candidate_user}, {self._sandbox.alone})"
        )

    def _message(self, request: Request, preparation: Preparation) -> dict[str, Any]:
        root = self._sandbox.seen_at(Mount(self._folder.path, "/repo", writable=True))
        may_be_prepared = (
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
            "modules": request.modules,
            "limits": asdict(request.limits),
            "reach": request.reach,
            "crossing": self._crossing(request),
            "cold": request.cold,
            "bytecode": bytecode,
            "early": [] if request.cold else preparation.modules,
            "session": preparation.session if may_be_prepared else "",
            "configuration": preparation.configuration,
            "write_bytecode": self._writable_bytecode and bytecode is not None,
        }

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
        assert self._session is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            try:
                block = self._session.receive(deadline - time.monotonic())
            except TimeoutError:
                block = b""
            except (SandboxError, OSError):
                block = b""
            if not block or len(self._buffer) > LONGEST_ANSWER:
                reason = self._session.errors or "it gave no answer"
                raise self._death(f"the worker died or hung: {reason}", running=running)
            self._buffer += block
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            return decode_event(line)
        except ValueError as error:
            raise self._unexpected(line) from error

    def _unexpected(self, answer: object) -> WorkerDiedError:
        return self._death(f"unexpected answer of the worker: {str(answer)[:200]}", running=False)

    def _death(self, reason: str, *, running: bool) -> WorkerDiedError:
        """The error to raise; the sandbox is closed."""
        self.close()
        if self._killed:
            logger.debug("worker killed: folder %s", self._scratch)
        elif logger.isEnabledFor(logging.WARNING):
            logger.warning("worker died: folder %s: %s", self._scratch, visible(reason))
        return WorkerDiedError(reason, running=running, killed=self._killed)


def _programs(folder: Path) -> Path:
    """A copy of the programs that run inside, importable by their own names without the rest of the package."""
    source = Path(inside.__file__).parent
    for path in source.rglob("*.py"):
        copy = folder / "regrade" / "evaluators" / "inside" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.chmod(0o755)
    return folder
