"""What a verdict costs: regrade beside a fresh container a patch, as SWE-bench does it, and a plain subprocess.

Patches are real work on real packages: the reference fixes of ready-made tasks, the same fixes with another bug planted
beside them, and bugs planted in networkx (6,000 tests). Regrade scores all of them, from a cold cache. The others are
slow, so each scores a sample of the same patches, and its mean over that sample is compared with regrade's mean over
the same patches, taken from its run of them all. What it does once for each repository is shown by itself. Every test
that two of them ran must have come out alike.

    python benchmarks/scoring.py                                         # half an hour
    python benchmarks/scoring.py --patches 60 --sample 6 --networkx 0    # some minutes

Wall seconds are with one patch at a time, for all of them. CPU seconds are those of the whole machine, since containers
are the engine's children: let nothing else run. The floor is the CPU time of the forked candidates themselves:
collecting and running the selected tests in a warm process.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from _latest import record
from _networkx import networkx

from regrade.datasets.mutation.mutants import Mutations, mutants, shuffled
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.execution.run_tests import test_files
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.sandboxes.docker import Docker, _host_image
from regrade.evaluators.sandboxes.interpreters import SYSTEM, Interpreters
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards.evidence import GOOD, TestRun

STOPPED = 124
"""Exit status of coreutils' `timeout`."""
Job = tuple[Task, Patch]
Way = Callable[[Task, Path, tuple[str, ...], Path], str]
"""(task, folder with the patched tree, test files or none for all, interpreter) -> what pytest prints"""


@dataclass(frozen=True)
class Measured:
    """One way of scoring, over some patches."""

    walls: tuple[float, ...]
    """Seconds of each patch."""
    cpus: tuple[float, ...]
    passed: tuple[frozenset[str], ...]
    """For each patch the tests that passed."""
    ran: tuple[frozenset[str], ...]

    @property
    def wall(self) -> float:
        """Seconds a patch."""
        return statistics.mean(self.walls)

    @property
    def cpu(self) -> float:
        """Seconds a patch."""
        return statistics.mean(self.cpus)

    def only(self, places: Sequence[int]) -> Measured:
        """The same, of some of the patches."""
        walls, cpus, passed, ran = (
            [each[place] for place in places] for each in (self.walls, self.cpus, self.passed, self.ran)
        )
        return Measured(tuple(walls), tuple(cpus), tuple(passed), tuple(ran))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=320, help="how many regrade scores")
    parser.add_argument("--sample", type=int, default=20, help="how many of them the slow ways score")
    parser.add_argument("--networkx", type=int, default=12, help="how many of them are for networkx")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        folder = Path(name)
        # One repository after the other, as a scorer does by itself that is given all of them at once.
        jobs = sorted(package_jobs(chosen.patches - chosen.networkx), key=lambda job: job[0].repository)
        large = list(networkx_jobs(folder, chosen.networkx)) if chosen.networkx else []
        draw = random.Random(0).sample
        shared = round(chosen.sample * chosen.networkx / chosen.patches)  # as many as among all
        sample = draw(range(len(jobs)), chosen.sample - shared)
        sample += [len(jobs) + place for place in draw(range(len(large)), shared)]
        compare([*jobs, *large], sample, folder)


def compare(jobs: Sequence[Job], sample: Sequence[int], folder: Path) -> None:
    """Measure all ways, print the table and record the figures."""
    warm, floor, recall, once = by_regrade(jobs, cold_cache(folder, "all"))
    chosen, own = [jobs[place] for place in sample], warm.only(sample)
    problem = Docker().problem()
    ways: dict[str, Measured] = {"subprocess": by_pytest(chosen, in_subprocess, folder, touched=True)}
    if problem:
        print(f"no containers: {problem}")
    else:
        ways["touched_container"] = by_pytest(chosen, in_container, folder, touched=True)
        ways["full_suite_container"] = by_pytest(chosen, in_container, folder, touched=False)
    print(f"{len(jobs)} patches, of which {len(chosen)} in every way; seconds a patch, one at a time")
    print(f"{'way':34} {'wall':>8} {'CPU':>8} {'times regrade':>14} {'median patch':>14} {'tests that differ':>18}")
    print(f"{'regrade, all patches':34} {warm.wall:8.3f} {warm.cpu:8.3f}")
    print(f"{'regrade, the sample':34} {own.wall:8.3f} {own.cpu:8.3f} {1.0:14.1f} {1.0:14.1f}")
    print(f"{'once for each repository':34} {once:8.3f}")
    figures: dict[str, float | int | None] = {"patches": len(jobs), "sample": len(chosen)}
    differing = 0
    for name, way in ways.items():
        apart = 0
        for (task, _), *compared in zip(chosen, own.passed, way.passed, own.ran, way.ran, strict=True):
            tests = differences(*compared)
            apart += len(tests)
            if tests:
                print(f"  {name}: {task.id}: {', '.join(sorted(tests)[:5])}")
        differing += apart
        figures[f"ratio_{name}"] = round(way.wall / own.wall, 2)
        each = [theirs / ours for theirs, ours in zip(way.walls, own.walls, strict=True)]
        figures[f"median_ratio_{name}"] = round(statistics.median(each), 2)
        print(
            f"{name.replace('_', ' '):34} {way.wall:8.3f} {way.cpu:8.3f} {way.wall / own.wall:14.1f} "
            f"{statistics.median(each):14.1f} {apart:18}"
        )
    print(f"CPU over the floor (the candidates' own) {warm.cpu / floor:.2f}; recall of the selection {recall}")
    figures |= {
        "patches_per_second": round(1 / warm.wall, 2),
        "cpu_seconds_per_patch": round(warm.cpu, 4),
        "ratio_floor": round(warm.cpu / floor, 3),
        "verdict_differences": differing,
        "selection_recall": recall,
    }
    record("scoring", figures)


