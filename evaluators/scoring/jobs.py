"""What a scorer is asked for: jobs, the distinct ones among them, and those of one call together."""

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
from regrade.rewards.evidence import EvidenceSet, Verification

Job = tuple[Task, Patch]
Progress = Callable[[int, int], None]
"""Called with (jobs done, jobs in all)."""


@dataclass(kw_only=True)
class DistinctJob:
    """One distinct (task, patch), and the places of all jobs that are equal to it."""

    task: Task
    patch: Patch
    task_key: str
    records: dict[type, Any]
    missing: tuple[type, ...]
    places: list[int] = field(default_factory=list)
    infrastructure: dict[type, str] = field(default_factory=dict)

    def evidence(self, assurance: AssuranceLevel) -> EvidenceSet:
        """All that is known of it by now."""
        verification = self.records.get(Verification)
        if verification is not None and verification.confirmed:
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
        """Jobs of one environment and package follow each other, so that a worker rarely changes either."""
        self.waiting.extend(sorted(jobs, key=lambda job: (job.task.requirements, str(job.task.base.root))))

    def report(self, done: int, total: int, progress: Progress | None) -> int:
        """Report the distinct jobs that finished since; returns how many jobs are done by now."""
        before = done
        while self.finished:
            done += len(self.finished.popleft().places)
        if progress and done != before:
            progress(done, total)
        return done


class Flights:
    """Equal jobs that are asked for at the same time are one: the first gathers, the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[Hashable, Future[EvidenceSet]] = {}

    def join(self, key: Hashable, gather: Callable[[], EvidenceSet]) -> tuple[EvidenceSet, bool]:
        """The evidence, and whether another thread gathered it. Raises what `gather` raises, there and here."""
        with self._lock:
            flight = self._futures.get(key)
            if flight is None:
                own = self._futures[key] = Future()
        if flight is not None:
            return flight.result(), True
        try:
            own.set_result(gather())
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._futures[key]
        return own.result(), False
