"""What scoring costs beside the tests: a hit in the evidence store, a Ray cluster, and memory over many scorings.

    python benchmarks/overheads.py --scorings 10000        # half an hour on two cores

Ray's share is measured where nothing runs: the nodes know all evidence, and the driver has to fetch it. Memory is what
the scorer's process and the largest of its workers hold; each of the scorings is of another patch. The model of
docs/scoring.md says that n workers score n / c patches a second, where c is the CPU seconds that one costs; what it
says is printed beside what is measured. CPU seconds are those of the whole machine: let nothing else run.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
from _latest import record
from scoring import Job, cpu_seconds, package_jobs

from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import default
from regrade.rewards.evidence import TestRun

AT_A_TIME = 500
BEFORE_MEASURING = 2000
"""Scorings until the caches in memory have filled."""
PASSES = 7
"""Over all patches, for the figure of a hit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorings", type=int, default=2000, help="for the figures of memory; 0: not measured")
    parser.add_argument("--memory", action="store_true", help="nothing but memory, which may be measured beside others")
    chosen = parser.parse_args()
    jobs = list(package_jobs(200))
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        folder = Path(name)
        if chosen.scorings:
            record("memory", memory(chosen.scorings, folder / "memory"))
        if chosen.memory:
            return
        read, of_hit = hit(jobs, folder / "local")
        figures = {"repository_ms": round(1000 * read, 3), "hit_ms": round(1000 * of_hit, 3)}
        if importlib.util.find_spec("ray") is not None:
            figures["ray_ms"] = round(1000 * by_ray(jobs, folder), 3)
        for key, value in figures.items():
            print(f"{key:20} {value:8.3f} a {'repository' if key == 'repository_ms' else 'patch'}", flush=True)
        figures |= sizing(jobs, folder / "sizing")
    record("overheads", figures)


def hit(jobs: list[Job], cache: Path) -> tuple[float, float]:
    """Seconds that a scorer needs to see a repository for the first time, and seconds a patch whose evidence is stored,
    the reward included: the median of some passes over all patches.
    """
    with Scorer(cache=cache) as scorer:
        scorer.score(jobs, default, reachable=True)
    firsts = list({task.base.root: (task, patch) for task, patch in jobs}.values())
    with Scorer(cache=cache) as scorer:
        scorer.score(firsts[:1], default, reachable=True)
        began = time.perf_counter()
        scorer.score(firsts, default, reachable=True)
        read = (time.perf_counter() - began) / len(firsts)
        passes = []
        for _ in range(PASSES):
            began = time.perf_counter()
            scorer.score(jobs, default, reachable=True)
            passes.append((time.perf_counter() - began) / len(jobs))
        assert scorer.stats.executions == 0
        return read, statistics.median(passes)


def by_ray(jobs: list[Job], folder: Path) -> float:
    """Seconds a patch that a node answers from its store, less those of a hit here."""
    import ray

    from regrade.evaluators.scoring.ray_scorer import RayScorer

    ray.init(num_cpus=1, log_to_driver=False)
    try:
        with RayScorer(cache=folder / "first", node_cache=str(folder / "node")) as scorer:
            scorer.score(jobs, default, reachable=True)
        with RayScorer(cache=folder / "second", node_cache=str(folder / "node")) as scorer:
            # The node learns of every repository; then it is asked about the other half.
            known = {task.base.root: (task, patch) for task, patch in jobs}
            scorer.score(list(known.values()), default, reachable=True)
            asked = [job for job in jobs if job not in known.values()]
            began = time.perf_counter()
            scorer.score(asked, default, reachable=True)
            wall = time.perf_counter() - began
            began = time.perf_counter()
            scorer.score(asked, default, reachable=True)
            return (wall - (time.perf_counter() - began)) / len(asked)
    finally:
        ray.shutdown()


def sizing(jobs: list[Job], folder: Path) -> dict[str, float]:
    """Patches a second by one worker and by one a core: measured, and as the model says."""
    figures = {}
    for workers in sorted({1, os.cpu_count() or 1}):
        cache = folder / str(workers)
        with Scorer(workers=workers, cache=cache) as scorer:
            scorer.gather(
                [(task, Patch("")) for task in {task.base.root: task for task, _ in jobs}.values()],
                [TestRun],
                reachable=True,
            )
            used, began = cpu_seconds(), time.perf_counter()
            scorer.gather(jobs, [TestRun], reachable=True)
            measured = len(jobs) / (time.perf_counter() - began)
            predicted = workers * len(jobs) / (cpu_seconds() - used)
        print(f"{workers} workers           {measured:8.3f} patches a second; by the model {predicted:.3f}", flush=True)
        figures |= {f"per_second_{workers}": round(measured, 2), f"per_second_{workers}_model": round(predicted, 2)}
    return figures


def memory(count: int, cache: Path) -> dict[str, float]:
    """Megabytes held once the caches in memory have filled, and after the last scoring."""
    held = {}
    with Scorer(cache=cache) as scorer:
        waiting = different_jobs(count)
        for scored in range(AT_A_TIME, count + 1, AT_A_TIME):
            scorer.score(list(islice(waiting, AT_A_TIME)), default, reachable=True)
            if (scored >= BEFORE_MEASURING and scored % 1000 == 0) or scored + AT_A_TIME > count:
                held[scored] = (_megabytes(psutil.Process()), _largest_child())
                own, workers = held[scored]
                print(f"after {scored:6} scorings: {own:.0f} MB, the largest worker {workers:.0f} MB", flush=True)
        executed = scorer.stats.executions
    (first, last) = (held[min(held)], held[max(held)])
    return {
        "scorings": count,
        "executions": executed,
        "grown_mb": round(last[0] - first[0], 1),
        "workers_grown_mb": round(last[1] - first[1], 1),
    }


def different_jobs(count: int) -> Iterator[Job]:
    """Fixes of tasks of one package, each with another comment."""
    tasks = [task for task in sorted(load_tasks(), key=lambda task: task.id) if task.repository == "inflection"]
    for number in range(count):
        task = tasks[number % len(tasks)]
        assert task.reference is not None
        assert task.target is not None
        file = task.target.file
        fixed = prepare(task, task.reference).after.read(file)
        yield task, Patch.between({file: task.base.read(file)}, {file: f"{fixed}\n# {number}\n"})


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _largest_child() -> float:
    return max((_megabytes(each) for each in psutil.Process().children(recursive=True)), default=0.0)


if __name__ == "__main__":
    main()
