"""Tasks x patches -> evidence -> breakdowns: in parallel, each equal patch once, nothing gathered twice.

What is known already, the planner finds in the store (planning.py); what is missing, the gatherer gathers in the crew's
warm workers (gathering.py, crew.py). This module takes the jobs, shares them out among threads and answers.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import warnings
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from regrade.datasets.caches import default_cache, full_disk, usable
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.sandboxes.scratch import remove, scratch_folder
from regrade.evaluators.scoring.arguments import (
    checked_count,
    checked_job,
    checked_needs,
    checked_path,
    checked_probes,
    checked_reward,
    checked_share,
    chosen_sandbox,
    each_job,
)
from regrade.evaluators.scoring.environment_cache import Environments
from regrade.evaluators.scoring.gatherer import Gatherer
from regrade.evaluators.scoring.jobs import Batch, DistinctJob, Flights, Job, Progress
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.probes import EXECUTED, STATIC, StaticProbe, in_order
from regrade.evaluators.scoring.stats import Stats, Tally
from regrade.evaluators.scoring.task_digests import Digests
from regrade.evaluators.scoring.verifier import Verifier
from regrade.evaluators.scoring.worker_pool import Crew
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.rewards.algebra import Reward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.evidence import EvidenceSet, Prediction

__all__ = ["Job", "Progress", "Scorer", "Stats", "score"]


class Scorer(AbstractContextManager["Scorer"]):
    """Scores patches on tasks. Holds warm sandboxes and the evidence store: use it in a `with` block.

    Every thread of the scorer owns one worker; workers start when they are first needed.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        sandbox: str | Sandbox = "auto",
        cache: str | Path | None = None,
        probes: Mapping[type, StaticProbe] | None = None,
        audit: float = 0.0,
        cold: bool = False,
    ) -> None:
        """
        Args:
            workers: candidates run at a time; None: the number of cores.
            sandbox: `auto`, the name of a kind of sandbox, or a sandbox.
            cache: where environments, byte code and evidence are kept; None: the user's cache folder.
            probes: evidence types of your own -> what gathers them. Where its answers depend on more than the patch and
                the task, a probe says on what by an attribute `identity`, a string.
            audit: share of the patches (chosen by their digests) whose whole suite runs although a selection would do,
                to measure what the selection misses: see `Stats`.
            cold: every execution in a sandbox and an interpreter of its own, with the whole suite: slow, and the
                reference that the warm way is held against.

        Raises:
            UserError: no sandbox works here, the cache can't be used, or an argument is not what it should be.
        """
        audit = checked_share("audit", audit)
        workers = checked_count("workers", workers)
        own = checked_probes(probes)
        folder = checked_path("cache", cache) if cache else default_cache()
        self.sandbox = chosen_sandbox(sandbox)
        if not self.sandbox.isolated:
            warnings.warn("the plain process is no security boundary: score only patches that you trust", stacklevel=2)
        cache = usable(folder)
        self._probes = {**STATIC, **own}
        self._count = workers or os.cpu_count() or 1
        self._store = EvidenceStore(cache / "evidence.sqlite")
        self._scratch = scratch_folder()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="regrade-worker")
        self._environments, self._digests = Environments(cache), Digests()
        self._planner = Planner(
            self._store, self._environments, self._digests, self._probes, sandbox=self.sandbox.name, cold=cold
        )
        self._crew = Crew(self.sandbox, self._environments, self._digests, cache, self._scratch)
        self._tally = Tally()
        verifier = Verifier(self._crew, self._planner)
        self._gatherer = Gatherer(self._crew, self._probes, self._tally, verifier, audit=audit, cold=cold)
        self._flights = Flights()
        self._stopping = False

    def __exit__(self, *_: object) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    @property
    def assurance(self) -> AssuranceLevel:
        """How far its verdicts can be trusted."""
        return AssuranceLevel.IN_PROCESS if self.sandbox.isolated else AssuranceLevel.UNCONFINED

    @property
    def stats(self) -> Stats:
        """What it has done so far."""
        found = self._tally.stats
        return replace(found, damaged=found.damaged + self._store.damaged)

    def close(self) -> None:
        """Kill all sandboxes and delete all scratch folders. May be called twice."""
        self._stopping = True
        self._crew.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._crew.close()
        self._store.close()
        remove(self._scratch)

    def score(
        self, jobs: Sequence[Job], reward: Reward, *, reachable: bool = False, progress: Progress | None = None
    ) -> list[Breakdown]:
        """The breakdown of each job, in order."""
        reward = checked_reward(reward)
        return [
            reward.evaluate(evidence)
            for evidence in self.gather(jobs, reward.needs, reachable=reachable, progress=progress)
        ]

    async def score_async(self, task: Task, patch: Patch, reward: Reward, *, reachable: bool = False) -> Breakdown:
        """The breakdown of one job, without blocking the event loop. Await as many at once as you like."""
        reward = checked_reward(reward)
        job = checked_job((task, patch))
        self._check(reward.needs)
        future = self._pool.submit(self._one, job, reward.needs, Batch(reachable))
        return reward.evaluate(await asyncio.wrap_future(future))

    def stream(
        self, jobs: Iterable[Job], reward: Reward, *, reachable: bool = False, ahead: int | None = None
    ) -> Iterator[Breakdown]:
        """The breakdown of each job, in order, each as soon as it and those before it are known.

        Args:
            ahead: how many jobs are taken from `jobs` before the first of them is answered, so that a generator of jobs
                is held back where scoring is slower; None: four a worker.
        """
        reward = checked_reward(reward)
        most = checked_count("ahead", ahead) or 4 * self._count
        self._check(reward.needs)
        batch = Batch(reachable)
        waiting: deque[Future[EvidenceSet]] = deque()
        try:
            for job in each_job(jobs):
                waiting.append(self._pool.submit(self._one, job, reward.needs, batch))
                if len(waiting) >= most:
                    yield reward.evaluate(waiting.popleft().result())
            while waiting:
                yield reward.evaluate(waiting.popleft().result())
        finally:
            batch.stopped = bool(waiting)
            running = [future for future in waiting if not future.cancel() and not future.done()]
            if running:
                self._kill_workers()  # they are wanted by nobody

    def _one(self, job: Job, needs: Collection[type], batch: Batch) -> EvidenceSet:
        """The evidence of one job, in a thread of the pool."""

        def gather() -> EvidenceSet:
            (distinct,) = self._planner.plan([job], in_order(needs), batch.reachable)
            if distinct.missing:
                self._do(distinct, batch)
            else:
                self._tally.add(hits=1)
            return distinct.evidence(self.assurance)

        with self._tally.work():
            evidence, is_shared = self._flights.join(self._planner.identity(job, needs, batch.reachable), gather)
        if is_shared:
            self._tally.add(hits=1)
        return evidence

    def gather(
        self, jobs: Sequence[Job], needs: Collection[type], *, reachable: bool = False, progress: Progress | None = None
    ) -> list[EvidenceSet]:
        """The evidence of each job, in order. Equal jobs share theirs.

        Args:
            needs: types of evidence.
            reachable: run only the tests that can reach the change; the others are UNREACHED. Otherwise the whole suite
                follows where these say that the patch is good.
            progress: called in this thread.

        Raises:
            UserError: an environment can't be made, a type of evidence is unknown, or a job is no task with its patch.
        """
        self._check(checked_needs(needs))
        jobs = list(each_job(jobs))
        try:
            with self._tally.work():
                return self._gather(jobs, in_order(needs), reachable, progress)
        except BaseException:
            self._kill_workers()  # what still runs for this call is wanted by nobody
            raise

    def _check(self, needs: Collection[type]) -> None:
        if self._stopping:
            raise UserError("this Scorer is closed: make another one, and score inside its `with` block")
        for kind in needs:
            if kind is Prediction and kind not in self._probes:
                raise UserError("the reward asks a reward model: name the folder of one with --reward-model")
            if kind not in EXECUTED and kind not in self._probes:
                raise UserError(
                    f"nothing gathers {kind.__qualname__}: pass Scorer(probes={{{kind.__qualname__}: function}})"
                )

    def _gather(
        self, jobs: Sequence[Job], needs: tuple[type, ...], reachable: bool, progress: Progress | None
    ) -> list[EvidenceSet]:
        distinct_jobs = self._planner.plan(jobs, needs, reachable)
        batch = Batch(reachable)
        batch.add([job for job in distinct_jobs if job.missing])
        self._tally.add(hits=len(jobs) - len(batch.waiting))
        done = sum(len(job.places) for job in distinct_jobs if not job.missing)
        if progress:
            progress(done, len(jobs))
        self._work_off(batch, done, len(jobs), progress)
        found: dict[int, EvidenceSet] = {}
        for job in distinct_jobs:
            found.update(dict.fromkeys(job.places, job.evidence(self.assurance)))
        return [found[place] for place in range(len(jobs))]

    def _work_off(self, batch: Batch, done: int, total: int, progress: Progress | None) -> None:
        """Have the threads do all jobs of the batch, and report them in this one."""
        futures = {self._pool.submit(self._drain, batch) for _ in range(min(self._count, len(batch.waiting)))}
        try:
            while futures:
                ended, futures = wait(futures, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                done = batch.report(done, total, progress)
        finally:
            batch.stopped = bool(futures)
            batch.waiting.clear()
        batch.report(done, total, progress)

    # ------------------------------------------------------------ in the worker threads

    def _drain(self, batch: Batch) -> None:
        while not batch.stopped:
            try:
                job = batch.waiting.popleft()
            except IndexError:
                return
            try:
                self._do(job, batch)
            except BaseException:
                batch.waiting.clear()
                raise
            batch.finished.append(job)

    def _do(self, job: DistinctJob, batch: Batch) -> None:
        for kind, record in self._gatherer.missing(job, batch):
            self._take(job, kind, record, batch)

    def _take(self, job: DistinctJob, kind: type, record: Any, batch: Batch) -> None:
        job.records[kind] = record
        try:
            self._planner.keep(job, kind, record, batch.reachable)
        except sqlite3.Error as error:
            # The evidence is still good for this call, and the store tries again with what comes next.
            if not self._tally.stats.unkept:
                why = (
                    f"what is found out can't be kept; where that lasts, it is found out again the next time ({error})"
                )
                warnings.warn("; ".join(filter(None, (why, full_disk(error)))), stacklevel=2)
            self._tally.add(unkept=1)

    def _kill_workers(self) -> None:
        """End what runs, wherever it does."""
        self._crew.kill()


def score(task: Task, patch: Patch, reward: Reward, *, reachable: bool = False, **options: Any) -> Breakdown:
    """The breakdown of one patch. Options are those of `Scorer`; for many patches, hold a Scorer."""
    job, reward = checked_job((task, patch)), checked_reward(reward)
    with Scorer(**{"workers": 1, **options}) as scorer:
        return scorer.score([job], reward, reachable=reachable)[0]
