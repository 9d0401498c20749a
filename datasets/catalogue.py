"""Tasks as a catalogue lists them: without their files, so that nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.datasets.tasks import Task


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One task of a catalogue."""

    id: str
    repository: str
    source: str
    file: str | None
    """The file and the function with the bug; None if unknown."""
    function: str | None
    fail_to_pass: int
    """Number of tests."""
    pass_to_pass: int


def entry_of(task: Task) -> CatalogueEntry:
    return CatalogueEntry(
        id=task.id,
        repository=task.repository,
        source=task.source,
        file=task.target.file if task.target else None,
        function=task.target.function if task.target else None,
        fail_to_pass=len(task.fail_to_pass),
        pass_to_pass=len(task.pass_to_pass),
    )