def differences(
    one: frozenset[str], other: frozenset[str], one_ran: frozenset[str], other_ran: frozenset[str]
) -> frozenset[str]:
    """Tests that both ran and only one saw pass."""
    both = one_ran & other_ran
    return (one & both) ^ (other & both)


# ---------------------------------------------------------------- the patches


def package_jobs(count: int) -> Iterator[Job]:
    """Tasks of all packages in turn, with their references, and every other one with a further bug in it."""
    tasks = sorted(load_tasks(), key=lambda task: task.id)
    chosen = random.Random(0).sample(tasks, count)
    for place, task in enumerate(chosen):
        assert task.reference is not None
        yield task, (task.reference if place % 2 else harmful(task) or task.reference)


def harmful(task: Task) -> Patch | None:
    """The fix with another bug in the same function."""
    assert task.target is not None
    assert task.reference is not None
    file = task.target.file
    fixed, base = prepare(task, task.reference).after.read(file), task.base.read(file)
    mutations = Mutations(fixed, file)
    for function in mutations.functions:
        for mutant in shuffled(mutations.of(function), 0) if function.name == task.target.function else ():
            if mutant.source != base and mutations.differs(mutant):
                return Patch.between({file: base}, {file: mutant.source})
    return None


def networkx_jobs(folder: Path, count: int) -> Iterator[Job]:
    """Bugs in functions of networkx's algorithms."""
    root = networkx(folder)
    task = local_task(root, runs=1, tell=lambda _: None)
    files = [path for path in Tree(root).paths() if path.startswith("networkx/algorithms/") and path.endswith(".py")]
    files = [path for path in files if "/tests/" not in path and not path.endswith("__init__.py")]
    found = 0
    for file in random.Random(0).sample(files, len(files)):
        text = task.base.read(file)
        for mutant in mutants(text, file, seed=0):
            patch = Patch.between({file: text}, {file: mutant.source})
            selected = selected_tests(task, prepare(task, patch))
            if selected:
                found += 1
                yield task, patch
                break
        if found == count:
            return


# ---------------------------------------------------------------- the ways


def by_regrade(jobs: Sequence[Job], cache: Path) -> tuple[Measured, float, float | None, float]:
    """How regrade does, the candidates' own CPU seconds a patch, the recall of a tenth of the selections, and the
    seconds that it takes once for each repository (byte code, the imports that the tests share).
    """
    for task, _ in jobs:
        environments.python_for(task.requirements, cache)
    began = time.perf_counter()
    firsts = list({task.base.root: (task, Patch("")) for task, _ in jobs}.values())
    with Scorer(workers=1, cache=cache) as scorer:
        scorer.gather(firsts, [TestRun], reachable=True)
        once = (time.perf_counter() - began) / len(firsts)
        spent = scorer.stats.cpu_seconds
        found, walls, cpus = [], [], []
        for job in jobs:
            before, began = cpu_seconds(), time.perf_counter()
            found += scorer.gather([job], [TestRun], reachable=True)
            walls.append(time.perf_counter() - began)
            cpus.append(cpu_seconds() - before)
        own = scorer.stats.cpu_seconds - spent
    with Scorer(workers=os.cpu_count(), cache=cold_cache(cache.parent, f"{cache.name}-audit"), audit=1.0) as scorer:
        scorer.gather(jobs[::10], [TestRun], reachable=True)
        recall = scorer.stats.selection_recall
        for missed in scorer.stats.missed:
            print(f"  not selected, and broken: {missed}")
    runs = [evidence.records[TestRun] for evidence in found]
    passed = tuple(frozenset(test for test, out in run.outcomes.items() if out.status in GOOD) for run in runs)
    ran = tuple(frozenset(run.outcomes) for run in runs)
    return Measured(tuple(walls), tuple(cpus), passed, ran), own / len(jobs), recall, once


