"""A scorer on a Ray cluster: actors on the nodes run the sandboxes; plan, store and results stay on the driver.

The driver groups equal jobs and reads stored evidence, as `Scorer` does. It sends the remaining jobs to actors, each
with a one-worker Scorer on its node, and stores their evidence. The files of a repository and a task are sent to a node
once. The loss of a node affects only the jobs that ran there: they run again on the rest of the cluster.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import socket
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
"""Evidence, reasons for missing evidence, and costs (fields of `Stats`)."""
START_SECONDS = 300.0
"""Longest time without a working actor in the whole cluster for which jobs wait; then they fail at once."""
CONNECT_SECONDS = 10.0
"""Longest wait for a connection to the cluster's address."""
ANSWER_SECONDS = 3600.0
"""Longest wait for an actor's answer, far above every time limit within: only a hanging node exceeds it."""
LOSSES = 5
"""Number of actors that one job may lose before it is left unscored."""


class NoNodeError(SandboxError):
    """The whole cluster has no working actor, and has had none for `START_SECONDS`."""


@dataclass(frozen=True)
class NodeFacts:
    """The node, sandbox and code version of an actor."""

    node: str
    """Ray's id of the node."""
    host: str
    sandbox: str
    code: str
    """See `code_version`."""


class NodeScorer:
    """The actor: a scorer with one worker on some node. Ray makes one call at a time."""

    def __init__(
        self, sandbox: str, cache: str | None, probes: Mapping[type, StaticProbe], cold: bool, audit: float = 0.0
    ) -> None:
        self._arguments: dict[str, Any] = {"sandbox": sandbox, "probes": probes, "cold": cold, "audit": audit}
        self._cache = Path(cache) if cache else default_cache()
        self._tasks: dict[str, Task] = {}
        self._suites: dict[str, TestSuite] = {}
        self._installed: dict[tuple[str, ...], tuple[str, ...]] = {}

    def start(self) -> NodeFacts:
        """Must be called first: of an error in an actor's constructor, Ray passes on only the text.

        Raises:
            UserError: the node lacks a requirement.
        """
        import socket

        import ray

        self._scorer = Scorer(workers=1, cache=usable(self._cache), **self._arguments)
        node = ray.get_runtime_context().get_node_id()
        return NodeFacts(node, socket.gethostname(), self._scorer.sandbox.name, code_version())

    def receive_task(
        self,
        key: str,
        task: Task,
        suite_key: str,
        suite: list[Any],
        root_digest: str,
        root: list[Any],
        installed: tuple[str, ...],
    ) -> None:
        """Receive a task. The lists contain object references, which are fetched only if needed.

        Raises:
            UserError: the tests would run with other packages than on the driver.
            RuntimeError: the received files do not match the digest.
        """
        import ray

        self._check_packages(task.requirements, installed)
        if suite_key not in self._suites:
            self._suites[suite_key] = ray.get(suite[0])
        folder = self._cache / "trees" / root_digest
        if not folder.exists():
            _unpack(ray.get(root[0]), folder)
            digest = Tree(folder).digest
            if digest != root_digest:
                remove(folder)
                raise RuntimeError(f"the files of a repository changed on the way: digest {digest}, not {root_digest}")
        base = Tree(folder, task.base.replaced, task.base.removed)
        self._tasks[key] = replace(task, base=base, suite=self._suites[suite_key])

    def _check_packages(self, requirements: tuple[str, ...], installed: tuple[str, ...]) -> None:
        if requirements not in self._installed:
            self._installed[requirements] = distributions(python_for(requirements, self._cache))
        differing = sorted(set(installed).symmetric_difference(self._installed[requirements]))
        if differing:
            import socket

            raise UserError(
                f"on the node {socket.gethostname()} the tests would run with other packages than here (such as "
                f"{', '.join(differing[:4])}): install the same on every node, or add them to the task's requirements"
            )

    def gather(self, key: str, patch: str, needs: Collection[type], reachable: bool) -> RemoteEvidence:
        """The evidence of a patch on a received task."""
        before = self._scorer.stats
        (evidence,) = self._scorer.gather([(self._tasks[key], Patch(patch))], needs, reachable=reachable)
        after = self._scorer.stats
        cost = {
            name: getattr(after, name) - getattr(before, name)
            for name in ("executions", "cpu_seconds", "retries", "damaged", "unkept", "audited", "caught")
        }
        cost["missed"] = after.missed[len(before.missed) :]
        return evidence.records, evidence.infrastructure, cost

    def close(self) -> None:
        self._scorer.close()


