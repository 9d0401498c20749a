"""The level of assurance at which verdicts on a task are verified by default: the strongest that costs less than the
tests. It takes the value of a fix that it contradicts, not of one that it does not confirm.

The cost is counted in executions of tests, a fact of the task, not in seconds, so that equal patches get equal verdicts
on every machine (`benchmarks/assurance.py` measures both). Held-out inputs are left out: they also require what the
reference does where the tests leave it open, so that some right fixes would get nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from regrade.datasets.tasks import Task
from regrade.rewards.assurance_level import AssuranceLevel

EXECUTIONS: Mapping[AssuranceLevel, int] = {AssuranceLevel.TRIPWIRED: 5, AssuranceLevel.OUT_OF_PROCESS: 2}
"""How often a verification executes each test that the patch can reach: two processes, or a test and its copies."""
FEW = 100
"""Executions that are never too many: a verification takes about half a second in any case."""
STRONGEST = max(EXECUTIONS)


def is_affordable(level: AssuranceLevel, task: Task, reached: int) -> bool:
    """Does a verification execute fewer tests than the suite has, or few?

    Args:
        reached: number of tests that the patch can reach.
    """
    return EXECUTIONS[level] * reached <= max(len(task.tests), FEW)


def too_expensive(level: AssuranceLevel, task: Task, reached: int) -> str:
    """The reason why nothing is verified, in words."""
    count = EXECUTIONS[level] * reached
    return f"to verify it as {level} would execute {count} tests, more than the {len(task.tests)} of the suite"
