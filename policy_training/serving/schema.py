"""Requests and responses of `/score`, as the API's description shows them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_ID = 1000
Deadline = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False, description="Seconds until the response; the server's own limit is the most."),
]


class AnswerStatus(StrEnum):
    """What became of an answer."""

    SCORED = "scored"
    UNSCORED = "unscored"
    """No value, for a reason that the policy did not cause. It is not 0."""
    FAILED = "failed"
    """The reward raised an error: it must be fixed."""
    UNFINISHED = "unfinished"
    """Not scored within the deadline: post the same again, which joins the running answer."""


class AnswerBody(BaseModel):
    """An answer to a task: exactly one of `patch`, `text` and `episode`."""

    model_config = ConfigDict(extra="forbid")

    task_id: Annotated[str, Field(max_length=MOST_ID)]
    patch: str | None = Field(None, description="A unified diff; empty: no change.")
    text: str | None = Field(None, description="A model's answer with SEARCH/REPLACE edits or a unified diff.")
    episode: dict[str, Any] | None = Field(None, description="An agent's episode; its tree at the end is judged.")

    @model_validator(mode="after")
    def _has_one(self) -> AnswerBody:
        if sum(value is not None for value in (self.patch, self.text, self.episode)) != 1:
            raise ValueError("give exactly one of patch, text and episode")
        return self


class ScoreBody(BaseModel):
    """A request of `/score`."""

    model_config = ConfigDict(extra="forbid")

    answers: Annotated[list[AnswerBody], Field(min_length=1)]
    deadline: Deadline | None = None


class VerdictBody(BaseModel):
    """The verdict on one answer."""

    index: int = Field(description="The place of the answer in the request, from 0.")
    task_id: str
    digest: str = Field(description="Equal for equal answers to the same task.")
    status: AnswerStatus
    value: float | None = Field(description="null unless the status is `scored`; never 0 in its place.")
    components: dict[str, float] = Field(default_factory=dict, description="Empty without a value.")
    cause: str = Field("", description="Why there is no value, or the cause whose price is the value.")
    flags: list[str] = Field(default_factory=list)
    explanation: str = ""


class VerdictsBody(BaseModel):
    """The verdicts, in the order of the answers."""

    verdicts: list[VerdictBody]


class HealthBody(BaseModel):
    """Is the server ready?"""

    status: str = Field(description="`healthy`, or `unhealthy` while it stops.")
    reward: str
    tasks: int
    waiting: int
    running: int


class ErrorBody(BaseModel):
    """Why a request got no verdict."""

    detail: str
