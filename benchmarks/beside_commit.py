"""What a patch costs today beside an earlier commit, and in which part of the scoring: in turns, in one run.

The earlier commit is checked out into a temporary git worktree, and both run in this environment. Each turn is a
process that scores the reference patches of ready-made tasks by `default`, with one worker and an empty cache.

    python benchmarks/beside_commit.py c86c886 --packages more-itertools xmltodict --patches 16 --rounds 3

CPU seconds matter more than those of the wall, which other work on the machine lengthens. They are the sum of:

- static: the processes that run the static probes; *start*: until they can answer
- tests: the forked candidates, which import the tested copy and run the tests
- protection: what the patch changes, without the files that decide the tests, and writing that tree
- scorer: the rest of the scoring process

Left out: sandboxes and their interpreters, which are killed, so that the kernel adds up no time of theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _latest import record

ROOT = Path(__file__).parents[1]
PARTS = ("static", "tests", "protection", "scorer")
COLUMNS = ("wall", "cpu", *PARTS, "static start", "processes")
TODAY = "today"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--packages", nargs="+", default=["more-itertools", "xmltodict"])
    parser.add_argument("--patches", type=int, default=16, help="of each package")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.turn:
        print(json.dumps(turn(chosen.turn, chosen.patches)))
        return
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        folder = Path(name)
        worktree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*worktree, "add", "-q", "--detach", str(folder / "old"), chosen.commit], check=True)
        try:
            trees = {chosen.commit: folder / "old", TODAY: ROOT}
            paths = {label: importable(tree, folder / f"path-{label}") for label, tree in trees.items()}
            turns = {(package, label): [] for package in chosen.packages for label in trees}  # type: dict[Any, list[Any]]
            for number in range(chosen.rounds):
                for package in chosen.packages:
                    for label in list(trees)[:: 1 if number % 2 else -1]:
                        turns[package, label].append(in_process(paths[label], package, chosen.patches))
        finally:
            subprocess.run([*worktree, "remove", "--force", str(folder / "old")], check=True)
    figures = {f"{package}, {label}": medians(measured) for (package, label), measured in turns.items()}
    show(figures)
    record("beside_commit", {"patches": chosen.patches, "rounds": chosen.rounds, **figures})


def importable(tree: Path, folder: Path) -> Path:
    """A folder from which `regrade` is imported, with the packages of the tree."""
    (folder / "regrade").mkdir(parents=True)
    for package in ("cli", "datasets", "evaluators", "policy_training", "reports", "rewards"):
        (folder / "regrade" / package).symlink_to(tree / package)
    for file in tree.glob("*.py"):
        (folder / "regrade" / file.name).symlink_to(file)
    return folder


def in_process(path: Path, package: str, patches: int) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "-", "--turn", package, "--patches", str(patches)]
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, env=environment, cwd=path, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def turn(package: str, patches: int) -> dict[str, float]:
    """Seconds per patch of each part, in this process."""
    from regrade.datasets.sources import load_tasks
    from regrade.evaluators.execution import worker
    from regrade.evaluators.scoring import gatherer, scorer
    from regrade.rewards import default

    tasks = [task for task in load_tasks() if task.repository == package and task.reference is not None][:patches]
    jobs = [(task, task.reference) for task in tasks]
    protection = Clock()
    gatherer.prepare = protection.around(gatherer.prepare)
    worker.Worker._write_tree = protection.around(worker.Worker._write_tree)  # type: ignore[method-assign]
    static = StaticClock()
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as folder:
        began, own = time.perf_counter(), used()
        with scorer.Scorer(workers=1, cache=Path(folder)) as made:
            verdicts = made.score(jobs, default)
            wall = time.perf_counter() - began
            tests = made.stats.cpu_seconds
        own = used() - own
    assert all(verdict.value for verdict in verdicts), "a reference earns nothing: the figures would flatter"
    seconds = {
        "wall": wall, "static": static.seconds, "static start": static.start, "tests": tests,
        "protection": protection.seconds, "scorer": own - protection.seconds,
    }  # fmt: skip
    return {part: each / len(jobs) for part, each in seconds.items()} | {"processes": static.processes}


class Clock:
    """CPU seconds of this process within some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - began

        return timed


class StaticClock:
    """CPU seconds of the processes of the static probes, read before each of them is killed."""

    def __init__(self) -> None:
        self.seconds = self.start = 0.0
        self.processes = 0
        try:
            from regrade.evaluators.scoring.static_workers import _StaticProcess
        except ModuleNotFoundError:  # an early commit: its probes run in the scoring process
            return
        ask, kill = _StaticProcess.ask, _StaticProcess.kill
        asked: set[int] = set()

        def first(process: Any, *arguments: Any) -> Any:
            if id(process) not in asked:
                asked.add(id(process))
                self.processes += 1
                self._wait_until_idle(process._process.pid)
                self.start += cpu_of(process._process.pid)
            return ask(process, *arguments)

        def last(process: Any) -> None:
            self.seconds += cpu_of(process._process.pid)
            kill(process)

        _StaticProcess.ask, _StaticProcess.kill = first, last  # type: ignore[method-assign]

    def _wait_until_idle(self, process: int) -> None:
        """Its imports are over when it sleeps, as long as it waits for its first question."""
        before = -1.0
        while (now := cpu_of(process)) != before or not now:
            before = now
            time.sleep(0.25)


def cpu_of(process: int) -> float:
    try:
        fields = Path("/proc", str(process), "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    figures = {part: round(statistics.median(each[part] for each in measured), 4) for part in measured[0]}
    return figures | {"cpu": round(sum(figures[part] for part in PARTS), 4)}


def show(figures: Mapping[str, Mapping[str, float]]) -> None:
    width = max(map(len, figures))
    print(f"{'seconds per patch, medians':{width}}  " + "  ".join(f"{part:>12}" for part in COLUMNS))
    for name, row in figures.items():
        print(f"{name:{width}}  " + "  ".join(f"{row[part]:12.3f}" for part in COLUMNS))


if __name__ == "__main__":
    main()
