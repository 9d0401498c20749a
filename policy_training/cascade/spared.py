"""What a cascade ran and what it spared: tests, runs of the suite, seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.stops import CascadeStage, Stop
from regrade.rewards.evidence import PartialRun, TestRun, TestStatus


@dataclass(frozen=True)
class JobRecord:
    """One distinct patch, as a cascade judged it."""

    task: Task
    seen: Sequence[PartialRun]
    """The partial runs, in order."""
    stop: Stop | None
    run: TestRun | None
    """Of the execution; None: it was spared, or the infrastructure failed."""
    audited: bool

    @property
    def stage(self) -> CascadeStage | None:
        """What answered."""
        if self.run is None:
            return None if self.stop is None else self.stop.stage
        return CascadeStage.FULL if self.run.scope == "full" else CascadeStage.IMPACTED


def numbers_of(records: Sequence[JobRecord]) -> dict[str, float]:
    """Of the distinct patches of a batch: the share that each stage answered, and what ran and what was spared.

    `tests_spared` and `seconds_spared` are what test selection alone would have run, less what the cascade ran; an
    attempt that a stage did not stop costs that stage. StopAudits count as the price of the cascade. Seconds that were
    spared are estimated from the times of the test files at the base.
    """
    if not records:
        return {}
    stages = Counter(record.stage for record in records if record.stage is not None)
    stopped = [record for record in records if record.run is None and record.stop is not None]
    executed = [record for record in records if record.run is not None]
    spared = sum(len(_unrun(record)) for record in stopped)
    wasted = sum(map(_wasted, executed))
    return {
        **{f"cascade/answered/{stage}": stages[stage] / len(records) for stage in CascadeStage if stage in stages},
        "cascade/audited": float(sum(record.audited for record in records)),
        "cascade/tests_run": float(sum(map(_tests_run, records))),
        "cascade/tests_spared": float(spared - wasted),
        "cascade/suites_run": float(len(executed)),
        "cascade/suites_spared": float(len(stopped)),
        "cascade/seconds_run": sum(map(_seconds_run, records)),
        "cascade/seconds_spared": sum(map(_seconds_spared, stopped)) - sum(map(_seconds_seen, executed)),
    }


def _tests_run(record: JobRecord) -> int:
    partly = sum(len(seen.outcomes) for seen in record.seen)
    return partly if record.run is None else partly + len(reached(record.run))


def _wasted(record: JobRecord) -> int:
    """Of an executed attempt: the tests that ran in its stages, and what an audit ran beyond test selection."""
    partly = sum(len(seen.outcomes) for seen in record.seen)
    if not (record.audited and record.seen and record.run is not None):
        return partly
    selected = len(record.seen[-1].outcomes) + len(record.seen[-1].unrun)
    return partly + max(0, len(reached(record.run)) - selected)


def reached(run: TestRun) -> list[str]:
    """The tests that ran."""
    return [test for test, outcome in run.outcomes.items() if outcome.status is not TestStatus.UNREACHED]


def _seconds_seen(record: JobRecord) -> float:
    return sum(seen.seconds for seen in record.seen)


def _seconds_run(record: JobRecord) -> float:
    return _seconds_seen(record) + (0.0 if record.run is None else record.run.seconds)


def _seconds_spared(record: JobRecord) -> float:
    return seconds_at_base(record.task, _unrun(record))


def _unrun(record: JobRecord) -> list[str]:
    """The tests that a stopped attempt did not run, and that test selection would have run."""
    if record.stop is None:
        return []
    seen = record.stop.seen
    return [*(test for test in record.task.fail_to_pass if test not in seen.outcomes), *seen.unrun]


def can_pay_off(task: Task, own: Sequence[str], beyond: Sequence[str]) -> bool:
    """Can a stage that runs the tests `own` spare more than it costs an attempt that it does not stop?

    The tests beyond it must take longer at the base than its own ones and a run without any test. Without measured
    times, they must be as many as its own. Both are facts of the task, so that a run repeats.
    """
    times = task.suite.seconds
    if times is None:
        return len(beyond) >= max(1, len(own))
    return seconds_at_base(task, beyond) > seconds_at_base(task, own) + times.get("", 0.0)


def seconds_at_base(task: Task, tests: Iterable[str]) -> float:
    """The time of some tests without a patch: of each test file the share of its tests. 0 if it was not measured."""
    times = task.suite.seconds or {}
    in_file = Counter(map(file_of, task.tests))
    return sum(count / in_file[file] * times.get(file, 0.0) for file, count in Counter(map(file_of, tests)).items())
