"""What is known of jobs before anything runs: which of them are equal, and what the store holds of each."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.environments import installed_packages, runner_identity
from regrade.evaluators.scoring.code_version import code_version
from regrade.evaluators.scoring.environment_cache import Environments
from regrade.evaluators.scoring.jobs import DistinctJob, Job
from regrade.evaluators.scoring.probes import StaticProbe
from regrade.evaluators.scoring.task_digests import Digests
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.rewards.evidence import TestRun, Verification

logger = logging.getLogger(__name__)


class Planner:
    """Finds evidence in the store, and keeps it there, by keys that cover all that could change it."""

    def __init__(
        self,
        store: EvidenceStore,
        environments: Environments,
        digests: Digests,
        probes: Mapping[type, StaticProbe],
        *,
        sandbox: str,
        cold: bool,
    ) -> None:
        """
        Args:
            sandbox: name of its kind.
            cold: see `Scorer`; what was found out cold and warm is kept apart.
        """
        self._store = store
        self._environments = environments
        self._digests = digests
        self._probes = probes
        self._sandbox = sandbox
        self._cold = cold
        self.version = code_version()

    def plan(self, jobs: Sequence[Job], needs: Collection[type], reachable: bool) -> list[DistinctJob]:
        """The distinct jobs, with what the store knows of them.

        Raises:
            UserError: a task's environment can't be made, or its repository was edited.
        """
        distinct_jobs: dict[tuple[str, str, str], DistinctJob] = {}
        keys: dict[int, str] = {}
        for place, (task, patch) in enumerate(jobs):
            if id(task) not in keys:
                self._digests.check(task)
                keys[id(task)] = self.task_key(task)
            distinct = (keys[id(task)], patch.digest, _reference(task, needs))
            if distinct not in distinct_jobs:
                records = self._known(task, keys[id(task)], patch, needs, reachable)
                missing = tuple(kind for kind in needs if kind not in records)
                distinct_jobs[distinct] = DistinctJob(
                    task=task, patch=patch, task_key=distinct[0], records=records, missing=missing
                )
            distinct_jobs[distinct].places.append(place)
        return list(distinct_jobs.values())

    def identity(self, job: Job, needs: Collection[type], reachable: bool) -> Hashable:
        """Equal for jobs whose evidence is the same."""
        task, patch = job
        return self.task_key(task), patch.digest, _reference(task, needs), frozenset(needs), reachable

    def _known(
        self, task: Task, task_key: str, patch: Patch, needs: Collection[type], reachable: bool
    ) -> dict[type, Any]:
        keys = {kind: self._evidence_key(task, task_key, patch, kind, reachable) for kind in needs}
        found = {kind: self._store.get(key, kind, task) for kind, key in keys.items()}
        if logger.isEnabledFor(logging.DEBUG):
            hits, misses = (
                ", ".join(kind.__name__ for kind in needs if (found[kind] is None) is is_miss) or "none"
                for is_miss in (False, True)
            )
            logger.debug("evidence store: task %s, patch %s: hits %s; misses %s", task.id, patch.digest, hits, misses)
        return {kind: record for kind, record in found.items() if record is not None}

    def kept(self, job: DistinctJob, kind: type) -> Any | None:
        """A record that was stored for the job; None where there is none."""
        key = self._evidence_key(job.task, job.task_key, job.patch, kind, reachable=True)
        return self._store.get(key, kind, job.task)

    def keep(self, job: DistinctJob, kind: type, record: Any, reachable: bool) -> None:
        """Keep a record for later calls. Raises sqlite3.Error, see `EvidenceStore.put`."""
        self._store.put(self._evidence_key(job.task, job.task_key, job.patch, kind, reachable), record)

    def task_key(self, task: Task) -> str:
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

    def _evidence_key(self, task: Task, task_key: str, patch: Patch, kind: type, reachable: bool) -> bytes:
        scope = ("cold" if self._cold else "reachable" if reachable else "full") if kind is TestRun else ""
        sandbox = "" if kind in self._probes else self._sandbox
        probe = getattr(self._probes.get(kind), "identity", "")
        name = f"{kind.__module__}.{kind.__qualname__}"
        reference = _reference(task, {kind})
        return key_of([task_key, patch.digest, name, self.version, sandbox, scope, probe, reference])


def _reference(task: Task, needs: Collection[type]) -> str:
    """Digest of the reference patch, where evidence depends on it."""
    return task.reference.digest if Verification in needs and task.reference is not None else ""
