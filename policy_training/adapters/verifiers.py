"""verifiers 0.4: an async reward that a configuration plugs into any taskset.

    [taskset.task.rewards.regrade]
    fn = "regrade.policy_training.adapters.verifiers:regrade"

    [taskset.task.metrics.regrade_components]
    fn = "regrade.policy_training.adapters.verifiers:components"

`REGRADE_TASKS` and `REGRADE_REWARD` name the tasks and the reward. The id of the task is that of verifiers' task, or
else its name.

Unscored: an exception in a reward leaves all rewards of the trace None, and the trace has an error.
"""

from __future__ import annotations

from typing import Any

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.configured import configured_verdicts, value_of
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.adapters.versions import warn_if_untested


async def regrade(task: Any, trace: Any) -> float:
    """The value of the last reply of a trace.

    Raises:
        UserError: the task is unknown.
        UnscoredError: see the module.
    """
    warn_if_untested("verifiers")
    answer = _answer(task, trace)
    return value_of(await configured_verdicts().of_one(answer), answer.task_id)


async def components(task: Any, trace: Any) -> dict[str, float]:
    """The components of the same verdict; its evidence is cached, so that nothing runs twice."""
    return dict((await configured_verdicts().of_one(_answer(task, trace))).components)


def _answer(task: Any, trace: Any) -> Answer:
    named = task.id or task.name
    if not named:
        raise UserError(f"a task of the taskset has neither id nor name (idx {task.idx}): set its id to that of a task")
    return Answer(named, text=trace.last_reply)
