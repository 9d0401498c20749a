"""ART: the reward and the metrics of a trajectory.

    async def rollout(model, task):
        trajectory = art.Trajectory(...)
        ...
        return await rewarded(trajectory, verdicts, Answer(task.id, text=trajectory.messages()[-1]["content"]))

Unscored: `rewarded` raises. `art.TrajectoryGroup` then holds the exception in the place of the trajectory, which leaves
it out of the group's mean; a group that shall have all of its attempts must be sampled again.
"""

from __future__ import annotations

from typing import Any, TypeVar

from regrade.policy_training.adapters.configured import value_of
from regrade.policy_training.adapters.verdicts import Answer, Verdicts
from regrade.policy_training.adapters.versions import warn_if_untested

T = TypeVar("T", bound=Any)


async def rewarded(trajectory: T, verdicts: Verdicts, answer: Answer) -> T:
    """The trajectory with the value of its answer as `reward`, and the components in `metrics`.

    Raises:
        UserError: the task is unknown.
        UnscoredError: see the module.
    """
    warn_if_untested("openpipe-art")
    verdict = await verdicts.of_one(answer)
    trajectory.reward = value_of(verdict, answer.task_id)
    trajectory.metrics.update(verdict.components)
    return trajectory
