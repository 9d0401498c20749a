"""What the verbs share at the terminal: results on stdout, progress and notes on stderr, JSON by request only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


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
    return " ".join(str(text).split())


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; what is yielded takes (done, total). Off a terminal it prints a line each tenth."""
    console = stderr()
    if not console.is_terminal:
        yield _tenths(description)
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
        bar = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _tenths(description: str) -> Callable[[int, int], None]:
    shown = 0

    def tell(done: int, total: int) -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if tenth > shown and total >= 20:  # shorter work says nothing: it is over before anyone wonders
            shown = tenth
            typer.echo(f"{description}: {done}/{total}", err=True)

    return tell
