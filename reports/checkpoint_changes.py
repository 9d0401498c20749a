"""Changes between checkpoints, for a terminal and as Markdown: reward parts that moved, tasks that changed outcome."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.datasets.plurals import counted
from regrade.datasets.visible_text import visible
from regrade.evaluators.analysis.checkpoint_changes import OUTCOME_CHANGES, PartChange, TaskChange, TaskChanges
from regrade.reports.markdown import plain
from regrade.reports.wording import number, p_value, percent, signed

SHOWN_TASKS = 20
"""Tasks of one side that are named; of more the number is told."""
SHOWN_TESTS = 3
STYLES = {"newly fixed": "green", "no longer broken": "green", "no longer fixed": "red", "newly broken": "red"}


def print_task_changes(found: TaskChanges, console: Console) -> None:
    """Print the parts of the reward with their differences, then the tasks that changed outcome, by name."""
    console.print()
    console.print(_parts(found))
    console.print()
    for side, _, _ in OUTCOME_CHANGES:
        changes = found.sides[side]
        console.print(
            Text(f"{side}: {counted(len(changes), 'task')}", style=f"bold {STYLES[side]}" if changes else "bold")
        )
        for change in changes[:SHOWN_TASKS]:
            console.print(Text(f"  {_line(change)}"))
        if len(changes) > SHOWN_TASKS:
            console.print(f"  and {len(changes) - SHOWN_TASKS} more: --json names them all")
    console.print()
    console.print(Text(_footnote(found)), style="dim")


def _parts(found: TaskChanges) -> Table | Text:
    if found.reward is None:
        return Text(visible(_no_parts(found)))
    table = Table(box=None, pad_edge=False)
    table.add_column("part of the reward")
    for heading in ("baseline", "candidate", "change", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in found.parts:
        table.add_row(*_row(part, _cells(part, number, 1, 3)))
    table.add_row(*_row(found.reward, _cells(found.reward, number, 1, 3)))
    for gate in _shown_gates(found):
        table.add_row(*_row(gate, _cells(gate, percent, 100, 1, name=f"closed by {gate.name}")))
    return table


def _no_parts(found: TaskChanges) -> str:
    if len(found.rewards) > 1:
        return (
            f"The parts of their rewards cannot be compared: one was judged by {found.rewards[0]!r} and one by "
            f"{found.rewards[1]!r}. Judge both by one, with `regrade rescore`."
        )
    return "There is no task of which both have a score, so no part of the reward can be compared."


def _row(change: PartChange, cells: tuple[str, ...]) -> list[Text]:
    """With the difference in bold where 0 lies outside its interval."""
    return [Text(cell, style="bold" if change.moved and place == 3 else "") for place, cell in enumerate(cells)]


def _cells(
    change: PartChange, shown: Callable[[float], str], scale: float, digits: int, name: str = ""
) -> tuple[str, ...]:
    low, high = (signed(scale * end, digits) for end in (change.low, change.high))
    return (
        visible(name or change.name),
        shown(change.baseline),
        shown(change.candidate),
        signed(scale * change.difference, digits),
        "" if math.isnan(change.low) else f"[{low}, {high}]",
    )


def task_changes_markdown(found: TaskChanges) -> str:
    """The same as Markdown: a table of the parts, and a list of tasks for each side that has any."""
    lines = ["#### What moved", ""]
    if found.reward is None:
        lines.append(plain(_no_parts(found)))
    else:
        lines += ["| part of the reward | baseline | candidate | change | 95 % interval |", "|-|-:|-:|-:|-:|"]
        rows = [_cells(part, number, 1, 3) for part in (*found.parts, found.reward)]
        rows += [_cells(gate, percent, 100, 1, name=f"closed by {gate.name}") for gate in _shown_gates(found)]
        lines += [f"| {' | '.join(map(plain, row))} |" for row in rows]
    for side, _, _ in OUTCOME_CHANGES:
        changes = found.sides[side]
        if changes:
            lines += ["", f"**{side}: {counted(len(changes), 'task')}**", ""]
            lines += [f"- {plain(_line(change))}" for change in changes[:SHOWN_TASKS]]
            lines += [f"- and {len(changes) - SHOWN_TASKS} more"] if len(changes) > SHOWN_TASKS else []
    return "\n".join([*lines, "", plain(_footnote(found))])


def _shown_gates(found: TaskChanges) -> list[PartChange]:
    """Those that were ever closed."""
    return [gate for gate in found.gates if gate.baseline or gate.candidate]


def _line(change: TaskChange) -> str:
    """`4/4 -> 1/4  toolz/0012 (test_a, test_b)`."""
    (held, count), (holds, tried) = change.baseline, change.candidate
    line = f"{held}/{count} -> {holds}/{tried}  {change.task}"
    if not change.tests:
        return visible(line)
    more = len(change.tests) - SHOWN_TESTS
    return visible(f"{line} ({', '.join(change.tests[:SHOWN_TESTS])}{f' and {more} more' if more > 0 else ''})")


def _footnote(found: TaskChanges) -> str:
    fixed, broke = p_value(found.p["fix"]), p_value(found.p["broke"])
    text = (
        f"{counted(found.n_tasks, 'task')} that both were tried on. The outcome of a task is that of at least half of "
        f"its attempts (k/n); which task changes outcome is partly chance. Exact McNemar test, tasks taken as "
        f"independent: p = {fixed} for fixes, {broke} for breakage."
    )
    if found.left_out:
        text += (
            f" {counted(found.left_out, 'task')} left out: not tried by both on the same files and tests, or of "
            "unknown outcome."
        )
    if found.reward is not None:
        text += " Parts add up to the reward; a closed gate silences those behind it."
    return text
