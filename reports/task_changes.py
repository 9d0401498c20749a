"""What differs between two checkpoints, for a terminal: parts of the reward that moved, tasks that changed sides."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.datasets.visible_text import visible
from regrade.evaluators.task_changes import SIDES, PartChange, TaskChange, TaskChanges
from regrade.reports.wording import number, p_value, percent, signed

SHOWN_TASKS = 20
"""Tasks of one side that are named; of more the number is told."""
SHOWN_TESTS = 3
STYLES = {"newly fixed": "green", "no longer broken": "green", "no longer fixed": "red", "newly broken": "red"}


def print_task_changes(found: TaskChanges, console: Console) -> None:
    """Print the parts of the reward with their differences, then the tasks that changed sides, by name."""
    console.print()
    console.print(_parts(found))
    for side, _, _ in SIDES:
        changes = found.sides[side]
        console.print()
        console.print(Text(f"{side}: {_tasks(len(changes))}", style=f"bold {STYLES[side]}" if changes else "bold"))
        for change in changes[:SHOWN_TASKS]:
            console.print(Text(f"  {_line(change)}"))
        if len(changes) > SHOWN_TASKS:
            console.print(f"  and {len(changes) - SHOWN_TASKS} more: --json names them all")
    console.print()
    console.print(Text(_footnote(found)), style="dim")


def _parts(found: TaskChanges) -> Table | Text:
    if len(found.rewards) > 1:
        return Text(
            f"The parts of their rewards cannot be compared: one was judged by {found.rewards[0]!r} and one by "
            f"{found.rewards[1]!r}. Judge both by one, with `regrade rescore`."
        )
    if found.reward is None:
        return Text("Of no task both have a score, so that no part of the reward can be compared.")
    table = Table(box=None, pad_edge=False)
    table.add_column("part of the reward")
    for heading in ("baseline", "candidate", "change", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in found.parts:
        table.add_row(*_row(part, number, 1, 3))
    table.add_row(*_row(found.reward, number, 1, 3), end_section=True)
    for gate in found.gates:
        table.add_row(*_row(gate, percent, 100, 1, name=f"closed by {visible(gate.name)}"), style="dim")
    return table


def _row(change: PartChange, shown: Callable[[float], str], scale: float, digits: int, name: str = "") -> list[Text]:
    ends = (
        ""
        if math.isnan(change.low)
        else f"[{signed(scale * change.low, digits)}, {signed(scale * change.high, digits)}]"
    )
    difference = Text(signed(scale * change.difference, digits), style="bold" if change.moved else "")
    return [
        Text(name or visible(change.name)),
        *map(Text, map(shown, (change.baseline, change.candidate))),
        difference,
        Text(ends),
    ]


def _line(change: TaskChange) -> str:
    """`toolz/0012  4 of 4 attempts -> 1 of 4; breaks a, b`."""
    (held, count), (holds, tried) = change.baseline, change.candidate
    line = f"{change.task}  {held} of {count} -> {holds} of {tried}"
    if not change.tests:
        return visible(line)
    more = len(change.tests) - SHOWN_TESTS
    return visible(f"{line}: {', '.join(change.tests[:SHOWN_TESTS])}{f' and {more} more' if more > 0 else ''}")


def _footnote(found: TaskChanges) -> str:
    fixed, broke = p_value(found.p["fix"]), p_value(found.p["broke"])
    text = (
        f"{_tasks(found.n_tasks)} that both were tried on. A task is on a side by at least half of its attempts; which "
        f"task changes sides is partly chance. Of as many on either side: p = {fixed} for fixing, {broke} for breaking "
        "(McNemar, exact; tasks taken as independent)."
    )
    if found.left_out:
        text += (
            f" {_tasks(found.left_out)} left out: not tried by both on the same files and tests, or of unknown outcome."
        )
    if found.reward is not None:
        text += (
            " Parts add up to the reward; a closed gate silences those behind it. In bold: 0 lies outside the interval."
        )
    return text


def _tasks(count: int) -> str:
    return f"{count} task" if count == 1 else f"{count} tasks"