def cold_cache(folder: Path, name: str) -> Path:
    """A cache that knows nothing but the environments, which all share."""
    (folder / name).mkdir(exist_ok=True)
    (folder / "environments").mkdir(exist_ok=True)
    if not (folder / name / "environments").exists():
        (folder / name / "environments").symlink_to(folder / "environments")
    return folder / name


def by_pytest(jobs: Sequence[Job], way: Way, folder: Path, *, touched: bool) -> Measured:
    """A fresh tree and a fresh interpreter for each patch; its verdict by what pytest prints."""
    walls, cpus, passed, ran = [], [], [], []
    for number, (task, patch) in enumerate(jobs):
        python = environments.python_for(task.requirements, cold_cache(folder, "others"))
        before, began = cpu_seconds(), time.perf_counter()
        place = folder / f"{way.__name__}-{touched}-{number}"
        tree = Folder(place)
        workspace = prepare(task, patch)
        tree.write_tree(workspace.after)
        everything = task.fail_to_pass + task.pass_to_pass
        files = test_files(everything, frozenset(task.fail_to_pass) or selected_tests(task, workspace) or frozenset())
        wanted = frozenset(test for test in everything if not touched or file_of(test) in files)
        try:
            printed = way(task, place, files if touched else (), python)
        except subprocess.TimeoutExpired:
            printed, wanted = "", frozenset()  # pytest tells what passed at its end only: nothing to compare
        walls.append(time.perf_counter() - began)
        cpus.append(cpu_seconds() - before)
        lines = set(printed.splitlines())
        # After XPASS the reason of the mark follows; no id of these packages begins with another one and " - ".
        lines |= {line.replace("XPASS", "PASSED", 1).split(" - ")[0] for line in lines if line.startswith("XPASS ")}
        # A test of which a part failed (unittest's subTest) is told as passed as well.
        partly = {line.rpartition(") ")[2] for line in lines if line.startswith("SUBFAILED")}
        passed.append(frozenset(test for test in wanted - partly if f"PASSED {test}" in lines))
        ran.append(wanted)
    return Measured(tuple(walls), tuple(cpus), tuple(passed), tuple(ran))


def command(task: Task, files: tuple[str, ...], python: Path) -> list[str]:
    own = [str(python), "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider"]
    own += ["--continue-on-collection-errors"]
    options = iter(task.suite.options)  # less plugins by name: pytest loads those of its environment by itself
    kept = [option for option in options if option != "-p" or not next(options)]
    return [*own, *kept, *(files or task.suite.paths)]


def in_subprocess(task: Task, place: Path, files: tuple[str, ...], python: Path) -> str:
    path = os.pathsep.join(str(place / part) for part in task.suite.python_path)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": path,
        "HOME": str(place),
        "PYTHONHASHSEED": "0",
        "TZ": "UTC",
    }
    done = subprocess.run(
        command(task, files, python),
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=task.limits.wall_seconds,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def in_container(task: Task, place: Path, files: tuple[str, ...], python: Path) -> str:
    import docker

    image = _host_image(docker.APIClient(**docker.utils.kwargs_from_env()))
    seen = {str(folder) for folder in Interpreters()(python)}
    seen |= {path for path in SYSTEM if Path(path).exists() and not Path(path).is_symlink()}
    path = os.pathsep.join(str(Path("/repo", part)) for part in task.suite.python_path)
    variables = {"PYTHONPATH": path, "HOME": "/tmp", "PYTHONHASHSEED": "0", "TZ": "UTC", "LANG": "C.UTF-8"}
    run = ["docker", "run", "--rm", "--network=none", "--tmpfs=/tmp", "-w", "/repo", f"-v={place}:/repo"]
    run += [f"-v={folder}:{folder}:ro" for folder in sorted(seen)]
    run += [f"-e={name}={value}" for name, value in variables.items()]
    inside = ["timeout", str(task.limits.wall_seconds), *command(task, files, python)]
    done = subprocess.run([*run, image, *inside], capture_output=True, text=True, check=False)
    if done.returncode == STOPPED:
        raise subprocess.TimeoutExpired(inside, task.limits.wall_seconds)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def cpu_seconds() -> float:
    """Of the whole machine since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


if __name__ == "__main__":
    main()
