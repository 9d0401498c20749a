"""Jobs that several workers share: each is done once, and after those that it needs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regrade.evaluators.storage.run import Run
from regrade.policy_training.recipe import shared_jobs
from regrade.policy_training.recipe.shared_jobs import SharedJobs, has_finished


def test_two_workers_do_each_job_once_and_after_those_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_jobs, "POLL_SECONDS", 0.01)
    done: list[tuple[str, str]] = []
    both = threading.Barrier(2, timeout=10)

    def run(job: str) -> None:
        if job in ("first", "second"):
            both.wait()  # neither ends unless both run at a time
        with Run(tmp_path / job).phase("last"):
            time.sleep(0.05)
        done.append((threading.current_thread().name, job))

    def is_done(job: str) -> bool:
        return has_finished(tmp_path / job, "last")

    needs = {"third": ["first", "second"], "fourth": ["third"]}
    jobs = SharedJobs(folder=lambda job: tmp_path / job, is_done=is_done, needs=lambda job: needs.get(job, []), run=run)
    names = ["fourth", "third", "first", "second"]
    with ThreadPoolExecutor(2) as pool:
        mine, others = pool.map(lambda _: list(jobs.work(names)), range(2))
    assert sorted([*mine, *others]) == sorted(names)
    assert [job for _, job in done][2:] == ["third", "fourth"]
    assert len({worker for worker, job in done if job in ("first", "second")}) == 2
    assert all(map(is_done, names))
    assert list(jobs.work(names)) == []


def test_a_job_that_failed_is_done_by_the_next_worker(tmp_path: Path) -> None:
    def run(job: str) -> None:
        with Run(tmp_path / job).phase("last"):
            if fails:
                raise OSError("killed")

    fails = True
    jobs = SharedJobs(
        folder=lambda job: tmp_path / job,
        is_done=lambda job: has_finished(tmp_path / job, "last"),
        needs=lambda _: (),
        run=run,
    )
    with pytest.raises(OSError, match="killed"):
        list(jobs.work(["only"]))
    fails = False
    assert list(jobs.work(["only"])) == ["only"]
