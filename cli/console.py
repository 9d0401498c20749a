"""Terminal output of all commands: results on stdout, progress and notes on stderr, JSON only on request."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from regrade.datasets.visible_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from regrade.evaluators.evaluation.sweeps import Stage
    from regrade.evaluators.execution.activity import Activity

PIPED_WIDTH = 240
MIN_TOTAL_FOR_TENTHS = 20
"""Work of at least this many steps prints a line per tenth to a log."""
QUIET_SECONDS = (10.0, 20.0, 40.0, *itertools.repeat(60.0, 10_000))
"""Intervals without a line after which a log repeats the current state."""


MOST_ACTIVITIES = 8
"""Workers with a line of their own in a display."""
SLOW_TEST_SECONDS = 3.0
"""A test that runs for longer shows its time."""
SHORTEST_NAME = 12
"""Characters of a test's id; a display with less room shows none."""


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


RENAMED = {"test_limit": "test-timeout", "key_variable": "key-env", "folder": "out", "agent": "turns"}
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


class ActivityLines:
    """The lines of a display about what each worker runs; a listener of `evaluators/execution/activity.py`.

    Lines appear only while a display is open on a terminal.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[int, tuple[Activity, float]] = {}

    def __call__(self, activity: Activity) -> None:
        with self._lock:
            shown, since = self._lines.get(activity.worker, (activity, time.monotonic()))
            if not activity.phase:
                self._lines.pop(activity.worker, None)
                return
            if activity.test != shown.test or activity.phase != shown.phase:
                since = time.monotonic()
            if activity.phase == shown.phase and shown.total:
                activity = replace(activity, total=shown.total, done=min(activity.done, shown.total))
            self._lines[activity.worker] = activity, since

    def texts(self, width: int) -> list[str]:
        """A line per worker, at most `MOST_ACTIVITIES`, each shorter than the width."""
        with self._lock:
            lines = list(self._lines.values())
        texts = [_activity_text(activity, time.monotonic() - since, width) for activity, since in lines]
        more = len(texts) - MOST_ACTIVITIES
        return texts if more <= 0 else [*texts[:MOST_ACTIVITIES], f"  and {more} more"]


def _activity_text(activity: Activity, seconds: float, width: int) -> str:
    """`phase: 3 of 40 tests, test (12 s)`; a test's id loses its beginning, and shows its time once it takes long."""
    count = f"{activity.done} of {activity.total} tests" if activity.total else ""
    if not count and activity.done:
        count = f"{activity.done} tests"
    head = f"  {one_line(activity.phase)}{': ' if count else ''}{count}"
    if not activity.test:
        return head[: width - 1]
    tail = f" ({seconds:.0f} s)" if seconds >= SLOW_TEST_SECONDS else ""
    room = width - 1 - len(head) - len(", ") - len(tail)
    if room < SHORTEST_NAME:
        return head[: width - 1]
    test = activity.test if len(activity.test) <= room else f"...{activity.test[len(activity.test) - room + 3 :]}"
    return f"{head}, {test}{tail}"


@contextmanager
def shown_activity() -> Iterator[None]:
    """Within the context, progress displays on a terminal also show what the workers run."""
    if not sys.stderr.isatty():
        yield
        return
    from regrade.evaluators.execution.activity import reported_to

    with reported_to(ActivityLines()):
        yield


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
    with _bars(console) as bars:
        started: dict[str, TaskID] = {}

        def report(description: str, done: int, total: int) -> None:
            if description not in started:
                for task in bars.tasks:
                    if task.total is None:  # work without an end is over when other work begins
                        bars.update(task.id, visible=False)
                started[description] = bars.add_task(description, total=None)
            bars.update(started[description], completed=done, total=total or None, visible=not total or done < total)

        yield report


@contextmanager
def stages() -> Iterator[Stage]:
    """A display for the stages of long work, of which several may be open at a time: a bar for each, or lines if stderr
    is not a terminal. At the end of a stage, a line gives its wall time."""
    console = stderr()
    if not console.is_terminal:
        yield _logged_stage
        return
    with _bars(console) as bars:

        @contextmanager
        def stage(title: str) -> Iterator[Callable[[int, int], None]]:
            with _timed(title, console):
                bar = bars.add_task(title, total=None)
                try:
                    yield lambda done, total: bars.update(bar, completed=done, total=total or None)
                finally:
                    bars.remove_task(bar)

        yield stage


@contextmanager
def _logged_stage(title: str) -> Iterator[Callable[[int, int], None]]:
    console = stderr()
    console.print(f"{title} ...", markup=False)
    with _timed(title, console), progress(title) as report:
        yield report


@contextmanager
def _timed(title: str, console: Console) -> Iterator[None]:
    began = time.monotonic()
    yield
    console.print(f"{title}: {time.monotonic() - began:.0f} s", markup=False)


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    """Bars on a terminal, and below them what the workers run."""
    from rich import progress as rich
    from rich.console import RenderableType
    from rich.text import Text

    from regrade.evaluators.execution.activity import listener

    lines = listener()

    class Display(rich.Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            if isinstance(lines, ActivityLines):
                yield from (Text(line, no_wrap=True) for line in lines.texts(console.width))

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    times = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
    with Display(*columns, *times, console=console, transient=True) as bars:
        yield bars


@contextmanager
def _log_lines() -> Iterator[Callable[[str, int, int], None]]:
    """Progress for a log: a line per tenth of long work, and the current state after each interval without a line."""
    tenths: dict[tuple[str, int], int] = {}  # by description and total: a second part may have its name
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
            is_tenth = tenth > tenths.get((description, total), 0) and total >= MIN_TOTAL_FOR_TENTHS
            is_end = 0 < total <= done and description in unfinished
            if is_tenth:
                tenths[description, total] = tenth
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
