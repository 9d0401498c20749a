"""rLLM: a reward function of a task and an answer.

Written to rLLM's documented form; not tested with it, as it has no release.

`REGRADE_TASKS` and `REGRADE_REWARD` name the tasks and the reward; `task_info["task_id"]` is the id of the task.

Unscored: an `UnscoredError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrade.policy_training.adapters.configured import configured_verdicts, value_of
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.adapters.verl import task_of_row


def reward(task_info: Mapping[str, Any], action: str) -> Any:
    """rLLM's `RewardOutput` of an answer.

    Raises:
        UserError: no task is named, or it is unknown.
        UnscoredError: see the module.
    """
    from rllm.rewards.reward_types import RewardOutput

    task_id = task_of_row(None, task_info)
    (verdict,) = configured_verdicts().of([Answer(task_id, text=action)])
    value = value_of(verdict, task_id)
    return RewardOutput(reward=value, metadata=dict(verdict.components), is_correct="resolved" in verdict.flags)
