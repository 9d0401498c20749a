"""The cold worker of a task with an image: a new container for each candidate, where the task's own command runs."""

from __future__ import annotations

import json
import logging
import os
import shlex
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from regrade.datasets.container_images import ContainerImage, engine
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, Tree
from regrade.evaluators.execution.activity import Listener
from regrade.evaluators.execution.image_environments import PROGRAMS, ImageFacts, tests_environment
from regrade.evaluators.execution.records import (
    CollectRecord,
    DoneRecord,
    LeftRecord,
    Record,
    StartedRecord,
    TestRecord,
    WheelRecord,
    decode,
)
from regrade.evaluators.execution.result_readers import LOG_READERS, Report, ReportedCase
from regrade.evaluators.execution.worker import (
    OUTPUT_TAIL,
    Preparation,
    Reply,
    Request,
    Worker,
    WorkerDiedError,
)
from regrade.evaluators.inside.sealing import new_key, unsealed_lines
from regrade.evaluators.sandboxes import Mount, SandboxError
from regrade.evaluators.sandboxes.docker_images import RESULTS, ContainerRun, ImageContainer

logger = logging.getLogger(__name__)
COLD_PROGRAMS = f"{PROGRAMS}/regrade/evaluators/inside/cold"
KEY = "/tmp/.regrade-key"
SEALED = frozenset({"pytest", "unittest"})
"""Readers whose outcomes are recorded in the tests' own process, and sealed."""
SIGNALLED = 128
"""Exit statuses above it mean the death by a signal."""
NO_TESTS = 5
"""pytest's exit status."""


