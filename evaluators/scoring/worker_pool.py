"""The warm workers of a scorer, one per thread, and the shared preparation of each suite."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Hashable
from pathlib import Path

from regrade.datasets.tasks import Task, TestSuite
from regrade.evaluators.execution.activity import listener
from regrade.evaluators.execution.environments import toolchain
from regrade.evaluators.execution.packages import installed_packages
from regrade.evaluators.execution.warm_start import bytecode_folder, prepare_suite
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Worker, without_candidate
from regrade.evaluators.execution.worker_environments import WorkerEnvironment, image_environment
from regrade.evaluators.sandboxes import Mount, Sandbox
from regrade.evaluators.sandboxes.scratch import remove
from regrade.evaluators.scoring.environment_cache import EnvironmentCache
from regrade.evaluators.scoring.task_digests import Digests
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
        self._preparations: dict[tuple[Hashable, Path, TestSuite], Preparation] = {}
        self._preparing = threading.Lock()
        self.is_stopped = False

    def worker(self, task: Task) -> Worker:
        """This thread's worker for the task's environment."""
        environment = self._environment(task)
        current = getattr(self._local, "worker", None)
        if current is not None and current[0] == environment:
            worker: Worker = current[1]
            return worker
        if current is not None:
            current[1].close()
        worker = self._new_worker(task)
        self._local.worker = (environment, worker)
        return worker

    def _environment(self, task: Task) -> tuple[Hashable, ...]:
        """Equal for tasks that one worker can serve."""
        packages = installed_packages(task.suite, task.base.root, self._cache)
        if task.suite.image is not None:
            return (task.suite.image, packages)
        return (self._environments.python(task.requirements), packages, toolchain(task.suite.runner))

    def is_isolated(self, task: Task) -> bool:
        """Does the task's sandbox isolate candidates from this machine?"""
        return self._sandbox.isolated or task.suite.image is not None

    def is_warm(self, task: Task) -> bool:
        """Do its tests run with a warm worker? Raises SandboxError: its image can't be started."""
        image = task.suite.image
        return image is None or self._environments.images.facts(image).is_warm(image)

    def pair(self, task: Task) -> WorkerPair:
        """This thread's two further workers for the task's environment, connected by a channel."""
        environment = self._environment(task)
        current = getattr(self._local, "pair", None)
        if current is not None and current[0] == environment:
            pair: WorkerPair = current[1]
            return pair
        if current is not None:
            current[1].close()
        channel = Path(tempfile.mkdtemp(prefix="channel-", dir=self._scratch))
        channel.chmod(0o777)  # each candidate runs as its own user
        # A process can connect to a socket in a read-only folder, so the candidate can't fill the disk.
        tests, candidate = (self._new_worker(task, Mount(channel, "/channel", writable)) for writable in (True, False))
        pair = WorkerPair(tests, candidate, channel)
        self._local.pair = (environment, pair)
        return pair

    def _new_worker(self, task: Task, channel: Mount | None = None) -> Worker:
        environment = self._worker_environment(task)
        with self._lock:
            scratch = Path(tempfile.mkdtemp(prefix="worker-", dir=self._scratch))
            scratch.chmod(0o755)  # candidates may run as another user
            try:
                worker = environment.worker(scratch, limits=task.limits, channel=channel, listener=self._listener)
            except OSError:  # such as a full disk: a retry needs its room
                remove(scratch)
                raise
            self._workers.append(worker)
        return worker

    def _worker_environment(self, task: Task) -> WorkerEnvironment:
        image = task.suite.image
        packages = installed_packages(task.suite, task.base.root, self._cache)
        if image is not None:
            facts = self._environments.images.facts(image)
            bytecode = bytecode_folder(self._cache, facts.python, self._environments.images.identity(image))
            return image_environment(image, facts, packages=packages, bytecode=bytecode)
        python = self._environments.python(task.requirements)
        bytecode = bytecode_folder(self._cache, python, self._environments.identity_of(python))
        tools = toolchain(task.suite.runner)
        return WorkerEnvironment(self._sandbox, python, bytecode=bytecode, packages=packages, tools=tools)

    def preparation(self, task: Task) -> Preparation:
        """The preparation of the task's suite, made by the first calling thread.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        if not self.is_isolated(task) or not self.is_warm(task):
            return UNPREPARED
        key = (self._environment(task), task.base.root, task.suite)
        with self._preparing, without_candidate():
            if key not in self._preparations:
                environment = self._worker_environment(task)
                assert environment.bytecode is not None
                self._preparations[key] = prepare_suite(
                    environment.sandbox,
                    environment.python,
                    task.base,
                    task.suite,
                    task.limits,
                    environment.bytecode,
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
