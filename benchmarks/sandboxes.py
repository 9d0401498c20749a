"""What a sandbox costs: its start with a warm worker in it, each further candidate, and each of some real patches.

    python benchmarks/sandboxes.py                  # as root, some minutes
    python benchmarks/sandboxes.py --sandboxes gvisor

A candidate is a tree with one test that does nothing. The patches are reference patches of one package, scored one
after another by one worker that has scored another one. CPU seconds are those of all processes of the sandbox: of this
program's control group, and for containers of Docker's. (The kernel adds up none for killed processes.)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _latest import record

from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.worker import Request, Worker
from regrade.evaluators.sandboxes import available, choose
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import resolved

GROUPS = Path("/sys/fs/cgroup")
PACKAGE = "xmltodict"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    working = [name for name, problem in available().items() if not problem]
    parser.add_argument("--sandboxes", nargs="*", default=working)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--patches", type=int, default=10)
    chosen = parser.parse_args()
    print(f"{'sandbox':12} {'start':>7} {'CPU':>7} {'candidate':>10} {'CPU':>7} {'patch':>7} {'CPU':>7}   seconds")
    with accounted() as cpu_seconds:
        for name in chosen.sandboxes:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder).chmod(0o755)
                figures = measured(name, Path(folder), chosen.starts, chosen.candidates, cpu_seconds)
                figures |= measured_patches(name, Path(folder), chosen.patches, cpu_seconds)
            start, start_cpu, candidate, candidate_cpu, patch, patch_cpu = figures.values()
            print(
                f"{name:12} {start:7.2f} {start_cpu:7.2f} {candidate:10.3f} {candidate_cpu:7.3f} "
                f"{patch:7.2f} {patch_cpu:7.2f}",
                flush=True,
            )
            record(f"sandbox_{name}", figures)


def measured(
    name: str, folder: Path, starts: int, candidates: int, cpu_seconds: Callable[[], float]
) -> dict[str, float]:
    tree = folder / "tree"
    tree.mkdir()
    (tree / "test_it.py").write_text("def test_it(): pass\n")
    sandbox, request = choose(name), Request(suite=TestSuite(), limits=Limits())
    walls, cpus = [], []
    for number in range(starts):
        scratch = folder / f"start-{number}"
        scratch.mkdir()
        began, cpu = time.monotonic(), cpu_seconds()
        with Worker(sandbox, Path(sys.executable), scratch) as worker:
            worker.run(Tree(tree), request)
            walls.append(time.monotonic() - began)
        cpus.append(cpu_seconds() - cpu)
    scratch = folder / "candidates"
    scratch.mkdir()
    with Worker(sandbox, Path(sys.executable), scratch) as worker:
        worker.run(Tree(tree), request)
        cpu, seconds = cpu_seconds(), []
        for _ in range(candidates):
            began = time.monotonic()
            worker.run(Tree(tree), request)
            seconds.append(time.monotonic() - began)
        used = cpu_seconds() - cpu
    return {
        "start_seconds": statistics.median(walls),
        "start_cpu_seconds": statistics.median(cpus),
        "candidate_seconds": statistics.median(seconds),
        "candidate_cpu_seconds": used / candidates,
    }


def measured_patches(name: str, folder: Path, count: int, cpu_seconds: Callable[[], float]) -> dict[str, float]:
    """Seconds of a patch, as the mean over some."""
    tasks = sorted((task for task in load_tasks() if task.id.startswith(PACKAGE)), key=lambda task: task.id)
    jobs = [(task, task.reference) for task in tasks[: count + 1] if task.reference is not None]
    with Scorer(sandbox=name, workers=1, cache=folder / "cache") as scorer:
        scorer.score(jobs[:1], resolved)
        began, cpu = time.monotonic(), cpu_seconds()
        values = {breakdown.value for breakdown in scorer.score(jobs[1:], resolved)}
        seconds, used = time.monotonic() - began, cpu_seconds() - cpu
    assert values == {1.0}, values
    return {"patch_seconds": seconds / count, "patch_cpu_seconds": used / count}


@contextlib.contextmanager
def accounted() -> Iterator[Callable[[], float]]:
    """Moves this process into a control group of its own; the value tells its CPU seconds and those of containers."""
    first = (GROUPS / "cpuacct").is_dir()
    top = GROUPS / "cpuacct" if first else GROUPS
    group = top / f"regrade-{os.getpid()}"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(os.getpid()))

    def cpu_seconds() -> float:
        groups = [group, *(path for path in (top / "docker", top / "system.slice" / "docker.service") if path.is_dir())]
        if first:
            return sum(int((path / "cpuacct.usage").read_text()) for path in groups) / 1e9
        return sum(int((path / "cpu.stat").read_text().split()[1]) for path in groups) / 1e6

    try:
        yield cpu_seconds
    finally:
        (top / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):
            group.rmdir()


if __name__ == "__main__":
    main()
