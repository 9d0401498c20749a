"""NeMo Gym: a resources server whose `/verify` judges the answer in a response.

    # app.py of a resources server
    from regrade.policy_training.adapters.nemo_gym import RegradeResourcesServer

    if __name__ == "__main__":
        RegradeResourcesServer.run_webserver()

`REGRADE_TASKS` and `REGRADE_REWARD` name the tasks and the reward; `task_id` of a row of the data set is the id of its
task, and `patch`, if an agent server adds it, is judged in the place of the response's text.

Unscored: `mask_sample` is true, `failure_kind` is `verifier_error` and `failure_reason` says why; `reward` is 0, as the
form needs a number. NeMo Gym 0.7 leaves masked rows out of its own scores; a trainer must leave out their groups.
"""

from __future__ import annotations

from typing import Any

from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from pydantic import ConfigDict, Field

from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer, Verdict
from regrade.policy_training.adapters.versions import warn_if_untested

VERIFIER_ERROR = "verifier_error"
"""Of NeMo Gym's vocabulary of failures: the verifier could not measure the answer."""


class RegradeVerifyRequest(BaseVerifyRequest):  # type: ignore[misc]
    """A response to a task."""

    model_config = ConfigDict(extra="allow")
    task_id: str
    patch: str | None = None


class RegradeVerifyResponse(BaseVerifyResponse):  # type: ignore[misc]
    """The request, and its verdict."""

    model_config = ConfigDict(extra="allow")
    task_id: str
    mask_sample: bool = False
    failure_kind: str | None = None
    failure_reason: str | None = None
    cause: str = ""
    components: dict[str, float] = Field(default_factory=dict)


class RegradeResourcesServer(SimpleResourcesServer):  # type: ignore[misc]
    """`/verify` by the configured reward."""

    config: BaseResourcesServerConfig

    async def verify(self, body: RegradeVerifyRequest) -> RegradeVerifyResponse:
        """Raises UserError: the task is unknown."""
        warn_if_untested("nemo-gym")
        text = text_of_response(body.response) if body.patch is None else None
        verdict = await configured_verdicts().of_one(Answer(body.task_id, patch=body.patch, text=text))
        return RegradeVerifyResponse(**{**body.model_dump(), **fields_of(verdict)})


def text_of_response(response: Any) -> str:
    """The text of the last message in a response of OpenAI's Responses API."""
    messages = [item for item in response.output if item.type == "message"]
    return "".join(getattr(part, "text", "") for part in messages[-1].content) if messages else ""


def fields_of(verdict: Verdict) -> dict[str, Any]:
    """The fields of a verify response."""
    if verdict.value is None:
        failure = {"failure_kind": VERIFIER_ERROR, "failure_reason": verdict.cause}
        return {"reward": 0.0, "mask_sample": True, **failure, "cause": verdict.cause, "components": {}}
    return {"reward": verdict.value, "cause": verdict.cause, "components": dict(verdict.components)}
