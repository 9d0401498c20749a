"""What lanes do in `test_lanes.py`: a module of its own, which each of them imports in no time."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from regrade.datasets.errors import UserError
from regrade.datasets.process_identity import this_process
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.run import Run
from regrade.policy_training.recipe.sharing import take_parts

if TYPE_CHECKING:
    from regrade.evaluators.evaluation.sweeps import Stage

NEEDS = {"both": ("first", "second"), "first": (), "second": ()}
BESIDE = {"first": "second", "second": "first"}


class Shown:
    """A display that remembers: (title, done, total), and (title, None, None) at its end."""

    def __init__(self, act: Callable[[str], object] = lambda _title: None) -> None:
        self.lines: list[tuple[str, int | None, int | None]] = []
        self.act = act

    @contextmanager
    def __call__(self, title: str) -> Iterator[Callable[[int, int], None]]:
        def report(done: int, total: int) -> None:
            self.lines.append((title, done, total))
            self.act(title)

        yield report
        self.lines.append((title, None, None))


def wait_until(is_true: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lanes_of(folder: Path) -> list[str]:
    """The identities of the processes that have started there."""
    return [path.name for path in folder.glob("*-*")]


def work_at_parts(folder: Path, stage: Stage) -> None:
    """Two parts, of which each ends only when the other one has begun, and one that needs both."""
    run = Run(folder / "run", is_shared=True)

    def work(part: str) -> None:
        with run.phase(part), stage(part) as report:
            report(1, 2)
            run.note(f"{part} has begun")
            if part in BESIDE:
                wait_until(lambda: BESIDE[part] in run.manifest.phases)
            journal.append(folder / "log.jsonl", [{"part": part, "process": os.getpid()}])

    for _ in take_parts(
        list(NEEDS),
        is_done=run.finished,
        is_ready=lambda part: all(map(run.finished, NEEDS[part])),
        lock=run.writing,
        run=work,
    ):
        pass


def rewrite_manifest(folder: Path, stage: Stage) -> None:
    run = Run(folder, is_shared=True)
    with stage("noting") as report:
        for number in range(30):
            run.note(f"{os.getpid()} {number}")
            report(number, 30)


class UnsendableError(Exception):
    def __init__(self, one: int, another: int) -> None:
        super().__init__(f"{one} and {another}")


def work_until_ended(folder: Path, how: str, stage: Stage) -> None:
    """The first process fails when the second one has begun; that one would wait for minutes."""
    first = folder / "first"
    try:
        first.mkdir()
    except FileExistsError:
        (folder / this_process()).touch()
        try:
            with stage("waiting") as report:
                report(0, 1)
                time.sleep(600)
        finally:
            (folder / "closed").touch()
        return
    with stage("failing") as report:
        wait_until(lambda: bool(lanes_of(folder)))
        (folder / this_process()).touch()
        report(0, 1)
        if how == "user error":
            raise UserError("the input is wrong: give another one")
        if how == "defect":
            raise UnsendableError(1, 2)
        time.sleep(600)


def warn_and_log(stage: Stage) -> None:
    with stage("warning"):
        warnings.warn("other processes use 1.0 of 2 cores", stacklevel=1)
        logging.getLogger("regrade.lanes.test").info("%d workers", 3)
        logging.getLogger("regrade.lanes.test").debug("not asked for")
