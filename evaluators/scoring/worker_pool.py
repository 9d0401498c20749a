"""The warm workers of a scorer, one a thread, and what the candidates of one suite share."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from regrade.datasets.tasks import Task, TestSuite
from regrade.evaluators.execution.environments import installed_packages, toolchain
from regrade.evaluators.execution.warm_start import prepare_suite
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Worker
from regrade.evaluators.sandboxes import Mount, Sandbox
from regrade.evaluators.scoring.environment_cache import Environments
from regrade.evaluators.scoring.task_digests import Digests
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.verification.two_process import WorkerPair


class Crew:
    """Every thread that asks has one worker, which starts when it is first needed."""

    def __init__(
        self, sandbox: Sandbox, environments: Environments, digests: Digests, cache: Path, scratch: Path
    ) -> None:
        """
        Args:
            cache: byte code is kept there.
            scratch: an existing folder for the workers' own.
        """
        self._sandbox = sandbox
        self._environments = environments
        self._digests = digests
        self._cache = cache
        self._scratch = scratch
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
        held = getattr(self._local, "held", None)
        wanted = (python, packages, toolchain(task.suite.runner))
        if held is not None and held[0] == wanted:
            worker: Worker = held[1]
            return worker
        if held is not None:
            held[1].close()
        worker = self._new_worker(task)
        self._local.held = (wanted, worker)
        return worker

    @property
    def isolated(self) -> bool:
        """Are candidates kept from this machine?"""
        return self._sandbox.isolated

    def pair(self, task: Task) -> WorkerPair:
        """This thread's two further workers for the task's environment, whose candidates can speak to each other."""
        python = self._environments.python(task.requirements)
        held = getattr(self._local, "pair", None)
        if held is not None and held[0] == python:
            pair: WorkerPair = held[1]
            return pair
        if held is not None:
            held[1].close()
        channel = Path(tempfile.mkdtemp(prefix="channel-", dir=self._scratch))
        channel.chmod(0o777)  # each candidate is a user of its own
        # To a socket one can connect where one may not write, so that no candidate fills the disk.
        tests, candidate = (self._new_worker(task, Mount(channel, "/channel", writable)) for writable in (True, False))
        pair = WorkerPair(tests, candidate, channel)
        self._local.pair = (python, pair)
        return pair

    def _new_worker(self, task: Task, channel: Mount | None = None) -> Worker:
        python = self._environments.python(task.requirements)
        with self._lock:
            scratch = self._scratch / f"worker-{len(self._workers)}"
            scratch.mkdir()
            bytecode = self._bytecode_folder(python)
            worker = Worker(
                self._sandbox,
                python,
                scratch,
                bytecode,
                limits=task.limits,
                packages=installed_packages(task.suite, task.base.root),
                tools=toolchain(task.suite.runner),
                channel=channel,
            )
            self._workers.append(worker)
        return worker

    def _bytecode_folder(self, python: Path) -> Path:
        folder = self._cache / "bytecode" / key_of([str(python), self._environments.identity_of(python)]).hex()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def preparation(self, task: Task) -> Preparation:
        """What is prepared for the task's suite, by the first thread that asks.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        if not self._sandbox.isolated:
            return UNPREPARED
        python = self._environments.python(task.requirements)
        key = (python, task.base.root, task.suite)
        with self._preparing:
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
        """Kill what runs, from any thread: it raises WorkerDiedError there, and the next run starts a fresh sandbox."""
        with self._lock:
            for worker in self._workers:
                worker.kill()

    def stop(self) -> None:
        """Kill what runs, for good: what raises from now on is not tried again."""
        self.is_stopped = True
        self.kill()

    def close(self) -> None:
        """Kill all sandboxes. No thread may use its worker any more."""
        for worker in self._workers:
            worker.close()
