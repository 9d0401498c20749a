"""Tasks x patches -> evidence -> breakdowns: in parallel, without gathering any evidence twice.

The planner reads stored evidence (planner.py). The gatherer gathers missing evidence with the warm workers of the pool
(gatherer.py, worker_pool.py). This module distributes the jobs over threads and returns their results.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import Sandbox, SandboxError
from regrade.evaluators.sandboxes.scratch import remove, scratch_folder
from regrade.evaluators.scoring.arguments import (
    MOST_WORKERS,
    checked_count,
    checked_job,
    checked_jobs,
    checked_needs,
    checked_path,
    checked_probes,
    checked_reward,
    checked_share,
    chosen_sandbox,
)
from regrade.evaluators.scoring.environment_cache import EnvironmentCache
from regrade.evaluators.scoring.gatherer import Gatherer
from regrade.evaluators.scoring.jobs import Batch, DistinctJob, Job, Progress, SingleFlight
from regrade.evaluators.scoring.model_probes import ModelProbe, model_probe
from regrade.evaluators.scoring.own_probes import PARAMETERS, own_probe
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.probes import EXECUTED, STATIC, StaticProbe, in_order
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.evaluators.scoring.stats import Stats, Tally
from regrade.evaluators.scoring.task_digests import Digests
from regrade.evaluators.scoring.verifier import ResultT, Verifier, level_of
from regrade.evaluators.scoring.waiting_verdicts import WaitingVerdicts
from regrade.evaluators.scoring.worker_pool import WorkerPool
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.rewards.algebra import Reward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.errors import errors_of_attempt
from regrade.rewards.evidence import EvidenceSet

if TYPE_CHECKING:
    from regrade.evaluators.verification.reference_verification import WorkerSet

__all__ = ["Job", "Progress", "Scorer", "Stats", "score"]
PREDICTED_TOGETHER = 256
"""Patches in one call of a reward model; its answers are stored after each call, so that a kill loses no more."""


class Scorer(AbstractContextManager["Scorer"]):
    """Scores patches on tasks. Owns warm sandboxes and the evidence store: use it in a `with` block.

    Every thread of the scorer owns one worker; a worker starts at its first job.
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
        fresh: bool = False,
    ) -> None:
        """
        Args:
            workers: number of candidates that run at the same time; None: the number of cores.
            sandbox: `auto`, the name of a kind of sandbox, or a sandbox.
            cache: folder of environments, byte code and evidence; None: the user's cache folder.
            probes: your own evidence types -> their probes, which run in this process. (A type with a class method
                `probe` needs no entry: its probe runs in a process that can be killed.) If a probe depends on more than
                the patch and the task, its attribute `identity`, a string, must identify that.
            audit: share of the patches (chosen by their digests) whose whole suite runs after the selected tests, which
                measures the recall of test selection: see `Stats`.
            cold: run every execution in its own sandbox and interpreter, with the whole suite. Slow; the reference for
                comparisons with warm runs.
            fresh: ignore the evidence that earlier scorers stored, gather it again, and store the new evidence.

        Raises:
            UserError: no sandbox works here, the cache is unusable, or an argument is invalid.
        """
        audit = checked_share("audit", audit)
        workers = checked_count("workers", workers, MOST_WORKERS)
        own = checked_probes(probes)
        folder = checked_path("cache", cache) if cache else default_cache()
        self.sandbox = chosen_sandbox(sandbox)
        if not self.sandbox.isolated:
            warnings.warn("the plain process is no security boundary: score only patches that you trust", stacklevel=2)
        cache = usable(folder)
        self._probes = {**STATIC, **own}
        self._count = workers or os.cpu_count() or 1
        self._store = EvidenceStore(cache / "evidence.sqlite")
        self._waiting = WaitingVerdicts()
        self._scratch = scratch_folder()
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="regrade-worker")
        self._environments, self._digests = EnvironmentCache(cache), Digests()
        self._planner = Planner(
            self._store,
            self._environments,
            self._digests,
            self._probes,
            sandbox=self.sandbox.name,
            cold=cold,
            fresh=fresh,
        )
        self._worker_pool = WorkerPool(self.sandbox, self._environments, self._digests, cache, self._scratch)
        self._tally = Tally()
        self._verifier = Verifier(self._worker_pool, self._planner)
        self._static_workers = StaticWorkers()
        self._gatherer = Gatherer(
            self._worker_pool, self._probes, self._tally, self._verifier, self._static_workers, audit=audit, cold=cold
        )
        self._single_flight = SingleFlight()
        self._single_calls = SingleFlight()
        """Of calls of `gather` in several threads; those of the other one run in a thread of the scorer, where nobody
        may wait for a job that has no thread yet."""
        self._stopping = False

    def __exit__(self, *_: object) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    @property
    def assurance(self) -> AssuranceLevel:
        """The assurance level of its verdicts."""
        return AssuranceLevel.IN_PROCESS if self.sandbox.isolated else AssuranceLevel.UNCONFINED

    def _assurance_of(self, task: Task) -> AssuranceLevel:
        return self.assurance if task.suite.image is None else level_of(task.suite.image)

    @property
    def workers(self) -> int:
        """Number of candidates that run at the same time."""
        return self._count

    @property
    def stats(self) -> Stats:
        """The counters of this scorer so far."""
        stats = self._tally.stats
        return replace(stats, damaged=stats.damaged + self._store.damaged)

    def close(self) -> None:
        """Kill all sandboxes and delete all scratch folders. A second call does nothing."""
        self._stopping = True
        self._worker_pool.stop()
        self._static_workers.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._worker_pool.close()
        self._store.close()
        self._waiting.close(self._store.waiting)
        remove(self._scratch)

    def score(
        self, jobs: Sequence[Job], reward: Reward, *, reachable: bool = False, progress: Progress | None = None
    ) -> list[Breakdown]:
        """The breakdown of each job, in order."""
        reward, jobs = checked_reward(reward), list(checked_jobs(jobs))
        gathered = self.gather(jobs, reward.needs, reachable=reachable, progress=progress)
        return [_judged(reward, job, evidence) for job, evidence in zip(jobs, gathered, strict=True)]

    async def score_async(self, task: Task, patch: Patch, reward: Reward, *, reachable: bool = False) -> Breakdown:
        """The breakdown of one job, without blocking the event loop. Any number of calls may run concurrently."""
        reward = checked_reward(reward)
        job = checked_job((task, patch))
        self._check(reward.needs)
        import asyncio

        future = self._threads.submit(self._gather_one, job, reward.needs, Batch(reachable))
        return _judged(reward, job, await asyncio.wrap_future(future))

    def stream(
        self, jobs: Iterable[Job], reward: Reward, *, reachable: bool = False, ahead: int | None = None
    ) -> Iterator[Breakdown]:
        """Yield the breakdown of each job, in order, as soon as it and all earlier ones are available.

        Args:
            ahead: maximum number of jobs read from `jobs` before the first breakdown is yielded, so that a generator
                does not run far ahead of scoring; None: four per worker.
        """
        reward = checked_reward(reward)
        most = checked_count("ahead", ahead) or 4 * self._count
        self._check(reward.needs)
        batch = Batch(reachable)
        waiting: deque[tuple[Job, Future[EvidenceSet]]] = deque()

        def next_one() -> Breakdown:
            job, future = waiting.popleft()
            return _judged(reward, job, future.result())

        try:
            for job in checked_jobs(jobs):
                waiting.append((job, self._threads.submit(self._gather_one, job, reward.needs, batch)))
                if len(waiting) >= most:
                    yield next_one()
            while waiting:
                yield next_one()
        finally:
            batch.stopped = bool(waiting)
            running = [future for _, future in waiting if not future.cancel() and not future.done()]
            if running:
                self._kill_workers()  # nobody reads their results

    def _gather_one(self, job: Job, needs: Collection[type], batch: Batch) -> EvidenceSet:
        """The evidence of one job, in one of the threads."""

        def gather() -> EvidenceSet:
            (distinct,) = self._planner.plan([job], in_order(needs), batch.reachable)
            is_hit = not distinct.missing
            self._predict([distinct], batch)
            if distinct.missing:
                self._gather_missing(distinct, batch)
            self._tally.add(hits=int(is_hit))
            return distinct.evidence(self._assurance_of(distinct.task))

        with self._tally.busy():
            evidence, is_shared = self._single_flight.join(self._planner.identity(job, needs, batch.reachable), gather)
        if is_shared:
            self._tally.add(hits=1)
        return evidence

    def gather(
        self, jobs: Sequence[Job], needs: Collection[type], *, reachable: bool = False, progress: Progress | None = None
    ) -> list[EvidenceSet]:
        """The evidence of each job, in order. Equal jobs share their evidence. Several threads may call it at a time;
        equal calls for one job, as the agents of one task make them, then share one execution.

        Args:
            needs: types of evidence.
            reachable: run only the tests that can reach the change; the others are UNREACHED. Otherwise the whole suite
                follows if all these tests pass.
            progress: called in the calling thread.

        Raises:
            UserError: an environment can't be created, a type of evidence is unknown, or a job is invalid.
        """
        self._check(checked_needs(needs))
        jobs = list(checked_jobs(jobs))

        def gather() -> list[EvidenceSet]:
            return self._gather_all(jobs, in_order(needs), reachable, progress)

        try:
            with self._tally.busy():
                if len(jobs) != 1 or progress is not None:
                    return gather()
                identity = self._planner.identity(jobs[0], needs, reachable)
                evidence, is_shared = self._single_calls.join(identity, lambda: gather()[0])
                self._tally.add(hits=int(is_shared))
                return [evidence]
        except BaseException:
            self._kill_workers()  # nobody reads the results of this call's running jobs
            raise

    def out_of_process(self, task: Task, functions: Sequence[Callable[[WorkerSet], ResultT]]) -> list[ResultT]:
        """Call functions with the workers that run a task's tests and a candidate's code apart, in the threads.

        Raises:
            UserError: the sandbox does not isolate, so nothing runs out of process.
            SandboxError, OSError, WorkerDiedError: a function failed every time, for a reason of this machine.
        """
        if not self.sandbox.isolated:
            raise UserError(f"the sandbox {self.sandbox.name!r} does not isolate: choose bubblewrap or docker")
        futures = [self._threads.submit(self._verifier.use, task, function) for function in functions]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            self._kill_workers()  # nobody reads the results of this call's running functions
            raise

    def _check(self, needs: Collection[type]) -> None:
        if self._stopping:
            raise UserError("this Scorer is closed: create another one, and score inside its `with` block")
        names = [kind.__qualname__ for kind in needs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(
                f"two types of evidence have the name {twice[0]!r}: rename one, as evidence is stored by name"
            )
        for kind in needs:
            if kind not in EXECUTED and kind not in self._probes:
                self._probes[kind] = model_probe(kind) or self._own_probe(kind)

    def _own_probe(self, kind: type) -> StaticProbe:
        own = own_probe(kind)
        if own is None:
            raise UserError(
                f"no probe gathers {kind.__qualname__}: give it a class method probe{PARAMETERS}, or pass "
                f"Scorer(probes={{{kind.__qualname__}: function}})"
            )
        return own

    def _gather_all(
        self, jobs: Sequence[Job], needs: tuple[type, ...], reachable: bool, progress: Progress | None
    ) -> list[EvidenceSet]:
        distinct_jobs = self._planner.plan(jobs, needs, reachable)
        batch = Batch(reachable)
        self._tally.add(hits=len(jobs) - sum(1 for job in distinct_jobs if job.missing))
        self._predict(distinct_jobs, batch)
        batch.add([job for job in distinct_jobs if job.missing])
        done = sum(len(job.positions) for job in distinct_jobs if not job.missing)
        if progress:
            progress(done, len(jobs))
        self._gather_batch(batch, done, len(jobs), progress)
        evidence: dict[int, EvidenceSet] = {}
        for job in distinct_jobs:
            evidence.update(dict.fromkeys(job.positions, job.evidence(self._assurance_of(job.task))))
        return [evidence[position] for position in range(len(jobs))]

    def _predict(self, jobs: Sequence[DistinctJob], batch: Batch) -> None:
        """Gather the missing predictions of reward models, many in one call, before anything runs."""
        for kind, probe in list(self._probes.items()):
            asked = [job for job in jobs if kind in job.missing] if isinstance(probe, ModelProbe) else []
            for start in range(0, len(asked), PREDICTED_TOGETHER):
                self._predict_of_kind(kind, asked[start : start + PREDICTED_TOGETHER], batch)

    def _predict_of_kind(self, kind: type, jobs: Sequence[DistinctJob], batch: Batch) -> None:
        probe = self._probes[kind]
        assert isinstance(probe, ModelProbe)
        try:
            records = probe.predict([(job.task, job.patch) for job in jobs])
        except SandboxError as error:
            if len(jobs) > 1:  # perhaps of one of them only
                for job in jobs:
                    self._predict_of_kind(kind, [job], batch)
                return
            jobs[0].infrastructure[kind] = str(error)
            records = []
        for job, record in zip(jobs, records, strict=False):
            self._add_record(job, kind, record, batch)
        for job in jobs:
            job.missing = tuple(missing for missing in job.missing if missing is not kind)

    def _gather_batch(self, batch: Batch, done: int, total: int, progress: Progress | None) -> None:
        """Run all jobs of the batch in the threads, and report progress in the calling thread."""
        futures = {self._threads.submit(self._drain, batch) for _ in range(min(self._count, len(batch.waiting)))}
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
                self._gather_missing(job, batch)
            except BaseException:
                batch.waiting.clear()
                raise
            batch.finished.append(job)

    def _gather_missing(self, job: DistinctJob, batch: Batch) -> None:
        for kind, record in self._gatherer.missing(job, batch):
            self._add_record(job, kind, record, batch)

    def _add_record(self, job: DistinctJob, kind: type, record: Any, batch: Batch) -> None:
        job.records[kind] = record
        try:
            self._planner.store(job, kind, record, batch.reachable)
        except sqlite3.Error as error:
            # The evidence is valid for this call, and the store retries with the next records.
            self._waiting.add((job.task_key, job.patch.digest), error)
            self._tally.add(unkept=1)
        else:
            self._waiting.stored(self._store.waiting)

    def _kill_workers(self) -> None:
        """Kill all running candidates, on every machine."""
        self._worker_pool.kill()


def _judged(reward: Reward, job: Job, evidence: EvidenceSet) -> Breakdown:
    with errors_of_attempt(f"task {job[0].id!r}, patch {job[1].digest[:12]}"):
        return reward.evaluate(evidence)


def score(task: Task, patch: Patch, reward: Reward, *, reachable: bool = False, **options: Any) -> Breakdown:
    """The breakdown of one patch. `options` are arguments of `Scorer`; for many patches, reuse one Scorer."""
    job, reward = checked_job((task, patch)), checked_reward(reward)
    with Scorer(**{"workers": 1, **options}) as scorer:
        return scorer.score([job], reward, reachable=reachable)[0]
