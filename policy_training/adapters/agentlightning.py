"""Agent Lightning 1.0: the reward event of an attempt.

    verdict = await configured_verdicts().of_one(Answer(task_id, patch=patch))
    path = f"/api/rollouts/{rollout_id}/attempt/{attempt_id}/events"
    client.post_with_retry(path, json=reward_event(verdict, task_id))

Unscored: `reward_event` raises. Let the exception end the agent, so that its rollout fails: a rollout that succeeds
without a reward event is filled in with 0.
"""

from __future__ import annotations

from typing import Any

from regrade.policy_training.adapters.configured import value_of
from regrade.policy_training.adapters.verdicts import Verdict
from regrade.policy_training.adapters.versions import warn_if_untested


def reward_event(verdict: Verdict, task_id: str) -> dict[str, Any]:
    """The body of the event.

    Raises:
        UnscoredError: the verdict has no value.
    """
    warn_if_untested("agentlightning")
    value = value_of(verdict, task_id)
    data = {"value": value, "message": verdict.explanation, "source": "regrade", "reason": verdict.cause or None}
    return {"event_type": "reward", "data": {**data, "components": dict(verdict.components)}}
