"""RewardKit: a criterion that judges the workspace of a trial.

In a Python file of the task's `tests/`:

    import rewardkit
    import regrade.policy_training.adapters.rewardkit  # registers the criterion

    rewardkit.regrade(task_id="add-1", weight=1.0)

`REGRADE_TASKS` and `REGRADE_REWARD` name the tasks and the reward. RewardKit limits a criterion to [0, 1]: use a plain
reward, or a `TrainingReward` of that range.

Unscored: an exception, with which RewardKit ends without a reward.
"""

from __future__ import annotations

from pathlib import Path

import rewardkit

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.configured import configured_verdicts, value_of
from regrade.policy_training.adapters.versions import warn_if_untested
from regrade.policy_training.adapters.working_trees import verdict_of_tree


@rewardkit.criterion(description="Regrade's reward of the patch to task {task_id}", shared=True)  # type: ignore[untyped-decorator]
def regrade(workspace: Path, task_id: str) -> float:
    """The value of the workspace as an answer to the task.

    Raises:
        UserError: the task is unknown, or the value is outside of [0, 1].
        UnscoredError: see the module.
    """
    warn_if_untested("harbor-rewardkit")
    value = value_of(verdict_of_tree(configured_verdicts(), task_id, Path(workspace)), task_id)
    if not 0.0 <= value <= 1.0:
        raise UserError(
            f"the reward of task {task_id!r} is {value:g}, and RewardKit would limit it to [0, 1]: name a plain reward "
            "in REGRADE_REWARD, or a TrainingReward with low=0 and high=1"
        )
    return value
