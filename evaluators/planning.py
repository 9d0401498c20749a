"""What is known of jobs before anything runs: which of them are equal, and what the store holds of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from regrade.datasets.tasks import Task
from regrade.evaluators.environments import installed_packages, runner_identity
from regrade.evaluators.lookups import Digests, Environments
from regrade.evaluators.probes import EXECUTED, StaticProbe, code_version
from regrade.evaluators.store import EvidenceStore, key_of
from regrade.evaluators.works import Job, Work
from regrade.rewards.evidence import TestRun


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

    def plan(self, jobs: Sequence[Job], needs: Collection[type], full: bool) -> list[Work]:
        """The distinct jobs, with what the store knows of them."""
        works: dict[tuple[str, str], Work] = {}
        keys: dict[int, str] = {}
        for place, (task, patch) in enumerate(jobs):
            if id(task) not in keys:
                keys[id(task)] = self.task_key(task)
            distinct = (keys[id(task)], patch.digest)
            if distinct not in works:
                records = self._known(task, distinct, needs, full)
                missing = tuple(kind for kind in needs if kind not in records)
                works[distinct] = Work(task, patch, distinct[0], records, missing)
            works[distinct].places.append(place)
        return list(works.values())

    def _known(self, task: Task, distinct: tuple[str, str], needs: Collection[type], full: bool) -> dict[type, Any]:
        found = {kind: self._store.get(self._evidence_key(*distinct, kind, full), kind, task) for kind in needs}
        return {kind: record for kind, record in found.items() if record is not None}

    def keep(self, work: Work, kind: type, record: Any, full: bool) -> None:
        """Keep a record for later calls. Raises sqlite3.Error, see `EvidenceStore.put`."""
        self._store.put(self._evidence_key(work.task_key, work.patch.digest, kind, full), record)

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

    def _evidence_key(self, task_key: str, patch_digest: str, kind: type, full: bool) -> bytes:
        scope = ("cold" if self._cold else "full" if full else "reachable") if kind is TestRun else ""
        sandbox = self._sandbox if kind in EXECUTED else ""
        probe = getattr(self._probes.get(kind), "identity", "")
        name = f"{kind.__module__}.{kind.__qualname__}"
        return key_of([task_key, patch_digest, name, self.version, sandbox, scope, probe])
