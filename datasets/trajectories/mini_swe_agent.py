"""Trajectories of mini-swe-agent (`.traj.json`): formats 1 and 1.x, with code blocks or with calls of tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document
from regrade.datasets.trajectories.chat_messages import chat_steps
from regrade.datasets.trajectories.records import ForeignTrajectory, foreign_episode, mapping, objects

NAME = "mini-swe-agent"
READ = ("mini-swe-agent-1", "mini-swe-agent-1.")


def trajectories(document: Document) -> Iterator[ForeignTrajectory] | None:
    """The trajectory of a file; None if it is none of this format.

    Raises:
        UserError: it has another version of the format, or no messages.
    """
    value = document.value if document.kind == "json" else None
    if not isinstance(value, dict):
        return None
    version = value.get("trajectory_format")
    if not (isinstance(version, str) and version.startswith(NAME)):
        return None
    if version != READ[0] and not version.startswith(READ[1]):
        raise UserError(
            f"{document.path}: trajectory format {version!r}; this version of regrade reads {READ[0]} and 1.x"
        )
    if not isinstance(value.get("messages"), list):
        raise UserError(f"{document.path}: a trajectory of mini-swe-agent without `messages`: give a whole file")
    return iter([_trajectory(document, value)])


def _trajectory(document: Document, value: dict[str, Any]) -> ForeignTrajectory:
    info, named = mapping(value.get("info")), value.get("instance_id")
    instance = named if isinstance(named, str) and named else document.path.name.split(".")[0]
    chat = chat_steps(objects(value["messages"]))
    return ForeignTrajectory(
        instance=instance,
        episode=foreign_episode(
            instance,
            chat.instruction,
            chat.steps,
            submission=info.get("submission"),
            end=EpisodeEnd.SUBMITTED if info.get("exit_status") == "Submitted" else EpisodeEnd.UNKNOWN,
            tokens=chat.tokens,
        ),
        source=NAME,
        is_patch_known=isinstance(info.get("submission"), str),
        model=str(mapping(mapping(info.get("config")).get("model")).get("model_name") or ""),
    )