@dataclass(eq=False)
class _ActorSlot:
    """An actor and its state, on the driver."""

    actor: Any
    facts: NodeFacts | None = None
    """None until it has started."""
    task_keys: set[str] = field(default_factory=set)
    """Keys of the tasks that it has received."""
    is_busy: bool = False


class RayScorer(Scorer):
    """A Scorer whose sandboxes run on the nodes of a Ray cluster. Everything else is as in `Scorer`.

    Connects to the cluster of $RAY_ADDRESS, unless `ray.init` was called before. The nodes need the same version of
    regrade, a sandbox, and the programs that the tests need; they share no file system with the driver.
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
            workers: number of actors; None: as many as fit the cluster's CPUs.
            cache: folder on the driver; all evidence is stored there.
            node_cache: folder on every node for environments, repositories and the node's own evidence; None: the
                user's cache folder there.
            audit: as in `Scorer`. Evidence that a node has stored is not gathered again, and so not audited.
            cpus: CPUs that Ray reserves for each actor.

        Raises:
            UserError: ray is not installed, there is no cluster, no sandbox works here, or an argument is invalid.
        """
        workers = checked_count("workers", workers)
        cpus = checked_amount("cpus", cpus)
        audit = checked_share("audit", audit)
        ray = _connected_ray()
        workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1) / cpus))
        super().__init__(workers=workers, sandbox=sandbox, cache=cache, probes=probes, audit=audit, cold=cold)
        self._lock = threading.Lock()
        self._kind = ray.remote(NodeScorer).options(num_cpus=cpus, max_restarts=0, scheduling_strategy="SPREAD")
        self._arguments = (self.sandbox.name, node_cache, dict(probes or {}), cold, audit)
        self._free: queue.SimpleQueue[_ActorSlot] = queue.SimpleQueue()
        self._slots: set[_ActorSlot] = set()
        self._refusal: UserError | None = None
        self._last_seen = time.monotonic()
        """When the last loss of a working actor was seen: an outage is the same one for all jobs."""
        self._shipped: dict[str, Any] = {}
        # Ray runs callbacks in its own thread, which must not wait for Ray.
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="regrade-actors")
        for _ in range(self._count):
            self._start_actor()

    def close(self) -> None:
        import ray

        self._stopping = True
        self._callbacks.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            slots = set(self._slots)
        for slot in slots:
            ray.kill(slot.actor)
        super().close()

    def _own_probe(self, kind: type) -> StaticProbe:
        name = kind.__qualname__
        raise UserError(f"no probe gathers {name} on the nodes: pass RayScorer(probes={{{name}: function}})")

    def nodes(self) -> list[NodeFacts]:
        """The nodes of all started actors."""
        with self._lock:
            return [slot.facts for slot in self._slots if slot.facts is not None]

    # ------------------------------------------------------------ actors

    def _start_actor(self) -> None:
        """Request an actor. It becomes free when it has started; nobody waits until Ray has capacity for it."""
        if self._stopping:
            return
        slot = _ActorSlot(self._kind.remote(*self._arguments))
        with self._lock:
            self._slots.add(slot)
        slot.actor.start.remote().future().add_done_callback(partial(self._on_started, slot))

    def _on_started(self, slot: _ActorSlot, started: Future[NodeFacts]) -> None:
        with contextlib.suppress(RuntimeError):  # closed in the meantime
            self._callbacks.submit(self._register, slot, started)

    def _register(self, slot: _ActorSlot, started: Future[NodeFacts]) -> None:
        try:
            slot.facts = started.result()
            self._check_node(slot.facts)
        except UserError as error:
            self._refusal = error
        except Exception as error:  # any error of Ray: the actor did not start
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError):
                self._refusal = cause
            else:
                self._replace_actor(slot)
        else:
            self._free.put(slot)

    def _replace_actor(self, slot: _ActorSlot) -> None:
        import ray

        with self._lock:
            self._slots.discard(slot)
            if slot.facts is not None:
                self._last_seen = time.monotonic()
        if not self._stopping:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(slot.actor)
            self._start_actor()

    @contextlib.contextmanager
    def _acquire_slot(self, batch: Batch) -> Iterator[_ActorSlot]:
        """A free actor, released afterwards unless it was lost.

        Raises:
            UserError: a node is unusable.
            NoNodeError: the cluster has had no working actor for a long time.
            SandboxError: this call was stopped.
        """
        while True:
            try:
                slot = self._free.get(timeout=0.2)
                break
            except queue.Empty:
                if self._refusal is not None:
                    raise self._refusal from None
                if batch.stopped or self._stopping:
                    raise SandboxError("stopped") from None
                self._check_outage()
        import ray

        slot.is_busy = True
        is_lost = False
        try:
            yield slot
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            is_lost = True
            raise
        finally:
            slot.is_busy = False
            (self._replace_actor if is_lost else self._free.put)(slot)

    def _check_outage(self) -> None:
        """Raises NoNodeError: there has been no working actor for too long."""
        if not self.nodes() and time.monotonic() - self._last_seen > START_SECONDS:
            raise NoNodeError(
                f"for {START_SECONDS:g} s no node of the Ray cluster has had capacity for an actor: see `ray status`"
            )

    def _kill_workers(self) -> None:
        """Kill the busy actors; new ones replace them."""
        import ray

        with self._lock:
            busy = [slot for slot in self._slots if slot.is_busy]
        for slot in busy:
            ray.kill(slot.actor)

    # ------------------------------------------------------------ in the worker threads

    def _gather_missing(self, job: DistinctJob, batch: Batch) -> None:
        import ray

        failures: Mapping[type, str] = {}
        for attempt in range(1, LOSSES + 1):
            try:
                with self._acquire_slot(batch) as slot:
                    records, failures, cost = self._request(slot, job, batch.reachable)
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
                if isinstance(error, NoNodeError):
                    break  # nobody is there whom another attempt could ask
                continue
            self._tally.add(**cost)
            for kind, record in records.items():
                self._add_record(job, kind, record, batch)
            break
        job.infrastructure.update(failures)

    def _request(self, slot: _ActorSlot, job: DistinctJob, reachable: bool) -> RemoteEvidence:
        import ray

        key = f"{job.task_key} {self._digests.of_description(job.task)}"  # some evidence depends on the whole task
        # An actor handles requests in order, so both can be sent at once.
        has_task = key in slot.task_keys
        task_reply = None if has_task else slot.actor.receive_task.remote(*self._task_arguments(job.task, key))
        evidence_reply = slot.actor.gather.remote(key, job.patch.text, job.missing, reachable)
        if task_reply is not None:
            try:
                ray.get(task_reply, timeout=ANSWER_SECONDS)
            except ray.exceptions.RayTaskError:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(evidence_reply, timeout=ANSWER_SECONDS)  # it fails for the same reason
                raise
            slot.task_keys.add(key)
        answer: RemoteEvidence = ray.get(evidence_reply, timeout=ANSWER_SECONDS)
        return answer

    def _check_node(self, facts: NodeFacts) -> None:
        if facts.code != self._planner.version:
            raise UserError(f"node {facts.host} runs another version of regrade: install the same on every node")
        if facts.sandbox != self.sandbox.name:
            raise UserError(f"node {facts.host} has no {self.sandbox.name} sandbox: run `regrade doctor` there")

    def _task_arguments(self, task: Task, key: str) -> tuple[Any, ...]:
        """The arguments of `NodeScorer.receive_task`."""
        import ray

        root_digest = self._digests.of_root(task.base.root)
        suite_key = f"{id(task.suite)}"
        with self._lock:
            if suite_key not in self._shipped:
                self._shipped[suite_key] = (ray.put(task.suite), task.suite)  # referenced, so that its id stays unique
            if root_digest not in self._shipped:
                self._shipped[root_digest] = ray.put(_packed(task.base.root))
            suite, root = self._shipped[suite_key][0], self._shipped[root_digest]
        bare = replace(task, suite=TestSuite(), base=replace(task.base, known={}))
        return key, bare, suite_key, [suite], root_digest, [root], self._environments.distributions(task.requirements)


def _connected_ray() -> Any:
    """The module `ray`, connected to a cluster. Raises UserError."""
    try:
        import ray
    except ImportError as error:
        raise UserError("the Python package `ray` is not installed: pip install ray") from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "auto")
        _check_answers(address)
        try:
            ray.init(address=address, log_to_driver=False)
        except ConnectionError as error:
            advice = "start one (`ray start --head`), set $RAY_ADDRESS or call ray.init()"
            raise UserError(f"no Ray cluster answers: {advice}") from error
    return ray


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes. Raises UserError if nothing listens at a HOST:PORT, with or without `ray://`."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # `auto`, `local` or a name
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"no Ray cluster answers at {address} ({why}): start one (`ray start --head`)") from error


def _packed(root: Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path in Tree(root).paths():
            archive.add(root / path, path, recursive=False)
    return data.getvalue()


def _unpack(data: bytes, folder: Path) -> None:
    """Unpack atomically into the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial_folder = Path(tempfile.mkdtemp(dir=folder.parent))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(partial_folder, filter="data")
    partial_folder.chmod(0o755)
    try:
        partial_folder.rename(folder)
    except OSError:  # another actor of this node was first
        remove(partial_folder)
