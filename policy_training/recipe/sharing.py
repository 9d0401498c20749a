"""Several processes share the parts of a run or of a study: each takes the next part that is ready and free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from regrade.datasets.errors import RunBusyError
from regrade.evaluators.storage.run import Run

T = TypeVar("T")

POLL_SECONDS = 1.0
"""Between two looks at the parts that other processes run."""


def has_finished(folder: Path, phase: str) -> bool:
    """Does the folder contain a run that finished the phase?"""
    return (folder / "manifest.json").exists() and Run.open(folder).finished(phase)


def take_parts(
    parts: Sequence[T],
    *,
    is_done: Callable[[T], bool],
    is_ready: Callable[[T], bool],
    lock: Callable[[T], AbstractContextManager[object]],
    run: Callable[[T], None],
) -> Iterator[T]:
    """Run the parts that are not done and that no other process runs, the first ones first, and wait for the others.

    All processes call it with the same parts. Yields each part that this one has run.

    Args:
        is_ready: is all done that the part needs?
        lock: a lock between processes. It raises RunBusyError where another process runs the part.
    """
    while left := [part for part in parts if not is_done(part)]:
        for part in filter(is_ready, left):
            try:
                with lock(part):
                    ended_elsewhere = is_done(part)  # since we looked
                    if not ended_elsewhere:
                        run(part)
            except RunBusyError:
                continue
            if not ended_elsewhere:
                yield part
            break
        else:
            time.sleep(POLL_SECONDS)
