"""Files of demonstrations: JSON lines, one or more rows a trace; an interrupted run goes on where it was killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.evaluators.storage.journal import append, read, write_atomically
from regrade.policy_training.environments.demonstrations import Demonstrator, NoDemonstration, transcript_of
from regrade.policy_training.policies.transcripts import Transcript, Turn


class TraceOrigin(msgspec.Struct):
    """What a row holds besides the fields of its format."""

    task_id: str
    trace: int
    mistakes: int
    """Wrong edits of the trace."""
    rows: int
    """Of the trace."""
    recipe: str
    """A digest of all that the trace was made of."""


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
    held = _whole_traces(path, demonstrator)
    wanted = demonstrator.wanted()
    missing = [trace for trace in wanted if trace not in held]
    left_out = []
    for done, made in enumerate(demonstrator.make(missing), len(wanted) - len(missing) + 1):
        if isinstance(made, NoDemonstration):
            left_out.append(made)
        else:
            recipe = demonstrator.recipe_of(made.task_id)
            origin = TraceOrigin(made.task_id, made.trace, made.mistakes, len(made.rows), recipe)
            append(path, [{**msgspec.structs.asdict(origin), **row} for row in made.rows])
        if progress is not None:
            progress(done, len(wanted))
    numbers = {trace: number for number, trace in enumerate(wanted)}
    rows = [row for row in read(path) if (row["task_id"], row["trace"]) in numbers]
    rows.sort(key=lambda row: numbers[row["task_id"], row["trace"]])
    return DemonstrationFile(rows, left_out)


class _StoredTurn(msgspec.Struct):
    action: str
    observation: str = ""
    is_learned: bool = True


class _StoredTrace(msgspec.Struct):
    prompt: str
    turns: tuple[_StoredTurn, ...]


def read_transcripts(path: Path) -> list[Transcript]:
    """The traces of a file in the compact format.

    Raises:
        UserError: the file has none, or a line is no such trace.
    """
    rows = read(path)
    if not rows:
        raise UserError(f"{path} contains no demonstrations: make some with `regrade tasks demonstrations`")
    advice = "give a file of `regrade tasks demonstrations` in the format compact (TRL's trainer reads chats)"
    traces = [converted(row, _StoredTrace, f"{path}, line {number}", advice) for number, row in enumerate(rows, 1)]
    return [
        Transcript(trace.prompt, tuple(Turn(turn.action, turn.observation, turn.is_learned) for turn in trace.turns))
        for trace in traces
    ]


def _whole_traces(path: Path, demonstrator: Demonstrator) -> set[tuple[str, int]]:
    """The traces in a file; the rows of one that was being written when its writer was killed are removed."""
    rows, origins = read(path), []
    tasks = {name for name, _ in demonstrator.wanted()}
    for number, row in enumerate(rows, 1):
        where, advice = f"{path}, line {number}", "choose another file, or delete it"
        origin = converted(row, TraceOrigin, where, f"this is no demonstration: {advice}")
        if not origin.recipe.startswith(f"{demonstrator.recipe}-"):
            raise UserError(f"{where}: made with other settings: {advice}")
        if origin.task_id in tasks and origin.recipe != demonstrator.recipe_of(origin.task_id):
            raise UserError(f"{where}: task {origin.task_id!r} has changed since: {advice}")
        origins.append(origin)
    counts = Counter((origin.task_id, origin.trace) for origin in origins)
    whole = {
        (origin.task_id, origin.trace) for origin in origins if counts[origin.task_id, origin.trace] == origin.rows
    }
    if len(whole) < len(counts):
        kept = [row for row in rows if (row["task_id"], row["trace"]) in whole]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
    return whole
