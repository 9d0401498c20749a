"""What the verbs share at the terminal: results on stdout, progress and notes on stderr, JSON by request only."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import typer

from regrade.datasets.visible_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

PIPED_WIDTH = 240
MANY = 20
"""Pieces of work from which on each tenth is told."""
QUIET_SECONDS = (10.0, 20.0, 40.0, *itertools.repeat(60.0, 10_000))
"""How long nothing may be said, off a terminal, before it is said again what is going on."""


def stdout() -> Console:
    """The console for results. Made anew, so that a redirected stream is found."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH  # lines that a program or an editor can search
    return console


def stderr() -> Console:
    """The console for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def asides() -> AbstractContextManager[object]:
    """Meanwhile what is printed goes to stderr: code of the user's own must not write between lines of JSON."""
    return redirect_stdout(sys.stderr)


def print_json(value: Any) -> None:
    """One line of JSON. What is not a finite number is an error here, not a `NaN` that no reader of JSON takes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    typer.echo(text.encode("utf-8", "replace").decode())  # a path or a test's output may hold half a surrogate pair


def one_line(text: object) -> str:
    """A message as one line: scripts read errors line by line."""
    return visible(" ".join(str(text).split()))


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; what is yielded takes (done, total). Off a terminal it prints lines."""
    with activities() as tell:
        tell(description, 0, 0)
        yield lambda done, total: tell(description, done, total)


@contextmanager
def activities() -> Iterator[Callable[[str, int, int], None]]:
    """As `progress`, for work of several kinds: what is yielded takes (what is being done, done, total or 0)."""
    console = stderr()
    if not console.is_terminal:
        with _lines() as tell_lines:
            yield tell_lines
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


@contextmanager
def _lines() -> Iterator[Callable[[str, int, int], None]]:
    """For a log: a line each tenth of long work, and where it stands whenever nothing was said for a while."""
    shown: dict[str, int] = {}
    latest = ["", ""]  # what is being done, and its line
    begun: set[str] = set()  # what a line told of: its end is told too, or the log would seem to stop in the middle
    lock = threading.Lock()
    said = threading.Event()
    done_with = threading.Event()

    def say() -> None:
        description, line = latest
        typer.echo(line, err=True)
        begun.add(description)
        said.set()

    def tell(description: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        with lock:
            latest[:] = description, f"{description}: {done}/{total}" if total else f"{description} ..."
            is_tenth = tenth > shown.get(description, 0) and total >= MANY
            is_end = 0 < total <= done and description in begun
            if is_tenth:
                shown[description] = tenth
            if is_tenth or is_end:
                say()
            if is_end:
                begun.discard(description)

    def beat() -> None:
        for silence in QUIET_SECONDS:
            said.clear()
            if done_with.wait(silence):
                return
            with lock:
                if latest[1] and not said.is_set():
                    say()

    heart = threading.Thread(target=beat, name="progress", daemon=True)
    heart.start()
    try:
        yield tell
    finally:
        done_with.set()
        heart.join()
