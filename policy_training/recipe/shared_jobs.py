"""Jobs that several processes share on one folder: each takes the next one whose run no other process writes into."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from regrade.datasets.errors import RunBusyError
from regrade.evaluators.storage.run import Run

T = TypeVar("T")

POLL_SECONDS = 5.0
"""Between two looks at the jobs of other processes."""


def has_finished(folder: Path, phase: str) -> bool:
    """Does the folder contain a run that finished the phase?"""
    return (folder / "manifest.json").exists() and Run.open(folder).finished(phase)


@dataclass(frozen=True, kw_only=True)
class SharedJobs(Generic[T]):
    """Jobs with a run each, whose lock reserves the job."""

    folder: Callable[[T], Path]
    """The folder of a job's run."""
    is_done: Callable[[T], bool]
    """Is nothing left of a job, such as its last phase (`has_finished`)?"""
    needs: Callable[[T], Collection[T]]
    """The jobs that must be done before."""
    run: Callable[[T], object]
    """Does a job, or what is left of it."""

    def work(self, jobs: Sequence[T]) -> Iterator[T]:
        """Do the jobs that are not done and that no other process does, and wait for the others. Yields each that this
        process has done."""
        while left := [job for job in jobs if not self.is_done(job)]:
            ready = (job for job in left if all(map(self.is_done, self.needs(job))))
            done = next(filter(self._run_if_free, ready), None)
            if done is None:
                time.sleep(POLL_SECONDS)
            else:
                yield done

    def _run_if_free(self, job: T) -> bool:
        try:
            with Run.reserved(self.folder(job)):
                if not self.is_done(job):  # another process may have ended it just now
                    self.run(job)
        except RunBusyError:
            return False
        return True
