"""Tasks x patches -> evidence -> breakdowns: in parallel, each equal patch once, nothing gathered twice."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, TestSuite
from regrade.evaluators.arguments import (
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
from regrade.evaluators.building import Builder
from regrade.evaluators.environments import installed_packages, runner_identity, toolchain
from regrade.evaluators.executions import not_applied, run_tests, run_tests_cold
from regrade.evaluators.lookups import Digests, Environments
from regrade.evaluators.preparations import prepare_suite
from regrade.evaluators.probes import (
    EXECUTED,
    STATIC,
    StaticProbe,
    code_version,
    static_evidence,
)
from regrade.evaluators.sandboxes import Sandbox, SandboxError
from regrade.evaluators.scratch import remove, scratch_folder
from regrade.evaluators.store import EvidenceStore, key_of
from regrade.evaluators.workers import UNPREPARED, Preparation, Worker, WorkerDied
from regrade.evaluators.workspaces import Workspace, prepare
from regrade.rewards.algebra import Reward
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.evidence import BuildRun, End, EvidenceSet, Prediction, TestRun

Job = tuple[Task, Patch]
Progress = Callable[[int, int], None]
"""Called with (jobs done, jobs in all)."""
BACK_OFF = (0.5, 2.0, 8.0)
"""Seconds before each further attempt after a failure of the infrastructure."""


@dataclass(frozen=True)
class Stats:
    """What a scorer has done so far."""

    executions: int = 0
    """Candidates that were run."""
    hits: int = 0
    """Jobs answered from the store or by an equal job."""
    cpu_seconds: float = 0.0
    """CPU time of the candidates."""
    wall_seconds: float = 0.0
    """Wall time in `gather`."""
    retries: int = 0
    """Attempts that the infrastructure failed."""
    audited: int = 0
    """Executions of a selection of tests that were followed by the others, to see what they find."""
    caught: int = 0
    """Of the tests that audited patches break, those that were selected."""
    missed: tuple[str, ...] = ()
    """Those that were not, as `task: test`."""

    @property
    def selection_recall(self) -> float | None:
        """The share of the broken tests that the selection caught; None where no audited patch broke one."""
        broken = self.caught + len(self.missed)
        return self.caught / broken if broken else None


@dataclass
class Work:
    """One distinct (task, patch), and all jobs that ask for it."""

    task: Task
    patch: Patch
    task_key: str
    records: dict[type, Any]
    missing: tuple[type, ...]
    places: list[int] = field(default_factory=list)
    infrastructure: dict[type, str] = field(default_factory=dict)


@dataclass
class Batch:
    """The works of one call of `gather`, as its threads share them."""

    waiting: deque[Work]
    full: bool
    finished: deque[Work] = field(default_factory=deque)
    stopped: bool = False


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
        self._audit = checked_share("audit", audit)
        workers = checked_count("workers", workers)
        own = checked_probes(probes)
        folder = checked_path("cache", cache) if cache else default_cache()
        self.sandbox = chosen_sandbox(sandbox)
        if not self.sandbox.isolated:
            warnings.warn("the plain process is no security boundary: score only patches that you trust", stacklevel=2)
        self._cache = usable(folder)
        self._static = {**STATIC, **own}
        self._count = workers or os.cpu_count() or 1
        self._store = EvidenceStore(self._cache / "evidence.sqlite")
        self._scratch = scratch_folder()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="regrade-worker")
        self._environments = Environments(self._cache)
        self._digests = Digests()
        self._version = code_version()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._workers: list[Worker] = []
        self._preparations: dict[tuple[Path, Path, TestSuite], Preparation] = {}
        self._preparing = threading.Lock()
        self._builder = Builder()
        self._stopping = False
        self._cold = cold
        self._flights: dict[tuple[Any, ...], Future[EvidenceSet]] = {}
        self.stats = Stats()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    @property
    def assurance(self) -> str:
        """How far its verdicts can be trusted."""
        return "in-process" if self.sandbox.isolated else "unconfined"

    def close(self) -> None:
        """Kill all sandboxes and delete all scratch folders. May be called twice."""
        self._stopping = True
        self._kill_workers()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._store.close()
        remove(self._scratch)

    def score(
        self, jobs: Sequence[Job], reward: Reward, *, full: bool = False, progress: Progress | None = None
    ) -> list[Breakdown]:
        """The breakdown of each job, in order."""
        reward = checked_reward(reward)
        return [reward.evaluate(evidence) for evidence in self.gather(jobs, reward.needs, full=full, progress=progress)]

    async def score_async(self, task: Task, patch: Patch, reward: Reward, *, full: bool = False) -> Breakdown:
        """The breakdown of one job, without blocking the event loop. Await as many at once as you like."""
        reward = checked_reward(reward)
        job = checked_job((task, patch))
        self._check(reward.needs)
        future = self._pool.submit(self._one, job, reward.needs, Batch(deque(), full))
        return reward.evaluate(await asyncio.wrap_future(future))

    def stream(
        self, jobs: Iterable[Job], reward: Reward, *, full: bool = False, ahead: int | None = None
    ) -> Iterator[Breakdown]:
        """The breakdown of each job, in order, each as soon as it and those before it are known.

        Args:
            ahead: how many jobs are taken from `jobs` before the first of them is answered, so that a generator of jobs
                is held back where scoring is slower; None: four a worker.
        """
        reward = checked_reward(reward)
        most = checked_count("ahead", ahead) or 4 * self._count
        self._check(reward.needs)
        batch = Batch(deque(), full)
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
        """The evidence of one job, in a thread of the pool. Equal jobs at the same time are one."""
        key = (self._task_key(job[0]), job[1].digest, frozenset(needs), batch.full)
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                own = self._flights[key] = Future()
        if flight is not None:
            self._count_up(hits=1)
            return flight.result()
        try:
            (work,) = self._plan([job], tuple(needs), batch.full)
            if work.missing:
                self._do(work, batch)
            else:
                self._count_up(hits=1)
            own.set_result(EvidenceSet(work.records, work.infrastructure, self.assurance))
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]
        return own.result()

    def gather(
        self, jobs: Sequence[Job], needs: Collection[type], *, full: bool = False, progress: Progress | None = None
    ) -> list[EvidenceSet]:
        """The evidence of each job, in order. Equal jobs share theirs.

        Args:
            needs: types of evidence.
            full: run the whole suite where the tests that reach the change say that the patch is good. Otherwise the
                tests that can't reach the change are UNREACHED.
            progress: called in this thread.

        Raises:
            UserError: an environment can't be made, a type of evidence is unknown, or a job is no task with its patch.
        """
        self._check(checked_needs(needs))
        jobs = list(each_job(jobs))
        started = time.monotonic()
        try:
            return self._gather(jobs, tuple(sorted(set(needs), key=lambda kind: kind.__qualname__)), full, progress)
        except BaseException:
            self._kill_workers()  # what still runs for this call is wanted by nobody
            raise
        finally:
            self._count_up(wall_seconds=time.monotonic() - started)

    def _check(self, needs: Collection[type]) -> None:
        if self._stopping:
            raise UserError("this Scorer is closed: make another one, and score inside its `with` block")
        for kind in needs:
            if kind is Prediction and kind not in self._static:
                raise UserError("the reward asks a reward model: name the folder of one with --reward-model")
            if kind not in EXECUTED and kind not in self._static:
                raise UserError(
                    f"nothing gathers {kind.__qualname__}: pass Scorer(probes={{{kind.__qualname__}: function}})"
                )

    # ------------------------------------------------------------ planning

    def _gather(
        self, jobs: Sequence[Job], needs: tuple[type, ...], full: bool, progress: Progress | None
    ) -> list[EvidenceSet]:
        works = self._plan(jobs, needs, full)
        batch = Batch(deque(sorted((work for work in works if work.missing), key=_group)), full)
        done = sum(len(work.places) for work in works if not work.missing)
        self._count_up(hits=len(jobs) - len(batch.waiting))
        if progress:
            progress(done, len(jobs))
        futures = {self._pool.submit(self._drain, batch) for _ in range(min(self._count, len(batch.waiting)))}
        try:
            while futures:
                ended, futures = wait(futures, timeout=0.1, return_when=FIRST_COMPLETED)
                _raise_first(ended)
                done = _report(batch.finished, done, len(jobs), progress)
        finally:
            batch.stopped = bool(futures)
            batch.waiting.clear()
        _report(batch.finished, done, len(jobs), progress)
        results: list[EvidenceSet | None] = [None] * len(jobs)
        for work in works:
            evidence = EvidenceSet(work.records, work.infrastructure, self.assurance)
            for place in work.places:
                results[place] = evidence
        return [evidence for evidence in results if evidence is not None]

    def _plan(self, jobs: Sequence[Job], needs: tuple[type, ...], full: bool) -> list[Work]:
        """The distinct jobs, with what the store knows of them."""
        works: dict[tuple[str, str], Work] = {}
        keys: dict[int, str] = {}
        for place, (task, patch) in enumerate(jobs):
            if id(task) not in keys:
                keys[id(task)] = self._task_key(task)
            distinct = (keys[id(task)], patch.digest)
            if distinct not in works:
                records = {}
                for kind in needs:
                    record = self._store.get(self._evidence_key(*distinct, kind, full), kind, task)
                    if record is not None:
                        records[kind] = record
                missing = tuple(kind for kind in needs if kind not in records)
                works[distinct] = Work(task, patch, distinct[0], records, missing)
            works[distinct].places.append(place)
        return list(works.values())

    def _task_key(self, task: Task) -> str:
        """Digest of all of a task that could change its evidence, its environment and the measure of reach included."""
        base, suite = task.base, task.suite
        parts = (
            self._digests.of_root(base.root),
            self._digests.of_task(task),
            suite,
            self._digests.of_reach(suite),
            task.limits,
            self._environments.identity(task.requirements),
            runner_identity(suite.runner, installed_packages(suite, base.root)),
        )
        return key_of([repr(parts)]).hex()

    def _evidence_key(self, task_key: str, patch_digest: str, kind: type, full: bool) -> bytes:
        scope = ("cold" if self._cold else "full" if full else "reachable") if kind is TestRun else ""
        sandbox = self.sandbox.name if kind in EXECUTED else ""
        probe = getattr(self._static.get(kind), "identity", "")
        name = f"{kind.__module__}.{kind.__qualname__}"
        return key_of([task_key, patch_digest, name, self._version, sandbox, scope, probe])

    # ------------------------------------------------------------ in the worker threads

    def _drain(self, batch: Batch) -> None:
        while not batch.stopped:
            try:
                work = batch.waiting.popleft()
            except IndexError:
                return
            try:
                self._do(work, batch)
            except BaseException:
                batch.waiting.clear()
                raise
            batch.finished.append(work)

    def _do(self, work: Work, batch: Batch) -> None:
        task, patch = work.task, work.patch
        reason = ""
        try:
            workspace = prepare(task, patch)
        except PatchError as error:
            reason, workspace = str(error), Workspace(task.base, task.base)
        except OSError as error:  # the disk is full, say: this job is not known, the others of the call still may be
            work.infrastructure.update(dict.fromkeys(work.missing, f"{type(error).__name__}: {error}"))
            return
        for kind in work.missing:
            if kind not in EXECUTED:
                record = static_evidence(self._static[kind], kind, workspace.before, workspace.after, patch, task)
            elif reason:
                record = not_applied(task, reason) if kind is TestRun else BuildRun(False, 0, reason)
            else:
                record = self._execute(kind, work, workspace, batch)
            if record is not None:
                work.records[kind] = record
                self._keep(self._evidence_key(work.task_key, patch.digest, kind, batch.full), record)

    def _keep(self, key: bytes, record: Any) -> None:
        try:
            self._store.put(key, record)
        except sqlite3.Error:
            # The evidence is still good for this call; the next one gathers it again.
            self._count_up(retries=1)

    def _execute(self, kind: type, work: Work, workspace: Workspace, batch: Batch) -> Any:
        """TestRun or BuildRun; None where the infrastructure failed, with the reason in `work.infrastructure`."""
        deaths, failures = 0, 0
        while True:
            try:
                return self._tests(work, workspace, batch.full) if kind is TestRun else self._build(work, workspace)
            except WorkerDied as error:
                if batch.stopped or self._stopping:
                    raise
                if error.killed:  # for the sake of another call
                    continue
                if error.running:
                    deaths += 1
                    if deaths == 2:  # twice, in fresh sandboxes: that is the candidate's doing
                        return _killer(kind, work.task, str(error))
                    continue
                failure: Exception = error
            except (SandboxError, OSError) as error:
                if batch.stopped or self._stopping:
                    raise
                failure = error
            if failures == len(BACK_OFF):
                work.infrastructure[kind] = f"{type(failure).__name__}: {failure}"
                return None
            time.sleep(BACK_OFF[failures])
            failures += 1
            self._count_up(retries=1)

    def _tests(self, work: Work, workspace: Workspace, full: bool) -> TestRun:
        worker = self._worker(work.task)
        if self._cold:
            done = run_tests_cold(worker, work.task, workspace)
        else:
            audit = int(key_of([work.task_key, work.patch.digest, "audit"]).hex()[:8], 16) < self._audit * 16**8
            preparation = self._preparation(work.task)
            done = run_tests(worker, work.task, workspace, full=full, preparation=preparation, audit=audit)
        self._count_up(executions=1, cpu_seconds=done.cpu_seconds)
        if done.audit is not None:
            missed = tuple(f"{work.task.id}: {test}" for test in done.audit.missed)
            self._count_up(audited=1, caught=done.audit.caught, missed=missed)
        return done.run

    def _build(self, work: Work, workspace: Workspace) -> BuildRun:
        task = work.task
        build, executions = self._builder.build(
            self._worker(task), task, work.patch, workspace, self._preparation(task), work.task_key
        )
        self._count_up(executions=executions)
        return build

    def _worker(self, task: Task) -> Worker:
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

    def _new_worker(self, task: Task) -> Worker:
        python = self._environments.python(task.requirements)
        with self._lock:
            scratch = self._scratch / f"worker-{len(self._workers)}"
            scratch.mkdir()
            bytecode = self._bytecode_folder(python)
            worker = Worker(
                self.sandbox,
                python,
                scratch,
                bytecode,
                limits=task.limits,
                packages=installed_packages(task.suite, task.base.root),
                tools=toolchain(task.suite.runner),
            )
            self._workers.append(worker)
        return worker

    def _bytecode_folder(self, python: Path) -> Path:
        folder = self._cache / "bytecode" / key_of([str(python), self._environments.identity_of(python)]).hex()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _preparation(self, task: Task) -> Preparation:
        """What is prepared for the task's suite, by the first thread that asks."""
        if not self.sandbox.isolated:
            return UNPREPARED
        python = self._environments.python(task.requirements)
        key = (python, task.base.root, task.suite)
        with self._preparing:
            if key not in self._preparations:
                self._preparations[key] = prepare_suite(
                    self.sandbox,
                    python,
                    task.base,
                    task.suite,
                    task.limits,
                    self._bytecode_folder(python),
                    self._scratch,
                    self._digests.of_root(task.base.root),
                )
            return self._preparations[key].of(task)

    def _kill_workers(self) -> None:
        with self._lock:
            for worker in self._workers:
                worker.kill()

    def _count_up(self, **amounts: Any) -> None:
        with self._lock:
            self.stats = replace(
                self.stats,
                **{name: getattr(self.stats, name) + amount for name, amount in amounts.items()},
            )


def score(task: Task, patch: Patch, reward: Reward, *, full: bool = False, **options: Any) -> Breakdown:
    """The breakdown of one patch. Options are those of `Scorer`; for many patches, hold a Scorer."""
    job, reward = checked_job((task, patch)), checked_reward(reward)
    with Scorer(**{"workers": 1, **options}) as scorer:
        return scorer.score([job], reward, full=full)[0]


def _group(work: Work) -> tuple[tuple[str, ...], str]:
    """Jobs of one environment and package follow each other, so that a worker rarely changes either."""
    return work.task.requirements, str(work.task.base.root)


def _raise_first(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()


def _report(finished: deque[Work], done: int, total: int, progress: Progress | None) -> int:
    before = done
    while finished:
        done += len(finished.popleft().places)
    if progress and done != before:
        progress(done, total)
    return done


def _killer(kind: type, task: Task, reason: str) -> TestRun | BuildRun:
    """The evidence on a candidate that takes its whole sandbox down."""
    detail = f"it took the whole sandbox down, twice: {reason}"[:500]
    if kind is BuildRun:
        return BuildRun(False, 0, detail)
    return replace(not_applied(task, detail), end=End.CRASHED)
