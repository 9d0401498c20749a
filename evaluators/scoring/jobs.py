"""The jobs of a scorer: distinct jobs, the batch of one call, single-flight deduplication."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import DefaultVerification, EvidenceSet, TestRun, Verification

Job = tuple[Task, Patch]
Progress = Callable[[int, int], None]
"""Called with (jobs done, jobs in all)."""


@dataclass(kw_only=True)
class DistinctJob:
    """One distinct (task, patch), and the positions of all jobs equal to it."""

    task: Task
    patch: Patch
    task_key: str
    records: dict[type, Any]
    missing: tuple[type, ...]
    positions: list[int] = field(default_factory=list)
    infrastructure: dict[type, str] = field(default_factory=dict)

    def evidence(self, assurance: AssuranceLevel) -> EvidenceSet:
        """All evidence gathered so far."""
        run = self.records.get(TestRun)
        verification = self.records.get(Verification, self.records.get(DefaultVerification))
        if run is not None and run.fixed and verification is not None:
            assurance = verification.level
        return EvidenceSet(self.records, self.infrastructure, assurance)


@dataclass
class Batch:
    """The distinct jobs of one call, shared by its threads."""

    reachable: bool
    waiting: deque[DistinctJob] = field(default_factory=deque)
    finished: deque[DistinctJob] = field(default_factory=deque)
    stopped: bool = False

    def add(self, jobs: list[DistinctJob]) -> None:
        """Queue jobs, grouped by environment and package, so that a worker rarely changes either."""
        self.waiting.extend(sorted(jobs, key=lambda job: (job.task.requirements, str(job.task.base.root))))

    def report(self, done: int, total: int, progress: Progress | None) -> int:
        """Report the distinct jobs that finished since the last report; returns the number of finished jobs."""
        before = done
        while self.finished:
            done += len(self.finished.popleft().positions)
        if progress and done != before:
            progress(done, total)
        return done


class SingleFlight:
    """Single-flight deduplication: of equal concurrent jobs the first gathers, the others wait for its evidence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[Hashable, Future[EvidenceSet]] = {}

    def join(self, key: Hashable, gather: Callable[[], EvidenceSet]) -> tuple[EvidenceSet, bool]:
        """The evidence, and whether another thread gathered it. All waiting threads raise an error of `gather`."""
        with self._lock:
            shared = self._futures.get(key)
            if shared is None:
                own = self._futures[key] = Future()
        if shared is not None:
            return shared.result(), True
        try:
            own.set_result(gather())
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._futures[key]
        return own.result(), False
