"""A warm worker: one sandbox with a preloaded interpreter that forks a child per candidate."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from regrade.datasets.globs import is_protected
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators import inside
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.sandboxes import Mount, Program, Sandbox, SandboxError, Session

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


class WorkerDiedError(RuntimeError):
    """The whole worker died.

    `running`: a candidate had been forked, so it may be the candidate's doing. `killed`: this side did it.
    """

    def __init__(self, reason: str, *, running: bool, killed: bool = False) -> None:
        super().__init__(reason)
        self.running = running and not killed
        self.killed = killed


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Reply:
    """What came of it."""

    status: int
    """Exit status, or minus the number of the signal that killed it."""
    stopped: str
    """What this side stopped it for: `timeout`, `memory`, `disk`; or empty."""
    records: tuple[list[Any], ...]
    """The lines that `inside/recorder.py` and `inside/reach.py` describe, and `["done", status]` or `["left", error]`
    at the end.
    """
    output: str
    """The end of what it printed."""
    seconds: float
    cpu_seconds: float


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
        answer = self._receive(START_SECONDS)
        if answer.get("event") == "forked":
            answer = self._receive(request.limits.wall_seconds * PATIENCE + GRACE_SECONDS, running=True)
        if answer.get("event") != "done":
            self.close()
            raise WorkerDiedError(f"unexpected answer of the worker: {str(answer)[:200]}", running=False)
        if answer["stopped"] or not answer["clean"]:
            self.close()  # a fresh sandbox for the next candidate
        return Reply(
            answer["status"],
            answer["stopped"],
            tuple(_records(answer["lines"])),
            answer["output"],
            answer["seconds"],
            answer["cpu"],
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
            self._python,
            ("-s", "-P", "-c", self._program()),
            tuple(mounts),
            environment,
            self._limits,
        )
        self._killed = False
        self._session = self._sandbox.start(program)
        self.starts += 1
        try:
            ready = self._receive(START_SECONDS)
        except WorkerDiedError as error:
            raise SandboxError(f"the worker did not start in the {self._sandbox.name} sandbox: {error}") from error
        if ready.get("event") != "ready":
            self.close()
            raise SandboxError(f"the worker did not start: {str(ready)[:200]}")

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
            self.close()
            raise WorkerDiedError(str(error), running=False, killed=self._killed) from error

    def _receive(self, seconds: float, *, running: bool = False) -> dict[str, Any]:
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
                self.close()
                raise WorkerDiedError(f"the worker died or hung: {reason}", running=running, killed=self._killed)
            self._buffer += block
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer


def _records(lines: Sequence[str]) -> list[list[Any]]:
    """The lines that are whole records: the last one of a killed candidate may be cut, and none is trusted to be well
    formed.
    """
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, list) and record and isinstance(record[0], str):
            records.append(record)
    return records


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
