"""Validates tasks by execution: at the base, and with the reference patch if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import End, EvidenceSet, TestRun, TestStatus


@dataclass(frozen=True)
class Validity:
    """The result of validating one task."""

    task: Task
    problems: tuple[str, ...]
    """Why the task is invalid; empty if it is valid."""
    unknown: str = ""
    """Why there is no result, for a reason outside of the task; else empty."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What nothing protects, though the task may be valid."""
        return editable_expectations(self.task)

    @property
    def holds(self) -> bool:
        return not self.problems and not self.unknown


def validate(
    tasks: Sequence[Task], scorer: Scorer, progress: Callable[[int, int], None] | None = None
) -> list[Validity]:
    """Run each task's tests without a patch and with its reference, the whole suite each time.

    A task is valid if at its base every FAIL_TO_PASS test fails and every PASS_TO_PASS test passes, and all of them
    pass with its reference.
    """
    pairs = [(task, Patch("")) for task in tasks]
    pairs += [(task, task.reference) for task in tasks if task.reference is not None]
    evidence = scorer.gather(pairs, {TestRun}, progress=progress)
    by_task: dict[int, list[EvidenceSet]] = {}
    for (task, _), gathered in zip(pairs, evidence, strict=True):
        by_task.setdefault(id(task), []).append(gathered)
    return [_validity(task, by_task[id(task)]) for task in tasks]


def editable_expectations(task: Task) -> tuple[str, ...]:
    """A note on the files that tests alone read and a patch may edit; empty: there are none."""
    files = task.suite.checked_files
    if not files:
        return ()
    text = f"tests read {_some(files)}, which a patch may edit: a patch can rewrite expected output there"
    return (f"{text}; expected output is protected in the folder of the tests",)


def _validity(task: Task, evidence: Sequence[EvidenceSet]) -> Validity:
    for gathered in evidence:
        if TestRun not in gathered.records:
            return Validity(task, (), gathered.infrastructure.get(TestRun, "no result"))
    base, *fixed = [gathered.records[TestRun] for gathered in evidence]
    problems = _at_base(base) + _missing(base, fixed)
    for run in fixed:
        problems += _with_reference(run)
    return Validity(task, tuple(problems))


def _at_base(run: TestRun) -> list[str]:
    problems = []
    if run.end is not End.COMPLETED:
        problems.append(f"at the base the run ended early ({run.end.value}): {run.detail}")
    if run.fixed:
        problems.append(f"FAIL_TO_PASS tests pass at the base: {_some(run.fixed)}")
    if run.broken:
        problems.append(f"PASS_TO_PASS tests do not pass at the base: {_some(run.broken)}")
    return problems


def _missing(base: TestRun, fixed: Sequence[TestRun]) -> list[str]:
    """FAIL_TO_PASS tests that do not exist always fail, and look like hard ones."""
    if base.end is not End.COMPLETED:
        return []
    missing = [
        test
        for test in base.fail_to_pass
        if all(run.outcomes[test].status is TestStatus.MISSING for run in (base, *fixed))
    ]
    return [f"there are no such tests: {_some(missing)}"] if missing else []


def _with_reference(run: TestRun) -> list[str]:
    if run.end is not End.COMPLETED:
        return [f"with the reference the run ended early ({run.end.value}): {run.detail}"]
    problems = []
    unfixed = [test for test in run.fail_to_pass if test not in run.fixed]
    if unfixed:
        problems.append(f"FAIL_TO_PASS tests do not pass with the reference: {_some(unfixed)}")
    if run.broken:
        problems.append(f"PASS_TO_PASS tests do not pass with the reference: {_some(run.broken)}")
    return problems


def _some(tests: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(tests) - shown} more" if len(tests) > shown else ""
    return ", ".join(tests[:shown]) + more
