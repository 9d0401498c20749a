"""Calls of a user's own code within a time limit, in this process.

The code runs in a thread of its own: Python can't end another thread, so one that does not end in time is left behind.
It does not keep the process from ending.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class OutOfTimeError(RuntimeError):
    """A call did not end within its limit. `frames` is what it was doing, the innermost frame first."""

    def __init__(self, seconds: float, frames: list[FrameType]) -> None:
        super().__init__(f"no end within {seconds:g} s")
        self.seconds = seconds
        self.frames = frames


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or its exception.

    Raises:
        OutOfTimeError: it runs for more than `seconds` of wall time, and still does.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="regrade-limited-call", daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if thread.is_alive():
        raise OutOfTimeError(seconds, _frames(thread))
    if errors:
        raise errors[0]
    return results[0]


def _frames(thread: threading.Thread) -> list[FrameType]:
    frame = sys._current_frames().get(thread.ident or 0)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames
