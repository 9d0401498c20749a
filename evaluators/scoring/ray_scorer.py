"""The scorer on the machines of a Ray cluster: each sandbox an actor, somewhere; plan, store and results stay here.

The driver finds out which jobs are equal and which are known, as `Scorer` does. What is left is sent to actors, each of
which holds a Scorer with one worker on its node. Their evidence comes back into the driver's store. A repository's
files and a task travel to a node once. A node that is lost takes with it what ran there and nothing else: those jobs
run again on what is left of the cluster.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import tarfile
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.datasets.visible_text import visible
from regrade.evaluators.execution.environments import distributions, python_for
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.sandboxes.scratch import remove
from regrade.evaluators.scoring.arguments import checked_amount, checked_count, checked_share
from regrade.evaluators.scoring.code_version import code_version
from regrade.evaluators.scoring.jobs import Batch, DistinctJob
from regrade.evaluators.scoring.probes import StaticProbe
from regrade.evaluators.scoring.scorer import Scorer

logger = logging.getLogger(__name__)
RemoteEvidence = tuple[Mapping[type, Any], Mapping[type, str], dict[str, float]]
"""Evidence, what could not be gathered and why, and what it cost (fields of `Stats`)."""
START_SECONDS = 300.0
"""How long it is waited while the whole cluster has no actor that works."""
ANSWER_SECONDS = 3600.0
"""Far above every limit of time within: only a node that hangs is not heard of for so long."""
LOSSES = 5
"""Actors that one job may lose before it is left unscored."""


@dataclass(frozen=True)
class NodeFacts:
    """What the evidence of an actor rests on."""

    node: str
    """Ray's id of the node."""
    host: str
    sandbox: str
    code: str
    """See `code_version`."""


class NodeScorer:
    """The actor: a scorer with one worker on some node. Called by Ray, one call at a time."""

    def __init__(
        self, sandbox: str, cache: str | None, probes: Mapping[type, StaticProbe], cold: bool, audit: float = 0.0
    ) -> None:
        self._arguments: dict[str, Any] = {"sandbox": sandbox, "probes": probes, "cold": cold, "audit": audit}
        self._cache = Path(cache) if cache else default_cache()
        self._tasks: dict[str, Task] = {}
        self._suites: dict[str, TestSuite] = {}
        self._installed: dict[tuple[str, ...], tuple[str, ...]] = {}

    def start(self) -> NodeFacts:
        """Called first: of what goes wrong while an actor is made, Ray hands on the text alone.

        Raises:
            UserError: what the node lacks.
        """
        import socket

        import ray

        self._scorer = Scorer(workers=1, cache=usable(self._cache), **self._arguments)
        node = ray.get_runtime_context().get_node_id()
        return NodeFacts(node, socket.gethostname(), self._scorer.sandbox.name, code_version())

    def learn(
        self,
        key: str,
        task: Task,
        suite_key: str,
        suite: list[Any],
        root_digest: str,
        root: list[Any],
        installed: tuple[str, ...],
    ) -> None:
        """Take a task. What is in the lists are references, fetched only where they are needed.

        Raises:
            UserError: the tests would run with other packages than those that the driver has.
            RuntimeError: the files that arrived are not those of the digest.
        """
        import ray

        self._check_packages(task.requirements, installed)
        if suite_key not in self._suites:
            self._suites[suite_key] = ray.get(suite[0])
        folder = self._cache / "trees" / root_digest
        if not folder.exists():
            _unpack(ray.get(root[0]), folder)
            found = Tree(folder).digest
            if found != root_digest:
                remove(folder)
                raise RuntimeError(f"a repository arrived as another one: digest {found}, not {root_digest}")
        base = Tree(folder, task.base.replaced, task.base.removed)
        self._tasks[key] = replace(task, base=base, suite=self._suites[suite_key])

    def _check_packages(self, requirements: tuple[str, ...], installed: tuple[str, ...]) -> None:
        if requirements not in self._installed:
            self._installed[requirements] = distributions(python_for(requirements, self._cache))
        apart = sorted(set(installed).symmetric_difference(self._installed[requirements]))
        if apart:
            import socket

            raise UserError(
                f"on the node {socket.gethostname()} the tests would run with other packages than here (such as "
                f"{', '.join(apart[:4])}): install the same on every node, or name them as the task's requirements"
            )

    def gather(self, key: str, patch: str, needs: Collection[type], reachable: bool) -> RemoteEvidence:
        """What is found out about a patch on a task that was learnt."""
        before = self._scorer.stats
        (found,) = self._scorer.gather([(self._tasks[key], Patch(patch))], needs, reachable=reachable)
        after = self._scorer.stats
        cost = {
            name: getattr(after, name) - getattr(before, name)
            for name in ("executions", "cpu_seconds", "retries", "damaged", "unkept", "audited", "caught")
        }
        cost["missed"] = after.missed[len(before.missed) :]
        return found.records, found.infrastructure, cost

    def close(self) -> None:
        self._scorer.close()


