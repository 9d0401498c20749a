"""Trajectories of SWE-agent (`.traj`): its `trajectory` of actions and observations, or a demonstration's `history`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regrade.datasets.episodes import EpisodeEnd, Step
from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document
from regrade.datasets.trajectories.chat_messages import SHELL, chat_steps
from regrade.datasets.trajectories.records import (
    ForeignTrajectory,
    count_of,
    foreign_episode,
    foreign_step,
    mapping,
    objects,
    seconds_between,
    text_of,
    with_observation,
)

NAME = "swe-agent"
ENDS = {"exit_context": EpisodeEnd.TOKENS, "exit_command_timeout": EpisodeEnd.SECONDS}


def trajectories(document: Document) -> Iterator[ForeignTrajectory] | None:
    """The trajectory of a file; None if it is none of this format.

    Raises:
        UserError: its steps have another form.
    """
    value = document.value if document.kind == "json" else None
    if not isinstance(value, dict) or "trajectory_format" in value:
        return None
    steps, history = value.get("trajectory"), value.get("history")
    if isinstance(steps, list) and ("environment" in value or _are_steps(steps[:1])):
        if not _are_steps(steps):
            raise UserError(
                f"{document.path}: a trajectory of SWE-agent whose steps lack `action` or `observation`: give a file "
                "that SWE-agent wrote"
            )
        return iter([_trajectory(document, value)])
    is_history = isinstance(history, list) and bool(history) and all(_is_message(each) for each in history)
    return iter([_demonstration(document, value)]) if is_history else None


def _are_steps(steps: list[Any]) -> bool:
    return all(isinstance(step, dict) and {"action", "observation"} <= step.keys() for step in steps)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value and "agent" in value


def _trajectory(document: Document, value: Mapping[str, Any]) -> ForeignTrajectory:
    info, instance = mapping(value.get("info")), document.path.name.split(".")[0]
    history = objects(value.get("history"))
    tokens = mapping(info.get("model_stats")).get("tokens_received")
    return ForeignTrajectory(
        instance=instance,
        episode=foreign_episode(
            instance,
            chat_steps(history).instruction,
            map(_step, objects(value["trajectory"])),
            submission=info.get("submission"),
            end=_end(str(info.get("exit_status") or "")),
            tokens=count_of(tokens),
        ),
        source=NAME,
        is_patch_known=isinstance(info.get("submission"), str),
    )


def _step(step: Mapping[str, Any]) -> Step:
    action = text_of(step["action"]).strip("\n")
    response = text_of(step.get("response")) or text_of(step.get("thought"))
    made = foreign_step(SHELL if action else "", {"command": action} if action else {}, response)
    return with_observation(made, text_of(step["observation"]), seconds_between(0, step.get("execution_time")))


def _end(status: str) -> EpisodeEnd:
    return EpisodeEnd.SUBMITTED if status.startswith("submitted") else ENDS.get(status, EpisodeEnd.UNKNOWN)


def _demonstration(document: Document, value: Mapping[str, Any]) -> ForeignTrajectory:
    instance, chat = document.path.name.split(".")[0], chat_steps(objects(value["history"]))
    return ForeignTrajectory(
        instance=instance,
        episode=foreign_episode(instance, chat.instruction, chat.steps),
        source=NAME,
        is_patch_known=False,
    )
