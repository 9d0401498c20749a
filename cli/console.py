"""What the verbs share at the terminal: results on stdout, progress and notes on stderr, JSON by request only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from regrade.datasets.visible_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


def stdout() -> Console:
    """The console for results. Made anew, so that a redirected stream is found."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def stderr() -> Console:
    """The console for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One line of JSON. What is not a finite number is an error here, not a `NaN` that no reader of JSON takes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    typer.echo(text.encode("utf-8", "replace").decode())  # a path or a test's output may hold half a surrogate pair


def one_line(text: object) -> str:
    """A message as one line: scripts read errors line by line."""
    return visible(" ".join(str(text).split()))


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; what is yielded takes (done, total). Off a terminal it prints a line each tenth."""
    with activities() as tell:
        tell(description, 0, 0)
        yield lambda done, total: tell(description, done, total)


@contextmanager
def activities() -> Iterator[Callable[[str, int, int], None]]:
    """As `progress`, for work of several kinds: what is yielded takes (what is being done, done, total or 0)."""
    console = stderr()
    if not console.is_terminal:
        yield _tenths()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        started: dict[str, TaskID] = {}

        def tell(description: str, done: int, total: int) -> None:
            if description not in started:
                started[description] = bars.add_task(description, total=None)
            bars.update(started[description], completed=done, total=total or None, visible=not total or done < total)

        yield tell


def _tenths() -> Callable[[str, int, int], None]:
    shown: dict[str, int] = {}

    def tell(description: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > shown.get(description, 0) and total >= 20:  # less is over before anyone wonders
            shown[description] = tenth
            typer.echo(f"{description}: {done}/{total}", err=True)

    return tell