class ContainerWorker(Worker):
    """One folder for trees, and a new container of the image for each candidate."""

    def __init__(
        self,
        image: ContainerImage,
        facts: ImageFacts,
        scratch: Path,
        *,
        limits: Limits | None = None,
        packages: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        """`scratch`: an existing folder for this worker only."""
        super().__init__(
            facts.sandbox(image), Path(facts.python), scratch, limits=limits, packages=packages, listener=listener
        )
        self._image = image
        self._facts = facts
        self._container: ImageContainer | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            container, self._container = self._container, None
        if container is not None:
            container.close()

    def kill(self) -> None:
        with self._lock:
            if self._container is not None:
                self._killed = True
                self._container.kill()

    def _run(self, tree: Tree, request: Request, preparation: Preparation) -> Reply:
        del preparation
        if request.kind != "tests":
            return _not_run(request)
        self._write_tree(tree, request.suite.protected_files)
        try:
            reply = self._run_command(request)
        finally:
            self.close()
        self._rewritten |= self._folder.rewritten()
        return reply

    def _run_command(self, request: Request) -> Reply:
        container = self._started(request)
        image, key = self._image, new_key()
        seconds = 0.0
        try:
            if image.setup:
                done = self._shell(container, image.setup, request, {})
                seconds = done.seconds
                if done.status:
                    return self._failed(container, done, "the setup command")
                if not container.kill_processes():
                    return self._failed(container, done, "the setup command")
            done = self._shell(
                container, _command(request, image, self._facts), request, self._results_environment(), key
            )
            is_killed = container.kill_processes()
            has_overflowed, cpu_seconds = container.facts()
            results = container.results() if is_killed else b""
        except SandboxError as error:
            has_overflowed, _ = container.facts()
            if has_overflowed:
                return Reply(status=-9, stopped="memory", records=(), output="", seconds=seconds, cpu_seconds=0.0)
            raise WorkerDiedError(str(error), running=True, killed=self._killed) from error
        stopped = "memory" if has_overflowed and done.status else done.stopped if is_killed else "processes"
        records = tuple(_records(image.reader, done, results, key)) if not stopped else ()
        last = records[-1] if records else None
        status = last.status if isinstance(last, DoneRecord) else done.status
        output = done.output[-OUTPUT_TAIL:]
        seconds += done.seconds
        return Reply(
            status=status, stopped=stopped, records=records, output=output, seconds=seconds, cpu_seconds=cpu_seconds
        )

    def _started(self, request: Request) -> ImageContainer:
        self._killed = False
        mounts = [
            Mount(self._folder.path, self._facts.workdir, writable=True),
            self._programs,
        ]
        if self._packages is not None:
            mounts.append(Mount(self._packages, f"{os.path.dirname(self._facts.workdir)}/{self._packages.name}"))  # noqa: PTH120
        try:
            client = engine(60)
        except UserError as error:
            raise SandboxError(str(error)) from error
        container = ImageContainer(
            client,
            self._facts.id,
            limits=request.limits,
            mounts=mounts,
            user=self._image.user,
            is_writable=bool(self._image.setup),
        )
        with self._lock:
            self._container = container
        self.starts += 1
        return container

    def _shell(
        self, container: ImageContainer, lines: str, request: Request, variables: dict[str, str], key: bytes = b""
    ) -> ContainerRun:
        """Run shell lines in the folder of the repository, after those that activate the environment."""
        if key:
            line = f"umask 77; printf %s {key.hex()} >{KEY}"
            container.execute(["sh", "-c", line], environment={}, seconds=request.limits.wall_seconds)
        environment = tests_environment(self._image) | variables
        script = f"{self._image.activate}\n{lines}"
        from regrade.evaluators.inside.watching import DISK_MB  # needs modules that only Unix has

        largest = _bytes_below(self._folder.path) + (DISK_MB << 20)
        return container.execute(
            [self._facts.shell, "-c", script],
            workdir=self._facts.workdir,
            environment=environment,
            seconds=request.limits.wall_seconds,
            check=lambda: "disk" if _bytes_below(self._folder.path) > largest else "",
        )

    def _results_environment(self) -> dict[str, str]:
        if self._image.reader not in SEALED:
            return {}
        variables = dict(self._image.environment)
        path = [COLD_PROGRAMS, *filter(None, [variables.get("PYTHONPATH", "")])]
        found = {
            "PYTHONPATH": ":".join(path),
            "REGRADE_KEY": KEY,
            "REGRADE_PIPE": RESULTS,
            "REGRADE_READER": self._image.reader,
        }
        if self._image.reader == "pytest":
            found["PYTEST_ADDOPTS"] = (
                f"{variables.get('PYTEST_ADDOPTS', '')} -p regrade_pytest -p no:cacheprovider".strip()
            )
        return found

    def _failed(self, container: ImageContainer, done: ContainerRun, what: str) -> Reply:
        _, cpu_seconds = container.facts()
        lines = [line for line in done.output.strip().splitlines() if line.strip()]
        reason = f"{what} exited with status {done.status}: {lines[-1] if lines else 'no output'}"
        return Reply(
            status=done.status,
            stopped=done.stopped,
            records=(LeftRecord(reason[:500]),),
            output=done.output[-OUTPUT_TAIL:],
            seconds=done.seconds,
            cpu_seconds=cpu_seconds,
        )


def _not_run(request: Request) -> Reply:
    """Builds and imports are not checked in a cold container: no failure is found."""
    records: list[Record] = [WheelRecord("none", "not built in a container")] if request.kind == "wheel" else []
    return Reply(status=0, stopped="", records=(*records, DoneRecord(0)), output="", seconds=0.0, cpu_seconds=0.0)


def _command(request: Request, image: ContainerImage, facts: ImageFacts) -> str:
    files = " ".join(map(shlex.quote, filter(None, request.paths or request.suite.paths)))
    if image.command:
        return image.command.replace("{files}", files).replace("{report}", RESULTS)
    options = " ".join(map(shlex.quote, (*request.suite.options, *request.options)))
    return f"{shlex.quote(facts.python)} -m pytest -q --tb=short {options} {files}"


def _records(reader: str, done: ContainerRun, results: bytes, key: bytes) -> Iterator[Record]:
    """The records of an execution; the last one is a LeftRecord if the outcomes show nothing."""
    if reader in SEALED:
        yield from _sealed_records(done, results, key)
        return
    report = LOG_READERS[reader](done.output, results.decode("utf-8", "replace"))
    for case in report.cases:
        yield TestRecord(case.id, case.status, 0.0, case.message)
    yield _last_record(done, report)


def _last_record(done: ContainerRun, report: Report) -> Record:
    if report.problem:
        return LeftRecord(f"{report.problem}{_last_line(done)}"[:500])
    if done.status >= SIGNALLED or (done.status and not report.has_failure):
        return LeftRecord(
            f"the command exited with status {done.status}, but its report contains no failure{_last_line(done)}"[:500]
        )
    return DoneRecord(int(report.has_failure))


def _sealed_records(done: ContainerRun, results: bytes, key: bytes) -> Iterator[Record]:
    lines = unsealed_lines(results, key)
    if len(lines) < sum(1 for line in results.split(b"\n") if line.strip()):
        yield LeftRecord("the pipe of results contains what the test runner did not write")
        return
    has_finished = has_failure = False
    for line in lines:
        value = json.loads(line)
        has_finished = has_finished or value[0] == "finished"
        for record in decode([line]):
            if isinstance(record, (TestRecord, CollectRecord, StartedRecord)):
                yield record
            has_failure = has_failure or isinstance(record, CollectRecord)
            has_failure = has_failure or (isinstance(record, TestRecord) and record.status in ("failed", "error"))
    problem = "" if has_finished else "the test runner did not end" if lines else "the test runner recorded nothing"
    # pytest has collected no test.
    status = 0 if done.status == NO_TESTS and has_finished else done.status
    yield _last_record(
        replace(done, status=status),
        Report(problem=problem) if problem else Report(_FAILURE if has_failure else ()),
    )


_FAILURE = (ReportedCase("", "failed"),)


def _last_line(done: ContainerRun) -> str:
    lines = [line for line in done.output.strip().splitlines() if line.strip()]
    return f" ({lines[-1].strip()[:200]})" if lines else ""


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{parent}/{name}").st_blocks * 512
            except OSError:
                continue
    return total
