"""What the workers run right now, for a display: the phase, the running test, and how many tests are finished.

The test's name comes from the sandbox: it is shown, and decides nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from regrade.datasets.visible_text import visible

logger = logging.getLogger(__name__)
LONGEST_NAME = 200
"""Characters of a test's id that are shown: its end, which tells parameters apart."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """The state of one worker."""

    worker: int
    """Tells the workers of a process apart."""
    phase: str
    """What it runs, such as `base run 2 of 3`; empty: nothing."""
    test: str = ""
    """The running test; empty: none, or unknown."""
    done: int = 0
    """Number of finished tests."""
    total: int = 0
    """Number of collected tests; 0: unknown."""


Listener = Callable[[Activity], None]
"""Called from any thread."""
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """Within the context, new scorers and measurements report what their workers run."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> Listener | None:
    """The current listener, for the workers of the caller's threads, which do not inherit it; None: nobody listens."""
    return _LISTENER.get()


class Reporter:
    """Reports what one worker runs; without a listener, only the log names each phase."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._phase, self._finished = "", 0

    @property
    def is_heard(self) -> bool:
        """Does anybody listen to what runs now?"""
        return self._listener is not None and bool(self._phase)

    @contextlib.contextmanager
    def running(self, phase: str, finished: int) -> Iterator[None]:
        """Report a phase until the end of the context.

        Args:
            phase: empty: nothing is reported.
            finished: number of tests that an earlier run of the same phase finished.
        """
        if not phase:
            yield
            return
        logger.info("%s", visible(phase))
        self._phase, self._finished = phase, finished
        self._report(Activity(worker=id(self), phase=phase))
        try:
            yield
        finally:
            self._phase = ""
            self._report(Activity(worker=id(self), phase=""))

    def report(self, test: str, done: int, total: int) -> None:
        """Report the running test and the finished tests: the sandbox may claim anything."""
        total = self._finished + total if total > 0 else 0
        done = max(0, self._finished + done)
        self._report(
            Activity(
                worker=id(self),
                phase=self._phase,
                test=visible(test[-LONGEST_NAME:]).replace("\n", " "),
                done=min(done, total) if total else done,
                total=total,
            )
        )

    def _report(self, activity: Activity) -> None:
        if self._listener is not None:
            self._listener(activity)
