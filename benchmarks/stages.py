"""How fast patches are scored: fresh, again from stored evidence, and with each number of workers.

Left out: the making of the tests' environment and the fetching of packages, which happen once. Run it with nothing else
at work on the machine:

    python benchmarks/stages.py --tasks 60
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _latest import record

from regrade.datasets.patches import Patch
from regrade.datasets.plurals import counted
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import default, tests

Job = tuple[Task, Patch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60, help="validation tasks, drawn by the seed 0")
    parser.add_argument("--sandbox", default="auto")
    chosen = parser.parse_args()
    jobs = reference_jobs(chosen.tasks)
    print(f"{len(jobs)} reference patches, {os.cpu_count()} cores, times in seconds")
    print(f"{'what':44} {'wall':>7} {'a patch':>8} {'patches/s':>9}")
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as folder:
        walls: dict[str, float] = {}
        for workers in sorted({1, os.cpu_count() or 1}):
            cache = Path(folder, str(workers))
            walls |= measure(jobs, workers, chosen.sandbox, cache)
    record("stages", {"patches": len(jobs), **{name: round(len(jobs) / wall, 1) for name, wall in walls.items()}})


def reference_jobs(count: int) -> list[Job]:
    """As many tasks of the validation split, each with its reference patch."""
    tasks = sorted(load_tasks(split="validation"), key=lambda task: task.id)
    drawn = random.Random(0).sample(tasks, min(count, len(tasks)))
    return [(task, task.reference) for task in drawn if task.reference is not None]


def measure(jobs: Sequence[Job], workers: int, sandbox: str, cache: Path) -> dict[str, float]:
    """Score the jobs in a cache of their own: by the tests alone, by all evidence, again, and with the whole suite.

    Returns:
        what was done -> wall seconds.
    """
    walls = {}
    with Scorer(workers=workers, sandbox=sandbox, cache=cache) as scorer:
        scorer.score(jobs[:1], tests, reachable=True)  # makes the environment and the byte code
        rows = (
            ("tests that reach the change", lambda: scorer.score(jobs, tests, reachable=True)),
            ("all other evidence of `default`", lambda: scorer.score(jobs, default, reachable=True)),
            ("the same again, from the store", lambda: scorer.score(jobs, default, reachable=True)),
            ("the whole suite", lambda: scorer.score(jobs, tests)),
        )
        for what, work in rows:
            began = time.perf_counter()
            breakdowns = work()
            wall = time.perf_counter() - began
            assert all(each.is_scored for each in breakdowns), "a patch stayed unscored: the figures would flatter"
            name = f"{what}, {counted(workers, 'worker')}"
            print(f"{name:44} {wall:7.2f} {wall / len(jobs):8.4f} {len(jobs) / wall:9.1f}")
            walls[name] = wall
    return walls


if __name__ == "__main__":
    main()