@dataclass(eq=False)
class _Seat:
    """An actor, as the driver sees it."""

    actor: Any
    facts: NodeFacts | None = None
    """None while it has not started."""
    known: set[str] = field(default_factory=set)
    """Keys of the tasks that it has learnt."""
    is_busy: bool = False


class RayScorer(Scorer):
    """A Scorer whose sandboxes stand on the nodes of a Ray cluster. Everything else is as in `Scorer`.

    Connects to the cluster of $RAY_ADDRESS, or as `ray.init` was called before. The nodes need regrade in the same
    version, with a sandbox, and the programs that the tests need; they share no file system with the driver.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        sandbox: str = "auto",
        cache: str | Path | None = None,
        node_cache: str | None = None,
        probes: Mapping[type, StaticProbe] | None = None,
        audit: float = 0.0,
        cold: bool = False,
        cpus: float = 1.0,
    ) -> None:
        """
        Args:
            workers: actors; None: as many as the cluster's CPUs hold.
            cache: of the driver; all evidence is kept there.
            node_cache: folder on every node for environments, repositories and the node's own evidence; None: the
                user's cache folder there.
            audit: as in `Scorer`. What a node has evidence of already is not executed, and so not audited.
            cpus: what Ray sets aside for each actor.

        Raises:
            UserError: ray is not installed, there is no cluster, no sandbox works here, or an argument is not what it
                should be.
        """
        workers = checked_count("workers", workers)
        cpus = checked_amount("cpus", cpus)
        audit = checked_share("audit", audit)
        try:
            import ray
        except ImportError as error:
            raise UserError("the Python package `ray` is not installed: pip install 'regrade[ray]'") from error
        if not ray.is_initialized():
            try:
                ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False)
            except ConnectionError as error:
                raise UserError(
                    "no Ray cluster answers: start one (`ray start --head`), name it by $RAY_ADDRESS or call ray.init()"
                ) from error
        room = max(1, int(ray.cluster_resources().get("CPU", 1) / cpus))
        super().__init__(workers=workers or room, sandbox=sandbox, cache=cache, probes=probes, audit=audit, cold=cold)
        self._lock = threading.Lock()
        self._kind = ray.remote(NodeScorer).options(num_cpus=cpus, max_restarts=0, scheduling_strategy="SPREAD")
        self._arguments = (self.sandbox.name, node_cache, dict(probes or {}), cold, audit)
        self._free: queue.SimpleQueue[_Seat] = queue.SimpleQueue()
        self._seats: set[_Seat] = set()
        self._refusal: UserError | None = None
        self._shipped: dict[str, Any] = {}
        # Ray calls back in a thread of its own, which must not wait for Ray.
        self._usher = ThreadPoolExecutor(1, thread_name_prefix="regrade-usher")
        for _ in range(self._count):
            self._start_seat()

    def close(self) -> None:
        import ray

        self._stopping = True
        self._usher.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            seats = set(self._seats)
        for seat in seats:
            ray.kill(seat.actor)
        super().close()

    def nodes(self) -> list[NodeFacts]:
        """Where the actors stand that work at present."""
        with self._lock:
            return [seat.facts for seat in self._seats if seat.facts is not None]

    # ------------------------------------------------------------ actors

    def _start_seat(self) -> None:
        """Ask for an actor. It joins the free ones when it has started; until Ray finds room, nobody waits for it."""
        if self._stopping:
            return
        seat = _Seat(self._kind.remote(*self._arguments))
        with self._lock:
            self._seats.add(seat)
        seat.actor.start.remote().future().add_done_callback(partial(self._usher_in, seat))

    def _usher_in(self, seat: _Seat, started: Future[NodeFacts]) -> None:
        with contextlib.suppress(RuntimeError):  # closed in the meantime
            self._usher.submit(self._seated, seat, started)

    def _seated(self, seat: _Seat, started: Future[NodeFacts]) -> None:
        try:
            seat.facts = started.result()
            self._check_node(seat.facts)
        except UserError as error:
            self._refusal = error
        except Exception as error:  # whatever Ray says: the actor did not start
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError):
                self._refusal = cause
            else:
                self._lose(seat)
        else:
            self._free.put(seat)

    def _lose(self, seat: _Seat) -> None:
        import ray

        with self._lock:
            self._seats.discard(seat)
        if not self._stopping:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(seat.actor)
            self._start_seat()

    @contextlib.contextmanager
    def _seat(self, batch: Batch) -> Iterator[_Seat]:
        """A free actor, given back afterwards unless it was lost.

        Raises:
            UserError: a node can't be used as it is.
            SandboxError: for a long time the cluster had no actor that works, or this call was stopped.
        """
        waited = time.monotonic()
        while True:
            try:
                seat = self._free.get(timeout=0.2)
                break
            except queue.Empty:
                if self._refusal is not None:
                    raise self._refusal from None
                if batch.stopped or self._stopping:
                    raise SandboxError("stopped") from None
                if self.nodes():
                    waited = time.monotonic()
                elif time.monotonic() - waited > START_SECONDS:
                    raise SandboxError(f"for {START_SECONDS:g} s the cluster had no room for an actor") from None
        import ray

        seat.is_busy = True
        is_lost = False
        try:
            yield seat
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            is_lost = True
            raise
        finally:
            seat.is_busy = False
            (self._lose if is_lost else self._free.put)(seat)

    def _kill_workers(self) -> None:
        """The actors that are at work; others take their places."""
        import ray

        with self._lock:
            busy = [seat for seat in self._seats if seat.is_busy]
        for seat in busy:
            ray.kill(seat.actor)

    # ------------------------------------------------------------ in the worker threads

    def _do(self, job: DistinctJob, batch: Batch) -> None:
        import ray

        failures: Mapping[type, str] = {}
        for attempt in range(1, LOSSES + 1):
            try:
                with self._seat(batch) as seat:
                    records, failures, cost = self._ask(seat, job, batch.reachable)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from None
                raise
            except (ray.exceptions.RayError, SandboxError) as error:
                if batch.stopped or self._stopping:
                    raise
                self._tally.add(retries=1)
                reason = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
                failures = dict.fromkeys(job.missing, reason)
                logger.warning("attempt %d of %d failed: task %s: %s", attempt, LOSSES, job.task.id, visible(reason))
                continue
            self._tally.add(**cost)
            for kind, record in records.items():
                self._take(job, kind, record, batch)
            break
        job.infrastructure.update(failures)

    def _ask(self, seat: _Seat, job: DistinctJob, reachable: bool) -> RemoteEvidence:
        import ray

        is_known = job.task_key in seat.known
        # An actor answers in the order in which it is asked, so that both questions travel at once.
        learnt = None if is_known else seat.actor.learn.remote(*self._lesson(job.task, job.task_key))
        found = seat.actor.gather.remote(job.task_key, job.patch.text, job.missing, reachable)
        if learnt is not None:
            try:
                ray.get(learnt, timeout=ANSWER_SECONDS)
            except ray.exceptions.RayTaskError:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(found, timeout=ANSWER_SECONDS)  # that it failed, too, is nothing to be told
                raise
            seat.known.add(job.task_key)
        answer: RemoteEvidence = ray.get(found, timeout=ANSWER_SECONDS)
        return answer

    def _check_node(self, facts: NodeFacts) -> None:
        if facts.code != self._planner.version:
            raise UserError(f"node {facts.host} runs another version of regrade: install the same on every node")
        if facts.sandbox != self.sandbox.name:
            raise UserError(f"node {facts.host} has no {self.sandbox.name} sandbox: see `regrade doctor` there")

    def _lesson(self, task: Task, key: str) -> tuple[Any, ...]:
        """The arguments of `NodeScorer.learn`."""
        import ray

        root_digest = self._digests.of_root(task.base.root)
        suite_key = f"{id(task.suite)}"
        with self._lock:
            if suite_key not in self._shipped:
                self._shipped[suite_key] = (ray.put(task.suite), task.suite)  # held, so that its id stays its own
            if root_digest not in self._shipped:
                self._shipped[root_digest] = ray.put(_packed(task.base.root))
            suite, root = self._shipped[suite_key][0], self._shipped[root_digest]
        bare = replace(task, suite=TestSuite(), base=replace(task.base, known={}))
        return key, bare, suite_key, [suite], root_digest, [root], self._environments.distributions(task.requirements)


def _packed(root: Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path in Tree(root).paths():
            archive.add(root / path, path, recursive=False)
    return data.getvalue()


def _unpack(data: bytes, folder: Path) -> None:
    """Into a folder that is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(making, filter="data")
    making.chmod(0o755)
    try:
        making.rename(folder)
    except OSError:  # another actor of this node was first
        remove(making)
