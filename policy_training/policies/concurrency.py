"""Concurrent attempts, for endpoints and commands."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from regrade.datasets.rollouts import Keep, Rollout, Trial

AttemptFunction = Callable[[Trial], Awaitable[Rollout]]


@dataclass
class Losses:
    """Counter of attempts lost in a row; at `most`, the endpoint or command counts as dead."""

    most: int
    in_a_row: int = 0
    last: str = ""

    @property
    def are_final(self) -> bool:
        return self.in_a_row >= self.most

    def add(self, why: str) -> None:
        self.in_a_row += 1
        self.last = why

    def clear(self) -> None:
        self.in_a_row = 0

    def __str__(self) -> str:
        return f"it failed {self.in_a_row} times in a row, the last time because {self.last}"


def concurrently(
    trials: Sequence[Trial], session: Callable[[], AbstractAsyncContextManager[AttemptFunction]], limit: int, keep: Keep
) -> Iterator[Rollout]:
    """Make every attempt, `limit` at a time, and yield rollouts in the order in which they end.

    Attempts continue while the caller processes a rollout. Closing the iterator cancels the running attempts and waits
    for their cleanup.

    Args:
        session: opened once around all attempts; its value is the function that makes one attempt.
        keep: called with each rollout as soon as its attempt ends.

    Raises:
        Exception: the first one of an attempt; the other attempts are cancelled.
    """
    thread = _AttemptThread(trials, session, limit, keep)
    thread.start()
    try:
        while (result := thread.results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        thread.stop()


class _AttemptThread(threading.Thread):
    """An event loop in its own thread: the caller may be busy in a sandbox, or run in a notebook's event loop."""

    def __init__(
        self,
        trials: Sequence[Trial],
        session: Callable[[], AbstractAsyncContextManager[AttemptFunction]],
        limit: int,
        keep: Keep,
    ) -> None:
        super().__init__(name="attempts", daemon=True)
        self.results: queue.SimpleQueue[Rollout | BaseException | None] = queue.SimpleQueue()
        self._trials = iter(trials)
        self._session = session
        self._limit = max(1, min(limit, len(trials)))
        self._keep = keep
        self._began = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        end: BaseException | None = None
        try:
            asyncio.run(self._run_session())
        except BaseExceptionGroup as group:
            end = _first(group)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # raised in the thread that reads the results
            end = error
        finally:
            self._began.set()
            self.results.put(end)

    def stop(self) -> None:
        self._began.wait()
        if self._loop is not None and self._task is not None and self.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has already ended
                self._loop.call_soon_threadsafe(self._task.cancel)
        self.join()

    async def _run_session(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._began.set()
        async with self._session() as attempt, asyncio.TaskGroup() as group:
            for _ in range(self._limit):
                group.create_task(self._make_attempts(attempt))

    async def _make_attempts(self, attempt: AttemptFunction) -> None:
        for trial in self._trials:  # shared by all tasks: each takes the next one
            rollout = await attempt(trial)
            self._keep(trial, rollout)
            self.results.put(rollout)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
