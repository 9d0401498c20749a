"""Does a task hold? Found out by execution: at its base, and with its reference patch where it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import End, EvidenceSet, TestRun, TestStatus


@dataclass(frozen=True)
class Validity:
    """What was found out about one task."""

    task: Task
    problems: tuple[str, ...]
    """Why it does not hold; empty if it does."""
    unknown: str = ""
    """Why it could not be found out, for a reason that is not the task's."""

    @property
    def holds(self) -> bool:
        return not self.problems and not self.unknown


def validate(
    tasks: Sequence[Task], scorer: Scorer, progress: Callable[[int, int], None] | None = None
) -> list[Validity]:
    """Run each task's tests without a patch and with its reference, the whole suite each time.

    A task holds if at its base every FAIL_TO_PASS test fails and every PASS_TO_PASS test passes, and its reference
    makes all of them pass.
    """
    pairs = [(task, Patch("")) for task in tasks]
    pairs += [(task, task.reference) for task in tasks if task.reference is not None]
    evidence = scorer.gather(pairs, {TestRun}, progress=progress)
    found: dict[int, list[EvidenceSet]] = {}
    for (task, _), gathered in zip(pairs, evidence, strict=True):
        found.setdefault(id(task), []).append(gathered)
    return [_validity(task, found[id(task)]) for task in tasks]


def _validity(task: Task, evidence: Sequence[EvidenceSet]) -> Validity:
    for gathered in evidence:
        if TestRun not in gathered.records:
            return Validity(task, (), gathered.infrastructure.get(TestRun, "no result"))
    base, *fixed = [gathered.records[TestRun] for gathered in evidence]
    problems = _at_base(base) + _not_there(base, fixed)
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


def _not_there(base: TestRun, fixed: Sequence[TestRun]) -> list[str]:
    """FAIL_TO_PASS tests that pytest never met fail for ever, and look as if they were only hard."""
    if base.end is not End.COMPLETED:
        return []
    unknown = [
        test
        for test in base.fail_to_pass
        if all(run.outcomes[test].status is TestStatus.MISSING for run in (base, *fixed))
    ]
    return [f"there are no such tests: {_some(unknown)}"] if unknown else []


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
