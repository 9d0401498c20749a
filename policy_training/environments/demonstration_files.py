"""Files of demonstrations: JSON lines, one or more rows a trace; an interrupted run goes on where it was killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.journal import append, read, write_atomically
from regrade.policy_training.environments.demonstrations import Demonstrator, NoDemonstration, transcript_of
from regrade.policy_training.policies.transcripts import Transcript

ORIGIN = ("task_id", "trace", "mistakes", "rows", "recipe")
"""Fields of a row besides those of its format: its trace, the wrong edits in it, its number of rows, and a digest of
all settings of which it was made."""


@dataclass(frozen=True)
class DemonstrationFile:
    """What a file of demonstrations holds."""

    rows: Sequence[dict[str, Any]]
    left_out: Sequence[NoDemonstration]
    """Traces that could not be made."""

    @property
    def traces(self) -> int:
        return len({(row["task_id"], row["trace"]) for row in self.rows})

    @property
    def with_mistakes(self) -> int:
        """Traces with a wrong edit."""
        return len({(row["task_id"], row["trace"]) for row in self.rows if row["mistakes"]})

    @property
    def transcripts(self) -> list[Transcript]:
        """Of rows in the compact format."""
        return [transcript_of(row) for row in self.rows]

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why traces were left out, and how many; the most frequent first."""
        return Counter(each.why for each in self.left_out).most_common()


def write_demonstrations(
    demonstrator: Demonstrator, path: Path, progress: Callable[[int, int], None] | None = None
) -> DemonstrationFile:
    """Make all traces of a demonstrator that the file doesn't hold yet, and append each as it is made.

    Raises:
        UserError: the file holds something else, or traces that were made with other settings.
    """
    held = _whole_traces(path, demonstrator.recipe)
    wanted = demonstrator.wanted()
    missing = [trace for trace in wanted if trace not in held]
    left_out = []
    for done, made in enumerate(demonstrator.make(missing), len(wanted) - len(missing) + 1):
        if isinstance(made, NoDemonstration):
            left_out.append(made)
        else:
            origin = (made.task_id, made.trace, made.mistakes, len(made.rows), demonstrator.recipe)
            append(path, [{**dict(zip(ORIGIN, origin, strict=True)), **row} for row in made.rows])
        if progress is not None:
            progress(done, len(wanted))
    numbers = {trace: number for number, trace in enumerate(wanted)}
    rows = [row for row in read(path) if (row["task_id"], row["trace"]) in numbers]
    rows.sort(key=lambda row: numbers[row["task_id"], row["trace"]])
    return DemonstrationFile(rows, left_out)


def _whole_traces(path: Path, recipe: str) -> set[tuple[str, int]]:
    """The traces in a file; the rows of one that was being written when its writer was killed are removed."""
    rows = read(path)
    for number, row in enumerate(rows, 1):
        if not row.keys() >= set(ORIGIN):
            raise UserError(f"{path}, line {number}: no demonstration of this program; choose another file")
        if row["recipe"] != recipe:
            raise UserError(
                f"{path} holds demonstrations that were made with other settings: choose another file, or delete it"
            )
    counts = Counter((row["task_id"], row["trace"]) for row in rows)
    whole = [row for row in rows if counts[row["task_id"], row["trace"]] == row["rows"]]
    if len(whole) < len(rows):
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in whole))
    return {(row["task_id"], row["trace"]) for row in whole}
