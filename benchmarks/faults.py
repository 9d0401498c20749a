"""What is lost, and what is done twice, when things break while patches are scored.

A process scores patches of ready-made tasks into a cache of its own. When a fifth is done, something breaks. Then the
same is asked again, as one resumes. `lost` are verdicts that are missing or not those of an undisturbed run; `doubled`
are executions beyond one for each patch.

    python benchmarks/faults.py                      # what can be broken here without harm to anybody else
    python benchmarks/faults.py --machine            # this machine's clock and Docker engine, too; as root

A full disk needs root as well: it is a small file system in memory, mounted for that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from _latest import record
from scoring import package_jobs

from regrade.evaluators.sandboxes import available
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import TestRun

Break = Callable[[psutil.Process, Path], None]
"""(the process that scores, the folder that it works in)"""
DISK_MB = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--machine", action="store_true", help="step the clock and restart the Docker engine, too")
    parser.add_argument("--only", help="one fault, by its name")
    parser.add_argument("--score", nargs=2, metavar=("FOLDER", "SANDBOX"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.score:
        score(chosen.patches, Path(chosen.score[0]), chosen.score[1])
        return
    truths: dict[str, list[Any]] = {}
    figures = {}
    print(f"{'fault':34} {'sandbox':12} {'scored at first':>15} {'lost':>5} {'doubled':>8}")
    for name, (sandbox, fault) in faults(machine=chosen.machine).items():
        if chosen.only not in (None, name):
            continue
        if sandbox not in truths:
            truths[sandbox] = undisturbed(chosen.patches, sandbox)
        at_first, lost, doubled = disturbed(chosen.patches, sandbox, fault, truths[sandbox], small=fault is fill_disk)
        figures[name] = {"lost": lost, "doubled": doubled}
        print(f"{name:34} {sandbox:12} {at_first:15} {lost:5} {doubled:8}", flush=True)
    record("faults", {"patches": chosen.patches, **figures})


def faults(*, machine: bool) -> dict[str, tuple[str, Break]]:
    """Name -> (sandbox, what breaks)."""
    usable = {name for name, problem in available().items() if not problem}
    strongest = "bubblewrap" if "bubblewrap" in usable else "process"
    found: dict[str, tuple[str, Break]] = {
        "workers killed, ten times": (strongest, kill_workers),
        "parent killed by SIGKILL": (strongest, kill_parent),
    }
    if "docker" in usable:
        found["containers killed, ten times"] = ("docker", kill_containers)
    if os.geteuid() == 0:
        found["disk full for five seconds"] = (strongest, fill_disk)
    if machine:
        found["clock an hour ahead, and back"] = (strongest, step_clock)
        if "docker" in usable:
            found["Docker engine restarted"] = ("docker", restart_engine)
    return found


# ---------------------------------------------------------------- what scores


def score(count: int, folder: Path, sandbox: str) -> None:
    """Print a line of JSON for each step of progress, and the verdicts at the end."""
    jobs = list(package_jobs(count))
    with Scorer(sandbox=sandbox, cache=folder) as scorer:
        found = scorer.gather(
            jobs, [TestRun], reachable=True, progress=lambda done, _: print(json.dumps({"done": done}), flush=True)
        )
        verdicts = [verdict(evidence.records.get(TestRun)) for evidence in found]
        said = {"verdicts": verdicts, "executions": scorer.stats.executions, "retries": scorer.stats.retries}
    print(json.dumps(said), flush=True)


def verdict(run: TestRun | None) -> list[Any] | None:
    return None if run is None else [run.end.value, sorted(run.fixed), sorted(run.broken)]


def started(count: int, folder: Path, sandbox: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--patches", str(count), "--score", str(folder), sandbox]
    place = {**os.environ, "TMPDIR": str(folder), "REGRADE_CACHE": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=place)


def finished(process: subprocess.Popen[str], on_progress: Callable[[int], None] = lambda _: None) -> tuple[int, Any]:
    """How many were scored, and what was said at the end; None where the process did not get so far."""
    done, said = 0, None
    assert process.stdout is not None
    for line in process.stdout:
        with suppress(json.JSONDecodeError):
            heard = json.loads(line)
            if "done" in heard:
                done = heard["done"]
                on_progress(done)
            else:
                said = heard
    process.wait()
    return done, said


def undisturbed(count: int, sandbox: str) -> list[Any]:
    with tempfile.TemporaryDirectory(prefix="regrade-faults-") as folder:
        _, said = finished(started(count, Path(folder), sandbox))
    verdicts: list[Any] = said["verdicts"]
    assert None not in verdicts
    return verdicts


def disturbed(count: int, sandbox: str, fault: Break, truth: Sequence[Any], *, small: bool) -> tuple[int, int, int]:
    """How many were scored at first, how many verdicts are lost after it was asked again, how many were doubled."""
    with tempfile.TemporaryDirectory(prefix="regrade-faults-") as name:
        folder = Path(name)
        if small:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], check=True)
        try:
            process = started(count, folder, sandbox)
            is_broken = False

            def on_progress(done: int) -> None:
                nonlocal is_broken
                if done >= count // 5 and not is_broken:
                    is_broken = True
                    fault(psutil.Process(process.pid), folder)

            done, said = finished(process, on_progress)
            assert is_broken, "the fault came too late"
            at_first = done if said is None else sum(each is not None for each in said["verdicts"])
            executed = done if said is None else said["executions"]
            _, again = finished(started(count, folder, sandbox))
        finally:
            if small:
                subprocess.run(["umount", "--lazy", folder], check=True)
    lost = sum(one != other for one, other in zip(again["verdicts"], truth, strict=True))
    # What ran in the first process and what in the second, less one for each patch.
    return at_first, lost, max(0, executed + again["executions"] - count)


# ---------------------------------------------------------------- what breaks


def kill_workers(process: psutil.Process, folder: Path) -> None:  # noqa: ARG001 (every fault has this signature)
    for _ in range(10):
        for worker in process.children():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        time.sleep(0.3)


def kill_parent(process: psutil.Process, folder: Path) -> None:  # noqa: ARG001
    process.kill()


def kill_containers(process: psutil.Process, folder: Path) -> None:  # noqa: ARG001
    for _ in range(10):
        running = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True).stdout.split()
        subprocess.run(["docker", "kill", *running], capture_output=True, check=False)
        time.sleep(0.3)


def fill_disk(process: psutil.Process, folder: Path) -> None:  # noqa: ARG001
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    time.sleep(5)
    filler.unlink()


def step_clock(process: psutil.Process, folder: Path) -> None:  # noqa: ARG001
    for seconds in (3600, -3600):
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME) + seconds)
        time.sleep(3)


def restart_engine(process: psutil.Process, folder: Path) -> None:  # noqa: ARG001
    (engine,) = (each for each in psutil.process_iter(["name"]) if each.info["name"] == "dockerd")
    command = engine.cmdline()
    engine.terminate()
    psutil.wait_procs([engine], timeout=60)
    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
