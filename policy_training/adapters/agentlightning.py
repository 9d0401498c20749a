"""Agent Lightning 1.0: the reward event of an attempt.

    verdict = await configured_verdicts().of_one(Answer(task_id, patch=patch))
    path = f"/api/rollouts/{rollout_id}/attempt/{attempt_id}/events"
    client.post_with_retry(path, json=reward_event(verdict, task_id))

Unscored: `reward_event` raises, so the rollout has no reward. Agent Lightning's trainer fills a missing reward in with
0, whether the rollout succeeded or failed: `scored_groups` drops the group of such a rollout before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from regrade.policy_training.adapters.configured import value_of
from regrade.policy_training.adapters.verdicts import Verdict
from regrade.policy_training.adapters.versions import warn_if_untested

RolloutT = TypeVar("RolloutT", bound=Any)


def scored_groups(rollouts: Sequence[RolloutT]) -> list[RolloutT]:
    """The `CompletedRollout`s of those groups (`data_id`) in which every rollout has a reward.

    class ScoredGroups(RolloutAdapter):
        def get_train_data_batch(self, completed_rollouts, **more):
            return super().get_train_data_batch(scored_groups(completed_rollouts), **more)
    """
    unscored = {each.data_id for each in rollouts if each.final_reward is None}
    return [each for each in rollouts if each.data_id not in unscored]


def reward_event(verdict: Verdict, task_id: str) -> dict[str, Any]:
    """The body of the event.

    Raises:
        UnscoredError: the verdict has no value.
    """
    warn_if_untested("agentlightning")
    value = value_of(verdict, task_id)
    data = {"value": value, "message": verdict.explanation, "source": "regrade", "reason": verdict.cause or None}
    return {"event_type": "reward", "data": {**data, "components": dict(verdict.components)}}
