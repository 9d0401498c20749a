"""Plans jobs before any execution: groups equal jobs, and reads their stored evidence."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.code_version import code_version
from regrade.evaluators.scoring.environment_cache import EnvironmentCache
from regrade.evaluators.scoring.jobs import DistinctJob, Job
from regrade.evaluators.scoring.probes import ON_REFERENCE, PARTIAL_RUNS, STATIC, StaticProbe
from regrade.evaluators.scoring.task_digests import Digests
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.rewards.evidence import TestRun

logger = logging.getLogger(__name__)


class Planner:
    """Reads and writes stored evidence, by keys that cover everything that could change it."""

    def __init__(
        self,
        store: EvidenceStore,
        environments: EnvironmentCache,
        digests: Digests,
        probes: Mapping[type, StaticProbe],
        *,
        sandbox: str,
        cold: bool,
        fresh: bool,
    ) -> None:
        """
        Args:
            sandbox: name of the kind of sandbox.
            cold: see `Scorer`; evidence of cold and warm runs has different keys.
            fresh: read only the evidence that this planner stored.
        """
        self._store = store
        self._environments = environments
        self._digests = digests
        self._probes = probes
        self._sandbox = sandbox
        self._cold = cold
        self._own: set[bytes] | None = set() if fresh else None
        self.version = code_version()

    def plan(self, jobs: Sequence[Job], needs: Collection[type], reachable: bool) -> list[DistinctJob]:
        """The distinct jobs, with their stored evidence.

        Raises:
            UserError: a task's environment can't be created, or its repository was edited.
        """
        distinct_jobs: dict[tuple[str, str, str], DistinctJob] = {}
        keys: dict[int, str] = {}
        for position, (task, patch) in enumerate(jobs):
            if id(task) not in keys:
                self._digests.check(task)
                keys[id(task)] = self.task_key(task)
            distinct = (keys[id(task)], patch.digest, self._rest(task, needs))
            if distinct not in distinct_jobs:
                records = self._stored_records(task, keys[id(task)], patch, needs, reachable)
                missing = tuple(kind for kind in needs if kind not in records)
                distinct_jobs[distinct] = DistinctJob(
                    task=task, patch=patch, task_key=distinct[0], records=records, missing=missing
                )
            distinct_jobs[distinct].positions.append(position)
        return list(distinct_jobs.values())

    def identity(self, job: Job, needs: Collection[type], reachable: bool) -> Hashable:
        """Equal for jobs whose evidence is the same."""
        task, patch = job
        return self.task_key(task), patch.digest, self._rest(task, needs), frozenset(needs), reachable

    def _stored_records(
        self, task: Task, task_key: str, patch: Patch, needs: Collection[type], reachable: bool
    ) -> dict[type, Any]:
        keys = {kind: self._evidence_key(task, task_key, patch, kind, reachable) for kind in needs}
        stored = {kind: self._get(key, kind, task) for kind, key in keys.items()}
        if logger.isEnabledFor(logging.DEBUG):
            hits, misses = (
                ", ".join(kind.__name__ for kind in needs if (stored[kind] is None) is is_miss) or "none"
                for is_miss in (False, True)
            )
            logger.debug("evidence store: task %s, patch %s: hits %s; misses %s", task.id, patch.digest, hits, misses)
        return {kind: record for kind, record in stored.items() if record is not None}

    def load(self, job: DistinctJob, kind: type) -> Any | None:
        """The stored record of the job; None if there is none."""
        key = self._evidence_key(job.task, job.task_key, job.patch, kind, reachable=True)
        return self._get(key, kind, job.task)

    def _get(self, key: bytes, kind: type, task: Task) -> Any | None:
        return self._store.get(key, kind, task) if self._own is None or key in self._own else None

    def store(self, job: DistinctJob, kind: type, record: Any, reachable: bool) -> None:
        """Store a record for later calls. Raises sqlite3.Error, see `EvidenceStore.put`."""
        key = self._evidence_key(job.task, job.task_key, job.patch, kind, reachable)
        if self._own is not None:
            self._own.add(key)
        self._store.put(key, record)

    def task_key(self, task: Task) -> str:
        """Digest of everything in a task that could change its evidence, with its environment and measured reach."""
        base, suite = task.base, task.suite
        parts = (
            self._digests.of_root(base.root),
            self._digests.of_task(task),
            suite,
            self._digests.of_reach(suite),
            task.limits,
            self._environments.identity_for(suite, task.requirements),
            self._environments.runner_identity(suite, base.root),
        )
        return key_of([repr(parts)]).hex()

    def _evidence_key(self, task: Task, task_key: str, patch: Patch, kind: type, reachable: bool) -> bytes:
        scope = ("cold" if self._cold else "reachable" if reachable else "full") if kind is TestRun else ""
        if self._cold and kind in PARTIAL_RUNS:
            scope = "cold"
        sandbox = "" if kind in self._probes else self._sandbox
        probe = getattr(self._probes.get(kind), "identity", "")
        name = f"{kind.__module__}.{kind.__qualname__}"
        rest = self._rest(task, {kind})
        return key_of([task_key, patch.digest, name, self.version, sandbox, scope, probe, rest])

    def _rest(self, task: Task, needs: Collection[type]) -> str:
        """What some of the evidence depends on beside the files and the tests."""
        probes = [(self._probes[kind], STATIC.get(kind)) for kind in needs if kind in self._probes]
        if any(probe is not built_in for probe, built_in in probes):  # the user's own, which read the whole task
            return self._digests.of_description(task)
        if ON_REFERENCE.isdisjoint(needs):
            return ""
        return task.reference.digest if task.reference is not None else repr(task.target or "")
