"""Answers in, verdicts out: the queue in front of the scorer, apart from HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.digests import key_of
from regrade.policy_training.adapters.verdicts import Answer, Verdict, Verdicts
from regrade.policy_training.serving.job_queue import JobQueue, QueuedJob, UnavailableError
from regrade.policy_training.serving.metrics import ServerMetrics
from regrade.policy_training.serving.schema import AnswerStatus
from regrade.policy_training.serving.settings import ServerSettings

logger = logging.getLogger(__name__)
AnswerJob = QueuedJob[Answer, Verdict]
AFTER_UNSCORED = 10.0
"""Seconds after which a client without a number should post again: the scorer has retried for as long already."""


class UnknownTaskError(UserError):
    """A request names a task that the server does not have."""


class TooManyAnswersError(UserError):
    """A request has more answers than one may have."""


@dataclass(frozen=True)
class Judged:
    """What became of one answer of a request."""

    index: int
    task_id: str
    digest: str
    status: AnswerStatus
    verdict: Verdict | None
    """None: there is none, for the cause."""
    cause: str

    @property
    def value(self) -> float | None:
        """None unless it is scored."""
        return self.verdict.value if self.verdict is not None else None

    def number(self) -> float:
        """The value, for a trainer whose protocol has nothing but numbers.

        Raises:
            UnavailableError: there is none, and another post may get one.
            UserError: the reward raised an error.
        """
        if self.value is not None:
            return self.value
        why = f"task {self.task_id!r}, answer {self.digest[:12]}: {self.status}: {self.cause}"
        if self.status is AnswerStatus.FAILED:
            raise UserError(why)
        raise UnavailableError(why, 1.0 if self.status is AnswerStatus.UNFINISHED else AFTER_UNSCORED)


class RewardService:
    """One reward for some tasks. Equal answers are scored once, however often and by whomever they are posted."""

    def __init__(
        self,
        verdicts: Verdicts,
        settings: ServerSettings,
        *,
        running: int,
    ) -> None:
        """
        Args:
            running: most answers that are judged at a time.
        """
        self.settings = settings
        self.name = verdicts.reward.reward.name
        self._reward_key = json.dumps(verdicts.reward.to_json(), sort_keys=True, default=str)
        self.tasks = verdicts.tasks
        self._verdicts = verdicts
        self.queue: JobQueue[Answer, Verdict] = JobQueue(
            self._judge,
            lambda verdict: verdict.value is not None,
            running=running,
            capacity=settings.queue,
            linger=settings.linger,
            remembered=settings.remembered,
        )
        self.metrics = ServerMetrics(lambda: self.queue.counts, lambda: verdicts.scorer.stats)
        self._open_sessions = 0
        self.replies: set[asyncio.Future[bool]] = set()
        """Replies that WebSockets wait for: a server that stops sends them before it closes the connections."""

    async def _judge(self, answer: Answer) -> Verdict:
        started = time.perf_counter()
        try:
            return await self._verdicts.of_one(answer)
        finally:
            self.metrics.job_seconds.observe(time.perf_counter() - started)

    async def judged(self, answers: Sequence[Answer], deadline: float | None = None) -> list[Judged]:
        """What became of each answer, in order, at the latest after `deadline` seconds. Raises as `joined` does."""
        with self.joined(answers) as jobs:
            results = [each async for each in self.results(jobs, deadline) if each is not None]
        return sorted(results, key=lambda each: each.index)

    @contextmanager
    def joined(self, answers: Sequence[Answer]) -> Iterator[list[AnswerJob]]:
        """The jobs of the answers, in order; within the block, a client waits for them.

        Raises:
            UnavailableError: the queue has no room, or the server stops; nothing was queued.
            UnknownTaskError: there is no such task; nothing was queued.
            TooManyAnswersError: nothing was queued.
        """
        self._check(answers)
        with self.queue.joined([(self.digest(answer), answer) for answer in answers]) as jobs:
            yield jobs

    async def results(
        self, jobs: Sequence[AnswerJob], deadline: float | None = None, silence: float = math.inf
    ) -> AsyncGenerator[Judged | None, None]:
        """Yield what became of each job, as soon as it is known, at the latest after `deadline` seconds; None after
        each `silence` seconds without a result.
        """
        seconds = min(deadline or self.settings.deadline, self.settings.deadline)
        ends_at = time.monotonic() + seconds
        indices: dict[asyncio.Future[Verdict], list[int]] = {}
        for index, job in enumerate(jobs):
            indices.setdefault(job.result, []).append(index)
        finished: asyncio.Queue[asyncio.Future[Verdict]] = asyncio.Queue()
        for future in indices:
            future.add_done_callback(finished.put_nowait)
        try:
            while indices:
                left = ends_at - time.monotonic()
                try:
                    async with asyncio.timeout(max(0.0, min(left, silence))):
                        future = await finished.get()
                except TimeoutError:
                    if left <= silence:
                        break
                    yield None
                    continue
                for index in indices.pop(future):
                    yield self._logged(index, jobs[index], seconds)
        finally:
            for future in indices:
                future.remove_done_callback(finished.put_nowait)
        for remaining in indices.values():
            for index in remaining:
                yield self._logged(index, jobs[index], seconds)

    @contextmanager
    def session(self) -> Iterator[bool]:
        """A WebSocket is open within the block. Yields whether the limit of connections admits it."""
        self._open_sessions += 1
        try:
            yield self._open_sessions <= self.settings.connections
        finally:
            self._open_sessions -= 1

    def _check(self, answers: Sequence[Answer]) -> None:
        if len(answers) > self.settings.answers:
            raise TooManyAnswersError(
                f"the request has {len(answers)} answers; send at most {self.settings.answers} at a time"
            )
        for index, answer in enumerate(answers):
            if answer.task_id not in self.tasks:
                raise UnknownTaskError(
                    f"answer {index}: the server has no task {answer.task_id[:200]!r}, but {len(self.tasks)} others, "
                    f"such as {next(iter(self.tasks))!r}"
                )

    def digest(self, answer: Answer) -> str:
        """Equal for equal answers to the same task, under the reward of this server."""
        content = msgspec.to_builtins(answer, enc_hook=str)
        return key_of([self._reward_key, json.dumps(content, sort_keys=True)]).hex()

    def _logged(self, index: int, job: AnswerJob, seconds: float) -> Judged:
        judged = _judged_job(index, job, seconds)
        self.metrics.verdicts.labels(judged.status.value).inc()
        if judged.status is not AnswerStatus.SCORED or not job.is_remembered:
            logger.info(
                "%s: task %s, answer %s",
                judged.status.value,
                judged.task_id,
                judged.digest[:12],
                extra={
                    "task_id": judged.task_id,
                    "digest": judged.digest,
                    "value": judged.value,
                    "cause": judged.cause,
                },
            )
        return judged


def _judged_job(index: int, job: AnswerJob, seconds: float) -> Judged:
    task_id = job.request.task_id
    if not job.result.done():
        why = f"not scored within {seconds:g} s: post the same again, which joins the running answer"
        return Judged(index, task_id, job.key, AnswerStatus.UNFINISHED, None, why)
    error = job.result.exception()
    if isinstance(error, UnavailableError):
        return Judged(index, task_id, job.key, AnswerStatus.UNFINISHED, None, str(error))
    if error is not None:
        if not isinstance(error, UserError):
            logger.error("scoring failed: task %s, answer %s", task_id, job.key[:12], exc_info=error)
        return Judged(index, task_id, job.key, AnswerStatus.FAILED, None, f"{type(error).__name__}: {error}")
    verdict = job.result.result()
    status = AnswerStatus.UNSCORED if verdict.value is None else AnswerStatus.SCORED
    return Judged(index, task_id, job.key, status, verdict, verdict.cause)
