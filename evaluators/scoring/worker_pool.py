"""The warm workers of a scorer, one per thread, and the shared preparation of each suite."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from regrade.datasets.tasks import Task, TestSuite
from regrade.evaluators.execution.activity import listener
from regrade.evaluators.execution.environments import installed_packages, toolchain
from regrade.evaluators.execution.warm_start import prepare_suite
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Worker, without_candidate
from regrade.evaluators.sandboxes import Mount, Sandbox
from regrade.evaluators.sandboxes.scratch import remove
from regrade.evaluators.scoring.environment_cache import EnvironmentCache
from regrade.evaluators.scoring.task_digests import Digests
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.verification.two_process import WorkerPair


class WorkerPool:
    """One worker per calling thread; it starts at the thread's first call."""

    def __init__(
        self, sandbox: Sandbox, environments: EnvironmentCache, digests: Digests, cache: Path, scratch: Path
    ) -> None:
        """
        Args:
            cache: folder of the byte code.
            scratch: an existing folder for the workers' scratch folders.
        """
        self._sandbox = sandbox
        self._environments = environments
        self._digests = digests
        self._cache = cache
        self._scratch = scratch
        self._listener = listener()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._workers: list[Worker] = []
        self._preparations: dict[tuple[Path, Path, TestSuite], Preparation] = {}
        self._preparing = threading.Lock()
        self.is_stopped = False

    def worker(self, task: Task) -> Worker:
        """This thread's worker for the task's environment."""
        python = self._environments.python(task.requirements)
        packages = installed_packages(task.suite, task.base.root)
        current = getattr(self._local, "worker", None)
        environment = (python, packages, toolchain(task.suite.runner))
        if current is not None and current[0] == environment:
            worker: Worker = current[1]
            return worker
        if current is not None:
            current[1].close()
        worker = self._new_worker(task)
        self._local.worker = (environment, worker)
        return worker

    @property
    def isolated(self) -> bool:
        """Does the sandbox isolate candidates from this machine?"""
        return self._sandbox.isolated

    def pair(self, task: Task) -> WorkerPair:
        """This thread's two further workers for the task's environment, connected by a channel."""
        python = self._environments.python(task.requirements)
        current = getattr(self._local, "pair", None)
        if current is not None and current[0] == python:
            pair: WorkerPair = current[1]
            return pair
        if current is not None:
            current[1].close()
        channel = Path(tempfile.mkdtemp(prefix="channel-", dir=self._scratch))
        channel.chmod(0o777)  # each candidate runs as its own user
        # A process can connect to a socket in a read-only folder, so the candidate can't fill the disk.
        tests, candidate = (self._new_worker(task, Mount(channel, "/channel", writable)) for writable in (True, False))
        pair = WorkerPair(tests, candidate, channel)
        self._local.pair = (python, pair)
        return pair

    def _new_worker(self, task: Task, channel: Mount | None = None) -> Worker:
        python = self._environments.python(task.requirements)
        with self._lock:
            scratch = Path(tempfile.mkdtemp(prefix="worker-", dir=self._scratch))
            scratch.chmod(0o755)  # candidates may run as another user
            try:
                worker = Worker(
                    self._sandbox,
                    python,
                    scratch,
                    self._bytecode_folder(python),
                    limits=task.limits,
                    packages=installed_packages(task.suite, task.base.root),
                    tools=toolchain(task.suite.runner),
                    channel=channel,
                    listener=self._listener,
                )
            except OSError:  # such as a full disk: a retry needs its room
                remove(scratch)
                raise
            self._workers.append(worker)
        return worker

    def _bytecode_folder(self, python: Path) -> Path:
        folder = self._cache / "bytecode" / key_of([str(python), self._environments.identity_of(python)]).hex()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def preparation(self, task: Task) -> Preparation:
        """The preparation of the task's suite, made by the first calling thread.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        if not self._sandbox.isolated:
            return UNPREPARED
        python = self._environments.python(task.requirements)
        key = (python, task.base.root, task.suite)
        with self._preparing, without_candidate():
            if key not in self._preparations:
                self._preparations[key] = prepare_suite(
                    self._sandbox,
                    python,
                    task.base,
                    task.suite,
                    task.limits,
                    self._bytecode_folder(python),
                    self._scratch,
                    self._digests.of_root(task.base.root),
                )
            return self._preparations[key].of(task)

    def kill(self) -> None:
        """Kill all running candidates: their threads get WorkerDiedError, and the next run starts a fresh sandbox."""
        with self._lock:
            for worker in self._workers:
                worker.kill()

    def stop(self) -> None:
        """Kill all running candidates and stop retries."""
        self.is_stopped = True
        self.kill()

    def close(self) -> None:
        """Kill all sandboxes. No thread may use its worker afterwards."""
        for worker in self._workers:
            worker.close()
