"""Episodes that Regrade itself wrote as one JSON object, such as the `trajectory.json` of `regrade agent`."""

from __future__ import annotations

from collections.abc import Iterator

from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document
from regrade.datasets.json_structs import converted
from regrade.datasets.trajectories.records import ForeignTrajectory

NAME = "regrade"
SIGNS = frozenset({"task_id", "instruction", "end", "patch", "steps", "patches"})


def trajectories(document: Document) -> Iterator[ForeignTrajectory] | None:
    """The episode of a file; None if it is none.

    Raises:
        UserError: it is damaged.
    """
    value = document.value if document.kind == "json" else None
    if not isinstance(value, dict) or not value.keys() >= SIGNS:
        return None
    stored = converted(value, StoredEpisode, f"{document.path}: not an episode", "give a whole file")
    try:
        episode = stored.episode()
    except KeyError as error:
        raise UserError(f"{document.path}: not an episode: 'patches' lacks the patch at the end, {error}") from error
    return iter([ForeignTrajectory(instance=episode.task_id, episode=episode, source=NAME)])
