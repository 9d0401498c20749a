"""Jobs that several workers share: each is done once, and after those that it needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regrade.evaluators.storage.run import Run
from regrade.policy_training.recipe import sharing
from regrade.policy_training.recipe.sharing import has_finished, take_parts


def work(
    folder: Path, jobs: Sequence[str], run: Callable[[str], None], needs: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    def is_done(job: str) -> bool:
        return has_finished(folder / job, "last")

    return take_parts(
        jobs,
        is_done=is_done,
        is_ready=lambda job: all(map(is_done, needs.get(job, ()))),
        lock=lambda job: Run.reserved(folder / job),
        run=run,
    )


def test_two_workers_do_each_job_once_and_after_those_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.01)
    done: list[tuple[str, str]] = []
    both = threading.Barrier(2, timeout=10)

    def run(job: str) -> None:
        if job in ("first", "second"):
            both.wait()  # neither ends unless both run at a time
        with Run(tmp_path / job).phase("last"):
            time.sleep(0.05)
        done.append((threading.current_thread().name, job))

    needs = {"third": ["first", "second"], "fourth": ["third"]}
    names = ["fourth", "third", "first", "second"]
    with ThreadPoolExecutor(2) as pool:
        mine, others = pool.map(lambda _: list(work(tmp_path, names, run, needs)), range(2))
    assert sorted([*mine, *others]) == sorted(names)
    assert [job for _, job in done][2:] == ["third", "fourth"]
    assert len({worker for worker, job in done if job in ("first", "second")}) == 2
    assert all(has_finished(tmp_path / name, "last") for name in names)
    assert list(work(tmp_path, names, run, needs)) == []


def test_a_job_that_failed_is_done_by_the_next_worker(tmp_path: Path) -> None:
    def run(job: str) -> None:
        with Run(tmp_path / job).phase("last"):
            if fails:
                raise OSError("killed")

    fails = True
    with pytest.raises(OSError, match="killed"):
        list(work(tmp_path, ["only"], run, {}))
    fails = False
    assert list(work(tmp_path, ["only"], run, {})) == ["only"]
