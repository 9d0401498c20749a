"""Changes between two checkpoints, for a terminal and as Markdown: reward parts, and tasks that changed outcome."""

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
from regrade.reports.number_format import equals_p, number, percent, signed

SHOWN_TASKS = 20
"""Maximal number of tasks listed per kind of change; of the rest only the number is shown."""
SHOWN_TESTS = 3
STYLES = {"newly fixed": "green", "no longer broken": "green", "no longer fixed": "red", "newly broken": "red"}


def print_task_changes(changes: TaskChanges, console: Console) -> None:
    """Print the parts of the reward with their differences, then the tasks that changed outcome, by name."""
    console.print()
    console.print(_parts(changes))
    console.print()
    for side, _, _ in OUTCOME_CHANGES:
        tasks = changes.sides[side]
        console.print(Text(f"{side}: {counted(len(tasks), 'task')}", style=f"bold {STYLES[side]}" if tasks else "bold"))
        for change in tasks[:SHOWN_TASKS]:
            console.print(Text(f"  {_line(change)}"))
        if len(tasks) > SHOWN_TASKS:
            console.print(f"  and {len(tasks) - SHOWN_TASKS} more: --json lists them all")
    console.print()
    console.print(Text(_footnote(changes)), style="dim")


def _parts(changes: TaskChanges) -> Table | Text:
    if changes.reward is None:
        return Text(visible(_no_parts(changes)))
    table = Table(box=None, pad_edge=False)
    table.add_column("part of the reward")
    for heading in ("baseline", "candidate", "change", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in changes.parts:
        table.add_row(*_row(part, _cells(part, number, 1, 3)))
    table.add_row(*_row(changes.reward, _cells(changes.reward, number, 1, 3)))
    for gate in _shown_gates(changes):
        table.add_row(*_row(gate, _cells(gate, percent, 100, 1, name=f"closed by {gate.name}")))
    return table


def _no_parts(changes: TaskChanges) -> str:
    if len(changes.rewards) > 1:
        return (
            f"The parts of the rewards cannot be compared: the rewards are {changes.rewards[0]!r} and "
            f"{changes.rewards[1]!r}. Score both with one reward: `regrade rescore`."
        )
    return "No task has scores of both, so the parts of the reward cannot be compared."


def _row(change: PartChange, cells: tuple[str, ...]) -> list[Text]:
    """The difference is bold if its interval excludes 0."""
    return [Text(cell, style="bold" if change.moved and column == 3 else "") for column, cell in enumerate(cells)]


def _cells(
    change: PartChange, write: Callable[[float], str], scale: float, digits: int, name: str = ""
) -> tuple[str, ...]:
    low, high = (signed(scale * end, digits) for end in (change.low, change.high))
    return (
        visible(name or change.name),
        write(change.baseline),
        write(change.candidate),
        signed(scale * change.difference, digits),
        "" if math.isnan(change.low) else f"[{low}, {high}]",
    )


def task_changes_markdown(changes: TaskChanges) -> str:
    """Return the same as Markdown: a table of the parts, and a list of tasks for each kind of change."""
    lines = ["#### Changes by part and task", ""]
    if changes.reward is None:
        lines.append(plain(_no_parts(changes)))
    else:
        lines += ["| part of the reward | baseline | candidate | change | 95 % interval |", "|-|-:|-:|-:|-:|"]
        rows = [_cells(part, number, 1, 3) for part in (*changes.parts, changes.reward)]
        rows += [_cells(gate, percent, 100, 1, name=f"closed by {gate.name}") for gate in _shown_gates(changes)]
        lines += [f"| {' | '.join(map(plain, row))} |" for row in rows]
    for side, _, _ in OUTCOME_CHANGES:
        tasks = changes.sides[side]
        if tasks:
            lines += ["", f"**{side}: {counted(len(tasks), 'task')}**", ""]
            lines += [f"- {plain(_line(change))}" for change in tasks[:SHOWN_TASKS]]
            lines += [f"- and {len(tasks) - SHOWN_TASKS} more"] if len(tasks) > SHOWN_TASKS else []
    return "\n".join([*lines, "", plain(_footnote(changes))])


def _shown_gates(changes: TaskChanges) -> list[PartChange]:
    """Gates that closed for at least one attempt."""
    return [gate for gate in changes.gates if gate.baseline or gate.candidate]


def _line(change: TaskChange) -> str:
    """`4/4 -> 1/4  toolz/0012 (test_a, test_b)`."""
    (before, n_before), (after, n_after) = change.baseline, change.candidate
    line = f"{before}/{n_before} -> {after}/{n_after}  {change.task}"
    if not change.tests:
        return visible(line)
    more = len(change.tests) - SHOWN_TESTS
    return visible(f"{line} ({', '.join(change.tests[:SHOWN_TESTS])}{f' and {more} more' if more > 0 else ''})")


def _footnote(changes: TaskChanges) -> str:
    fixed, broke = equals_p(changes.p["fix"]), equals_p(changes.p["broke"])
    text = (
        f"{counted(changes.n_tasks, 'task')} with attempts of both. At least half of the attempts (k/n) decide the "
        f"outcome of a task; some tasks change outcome by chance. Exact McNemar test, tasks assumed independent: "
        f"{fixed} for fixes, {broke} for breakage."
    )
    if changes.left_out:
        text += (
            f" {counted(changes.left_out, 'task')} left out: without attempts of both on the same files and tests, or "
            "with an unknown outcome."
        )
    if changes.reward is not None:
        text += " Parts add up to the reward; parts behind a closed gate add nothing."
    return text
