"""NeMo Gym: a resources server whose `/verify` judges the answer in a response.

    # app.py of a resources server
    from regrade.policy_training.adapters.nemo_gym import RegradeResourcesServer

    if __name__ == "__main__":
        RegradeResourcesServer.run_webserver()

`REGRADE_TASKS` and `REGRADE_REWARD` name the tasks and the reward; `task_id` of a row of the data set is the id of its
task, and `patch`, if an agent server adds it, is judged in the place of the response's text.

Unscored: `mask_sample` is true, `failure_kind` is `verifier_error` and `failure_reason` says why; `reward` is 0, as the
form needs a number. `/aggregate_metrics` leaves masked rows out; a trainer must leave out their groups.
"""

from __future__ import annotations

from typing import Any

from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from nemo_gym.config_types import AggregateMetrics, AggregateMetricsRequest
from pydantic import ConfigDict, Field

from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.nemo_gym_protocol import coverage, measured, verify_fields
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.adapters.versions import warn_if_untested


class RegradeVerifyRequest(BaseVerifyRequest):  # type: ignore[misc]
    """A response to a task."""

    model_config = ConfigDict(extra="allow")
    task_id: str
    patch: str | None = None


class RegradeVerifyResponse(BaseVerifyResponse):  # type: ignore[misc]
    """The request, and its verdict. The components are also at the top, where NeMo Gym averages them."""

    model_config = ConfigDict(extra="allow")
    task_id: str
    mask_sample: bool = False
    failure_kind: str | None = None
    failure_reason: str | None = None
    cause: str = ""
    reward_components: dict[str, float] = Field(default_factory=dict)


class RegradeResourcesServer(SimpleResourcesServer):  # type: ignore[misc]
    """`/verify` by the configured reward."""

    config: BaseResourcesServerConfig

    async def verify(self, body: RegradeVerifyRequest) -> RegradeVerifyResponse:
        """Raises UserError: the task is unknown."""
        warn_if_untested("nemo-gym")
        text = text_of_response(body.response) if body.patch is None else None
        verdict = await configured_verdicts().of_one(Answer(body.task_id, patch=body.patch, text=text))
        fields = verify_fields(verdict.value, verdict.components, verdict.cause)
        return RegradeVerifyResponse(**{**body.model_dump(), **fields, "cause": verdict.cause})

    async def aggregate_metrics(self, body: AggregateMetricsRequest) -> AggregateMetrics:
        """NeMo Gym's own, of the rows that are not masked: version 0.4 would count the 0 of the others."""
        rows = body.verify_responses
        metrics = await super().aggregate_metrics(body.model_copy(update={"verify_responses": measured(rows)}))
        for each in (metrics.agent_metrics, metrics.key_metrics):
            each.update(coverage(rows))
        return metrics


def text_of_response(response: Any) -> str:
    """The text of the last message in a response of OpenAI's Responses API."""
    messages = [item for item in response.output if item.type == "message"]
    return "".join(getattr(part, "text", "") for part in messages[-1].content) if messages else ""
