"""The jobs of a server: one per distinct answer, however many requests wait for it; bounded, in the order of arrival.

    absent -> waiting -> running -> finished
                 |          |
                 |          +--> failed: the work raised, or the server stopped before it ended
                 +--> dropped: nobody waited for it any more

A request that comes while an equal job waits or runs joins it. A job whose last request left keeps its place for some
seconds, since clients time out and post the same again. After that, a waiting job is dropped. A running job ends within
the limits of its task, and its evidence is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
LONGEST_PAUSE = 60.0
"""Seconds: the most that a client of a full queue is told to wait."""
WEIGHT_OF_LAST = 0.1
"""Weight of the last job in the moving average of job times."""


class UnavailableError(RuntimeError):
    """The server cannot take or finish a job now: the client posts it again."""

    def __init__(self, why: str, retry_after: float) -> None:
        super().__init__(why)
        self.retry_after = retry_after
        """Seconds until the client should try again."""


@dataclass(eq=False)
class QueuedJob(Generic[RequestT, ResultT]):
    """One distinct job, and how many requests wait for it."""

    key: str
    request: RequestT
    result: asyncio.Future[ResultT]
    waiting_requests: int = 0
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    is_remembered: bool = False
    """Did an earlier request get this result? Then nothing ran for this one."""
    _departure: asyncio.TimerHandle | None = None
    """Drops the job, once its last request has left for long enough."""


@dataclass(frozen=True)
class QueueCounts:
    """What a queue did so far, and what it holds now."""

    waiting: int
    running: int
    started: int
    """Jobs that ran."""
    joined: int
    """Requests that joined a waiting or running job."""
    remembered: int
    """Requests with the result of a finished job."""
    refused: int
    """Jobs for which the queue had no room."""
    dropped: int
    """Jobs that nobody waited for any more."""


class JobQueue(Generic[RequestT, ResultT]):
    """Runs jobs, some at a time. All methods run in one event loop."""

    def __init__(
        self,
        work: Callable[[RequestT], Awaitable[ResultT]],
        is_final: Callable[[ResultT], bool],
        *,
        running: int,
        capacity: int,
        linger: float,
        remembered: int,
    ) -> None:
        """
        Args:
            work: runs a job.
            is_final: may a result answer later requests too? Otherwise an equal request runs the job again.
            running: most jobs that run at a time.
            capacity: most jobs that wait.
            linger: seconds for which a job without requests keeps its place.
            remembered: most final results in memory, the least recently used of which are evicted.
        """
        self._work = work
        self._is_final = is_final
        self._most_running = running
        self.capacity = capacity
        self._linger = linger
        self._most_remembered = remembered
        self._jobs: dict[str, QueuedJob[RequestT, ResultT]] = {}
        self._waiting: deque[QueuedJob[RequestT, ResultT]] = deque()
        self._running: dict[asyncio.Task[None], QueuedJob[RequestT, ResultT]] = {}
        self._results: OrderedDict[str, ResultT] = OrderedDict()
        self._is_draining = False
        self._seconds_of_a_job = 1.0
        self._counts = dict.fromkeys(("started", "joined", "remembered", "refused", "dropped"), 0)

    @property
    def counts(self) -> QueueCounts:
        return QueueCounts(waiting=len(self._waiting), running=len(self._running), **self._counts)

    @property
    def is_draining(self) -> bool:
        """Has the server begun to stop?"""
        return self._is_draining

    @contextmanager
    def joined(self, requests: Sequence[tuple[str, RequestT]]) -> Iterator[list[QueuedJob[RequestT, ResultT]]]:
        """The jobs of these (key, request), in order. At the end of the block, the caller no longer waits for them.

        Raises:
            UnavailableError: there is no room for all of them, or the server stops; then none of them was queued.
        """
        jobs = self._join(requests)
        try:
            yield jobs
        finally:
            for job in jobs:
                self._leave(job)

    def _join(self, requests: Sequence[tuple[str, RequestT]]) -> list[QueuedJob[RequestT, ResultT]]:
        if self._is_draining:
            raise UnavailableError("the server is stopping: post the same again, to the next one", 1.0)
        absent = {key for key, _ in requests if key not in self._jobs and key not in self._results}
        room = self.capacity - len(self._waiting)
        if len(absent) > room:
            self._counts["refused"] += len(absent)
            raise UnavailableError(
                f"the queue holds {len(self._waiting)} of at most {self.capacity} jobs, and has no room for "
                f"{len(absent)} more: post the same again later",
                self._pause(),
            )
        jobs = [self._joined_job(key, request) for key, request in requests]
        self._start_waiting()
        return jobs

    def _joined_job(self, key: str, request: RequestT) -> QueuedJob[RequestT, ResultT]:
        job = self._jobs.get(key)
        if job is not None:
            self._counts["joined"] += 1
        elif key in self._results:
            self._counts["remembered"] += 1
            self._results.move_to_end(key)
            job = self._new_job(key, request)
            job.is_remembered = True
            job.result.set_result(self._results[key])
        else:
            job = self._jobs[key] = self._new_job(key, request)
            self._waiting.append(job)
        job.waiting_requests += 1
        if job._departure is not None:
            job._departure.cancel()
            job._departure = None
        return job

    def _new_job(self, key: str, request: RequestT) -> QueuedJob[RequestT, ResultT]:
        return QueuedJob(key, request, asyncio.get_running_loop().create_future())

    def _pause(self) -> float:
        """Seconds until about a tenth of the queue is done."""
        rounds = max(1.0, self.capacity / 10) / self._most_running
        return min(max(1.0, rounds * self._seconds_of_a_job), LONGEST_PAUSE)

    def _leave(self, job: QueuedJob[RequestT, ResultT]) -> None:
        job.waiting_requests -= 1
        if job.waiting_requests == 0 and job.started_at is None and not job.result.done():
            job._departure = asyncio.get_running_loop().call_later(self._linger, self._drop, job)

    def _drop(self, job: QueuedJob[RequestT, ResultT]) -> None:
        if job.started_at is None and not job.result.done():
            self._waiting.remove(job)
            del self._jobs[job.key]
            job.result.cancel()
            self._counts["dropped"] += 1

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._most_running:
            job = self._waiting.popleft()
            job.started_at = time.monotonic()
            self._counts["started"] += 1
            task = asyncio.get_running_loop().create_task(self._run(job))
            self._running[task] = job
            task.add_done_callback(self._on_end)

    async def _run(self, job: QueuedJob[RequestT, ResultT]) -> None:
        try:
            result = await self._work(job.request)
        except Exception as error:  # each request that waits for the job raises it
            if not job.result.done():
                job.result.set_exception(error)
                job.result.exception()  # perhaps nobody waits any more
            return
        if self._is_final(result):
            self._results[job.key] = result
            if len(self._results) > self._most_remembered:
                self._results.popitem(last=False)
        if not job.result.done():
            job.result.set_result(result)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        self._jobs.pop(job.key, None)
        if job.started_at is not None:
            seconds = time.monotonic() - job.started_at
            self._seconds_of_a_job += WEIGHT_OF_LAST * (seconds - self._seconds_of_a_job)
        if not self._is_draining:
            self._start_waiting()

    def refuse_new_jobs(self) -> None:
        """Begin to stop: jobs that wait fail at once, so that their clients post them again; running jobs go on."""
        self._is_draining = True
        while self._waiting:
            self._fail(self._waiting.popleft())

    async def drain(self, seconds: float) -> None:
        """Stop: wait for the running jobs, at most for some seconds; the remaining ones fail."""
        self.refuse_new_jobs()
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)
        for task, job in list(self._running.items()):
            self._fail(job)
            task.cancel()

    def _fail(self, job: QueuedJob[RequestT, ResultT]) -> None:
        self._jobs.pop(job.key, None)
        if not job.result.done():
            job.result.set_exception(UnavailableError("the server stopped before this job ended: post it again", 1.0))
            job.result.exception()
