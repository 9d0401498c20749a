"""Terminal output of all commands: results on stdout, progress and notes on stderr, JSON only on request."""

from __future__ import annotations

import itertools
import json
import os
import re
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
MIN_TOTAL_FOR_TENTHS = 20
"""Work of at least this many steps prints a line per tenth to a log."""
QUIET_SECONDS = (10.0, 20.0, 40.0, *itertools.repeat(60.0, 10_000))
"""Intervals without a line after which a log repeats the current state."""


def stdout() -> Console:
    """The console for results. New at each call, so that a redirected stream is respected."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH  # whole lines, for searches by programs and editors
    return console


def stderr() -> Console:
    """The console for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout_to_stderr() -> AbstractContextManager[object]:
    """Redirect stdout to stderr: the output of a user's own code must not mix with lines of JSON."""
    return redirect_stdout(sys.stderr)


def print_json(value: Any) -> None:
    """One line of JSON. Raises ValueError for a number that is not finite: `NaN` is not valid JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    typer.echo(text.encode("utf-8", "replace").decode())  # paths and test output may contain lone surrogates


def one_line(text: object) -> str:
    """A message as one line, with options of the command line: scripts read errors line by line."""
    return visible(with_options(" ".join(str(text).split())))


RENAMED = {"test_limit": "test-timeout", "key_variable": "key-env", "folder": "out"}
"""Parameters in Python whose options have another name."""
PHRASES = {
    "`probes={Prediction: RewardModelProbe(FOLDER)}`": "--reward-model FOLDER",
    "keep the rows of one policy of the baseline": "choose one with --baseline-policy",
    "keep the rows of one policy of the candidate": "choose one with --candidate-policy",
    "keep the rows of one temperature of the baseline": "choose one with --temperature",
    "keep the rows of one temperature of the candidate": "choose one with --temperature",
}
"""Advice for Python, and the same for the command line."""


def with_options(message: str) -> str:
    """The message of the Python API for the command line: of "`time_limit=SECONDS`" makes "--time-limit SECONDS"."""
    for phrase, option in PHRASES.items():
        message = message.replace(phrase, option)
    return re.sub(r"`([a-z]+(?:_[a-z]+)*)=([^`]*)`", _as_option, message)


def _as_option(match: re.Match[str]) -> str:
    name, value = match.groups()
    option = f"--{RENAMED.get(name, name).replace('_', '-')}"
    return option if value in ("", "True") else f"{option} {value}"


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress display on stderr: a bar, or lines if stderr is not a terminal. Yields a callback (done, total)."""
    with activities() as report:
        report(description, 0, 0)
        yield lambda done, total: report(description, done, total)


@contextmanager
def activities() -> Iterator[Callable[[str, int, int], None]]:
    """Like `progress`, for several activities. Yields a callback (description, done, total; 0: unknown)."""
    console = stderr()
    if not console.is_terminal:
        with _log_lines() as report_lines:
            yield report_lines
        return
    from rich import progress as rich

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    times = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
    with rich.Progress(*columns, *times, console=console, transient=True) as bars:
        started: dict[str, TaskID] = {}

        def report(description: str, done: int, total: int) -> None:
            if description not in started:
                started[description] = bars.add_task(description, total=None)
            bars.update(started[description], completed=done, total=total or None, visible=not total or done < total)

        yield report


@contextmanager
def _log_lines() -> Iterator[Callable[[str, int, int], None]]:
    """Progress for a log: a line per tenth of long work, and the current state after each interval without a line."""
    tenths: dict[str, int] = {}
    latest = ["", ""]  # description and line
    unfinished: set[str] = set()  # descriptions with a line: each gets a last line too, or the log would seem to stop
    lock = threading.Lock()
    was_printed = threading.Event()
    is_over = threading.Event()

    def print_latest() -> None:
        description, line = latest
        typer.echo(line, err=True)
        unfinished.add(description)
        was_printed.set()

    def report(description: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        with lock:
            latest[:] = description, f"{description}: {done}/{total}" if total else f"{description} ..."
            is_tenth = tenth > tenths.get(description, 0) and total >= MIN_TOTAL_FOR_TENTHS
            is_end = 0 < total <= done and description in unfinished
            if is_tenth:
                tenths[description] = tenth
            if is_tenth or is_end:
                print_latest()
            if is_end:
                unfinished.discard(description)

    def repeat_state() -> None:
        for interval in QUIET_SECONDS:
            was_printed.clear()
            if is_over.wait(interval):
                return
            with lock:
                if latest[1] and not was_printed.is_set():
                    print_latest()

    thread = threading.Thread(target=repeat_state, name="progress", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        is_over.set()
        thread.join()
