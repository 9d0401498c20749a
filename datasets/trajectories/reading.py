"""Trajectories of any known format. The content of a file decides its format, not its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document, documents
from regrade.datasets.graded.records import Findings
from regrade.datasets.trajectories import atif, inspect_messages, mini_swe_agent, openhands, own_episodes, swe_agent
from regrade.datasets.trajectories.records import ForeignTrajectory

TrajectoryReader = Callable[[Document], Iterator[ForeignTrajectory] | None]
FORMATS: Mapping[str, TrajectoryReader] = {
    module.NAME: module.trajectories
    for module in (atif, mini_swe_agent, swe_agent, openhands, inspect_messages, own_episodes)
}
"""Name of a format -> its reader, which returns None for a document of another format."""
UNREADABLE = "trajectories that cannot be read"


def read_trajectories(path: Path) -> list[ForeignTrajectory]:
    """The trajectories of one file.

    Raises:
        UserError: there is no such file, it is too large, cut off, of another version, or of no known format.
    """
    findings = Findings()
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the file of a trajectory")
    for document in documents(path, findings):
        found = _of_document(document)
        if found is not None:
            return [*found]
    why = "; ".join(findings.lines())
    raise UserError(f"{path}: no trajectory of a known format ({', '.join(FORMATS)}){why and f': {why}'}")


def trajectories_in(source: Path, findings: Findings) -> Iterator[ForeignTrajectory]:
    """The trajectories of a file or a folder, one in memory at a time. Those that cannot be read are findings."""
    for document in documents(source, Findings()):  # `regrade.datasets.graded` names files that are no JSON
        try:
            yield from _of_document(document) or ()
        except UserError as error:
            findings.add(UNREADABLE, str(error))


def _of_document(document: Document) -> Iterator[ForeignTrajectory] | None:
    for reader in FORMATS.values():
        found = reader(document)
        if found is not None:
            return found
    return None
