"""How long a user waits: for the first verdict on a repository, the second, a stored one, and the help.

A short suite and a long one, side by side. Plain pytest runs on the same repository before and after, because the load
of the machine changes: a ratio is more reliable than a time. The repositories are source distributions of the
ready-made tasks; the cache starts empty.

    python benchmarks/first_verdict.py --package inflection --package more-itertools
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from _latest import record

from regrade.datasets.mutation.packages import fetch, package, subject_files

REGRADE = Path(sys.executable).with_name("regrade")
SOURCES = Path(__file__).parents[1]
PACKAGES = ("inflection", "more-itertools")
"""A suite of about a second, and one of about half a minute."""


LABELS = {
    "suite": "the suite alone, plain pytest",
    "first": "first verdict",
    "second": "second patch",
    "stored": "stored verdict",
    "help": "regrade --help",
    "version": "regrade --version",
}
Times = Mapping[str, tuple[float, float]]
"""Name of a command -> its median wall time and CPU time, in seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", help="of the ready-made tasks; repeat for more")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command that stores nothing; the median")
    chosen = parser.parse_args()
    compileall.compile_dir(str(SOURCES), quiet=2, rx=re.compile(r"/\.venv/"))  # as an installed package is
    measured = {name: _measure(name, chosen.repeats) for name in chosen.package or PACKAGES}
    print(f"{'':30}" + "".join(f"{name:^33}" for name in measured))
    print(f"{'':30}" + f"{'wall s':>10} {'CPU s':>8} {'x suite':>9}     " * len(measured))
    for key, label in LABELS.items():
        cells = (
            f"{wall:10.2f} {cpu:8.2f} {wall / times['suite'][0]:9.2f}     "
            for times in measured.values()
            for wall, cpu in [times[key]]
        )
        print(f"{label:30}" + "".join(cells).rstrip())
    record("first_verdict", {name: _figures(times) for name, times in measured.items()})


def _measure(name: str, repeats: int) -> Times:
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as temporary:
        folder, source = Path(temporary), package(name)
        root = folder / "repository"
        shutil.copytree(fetch(source), root)
        patches = _patches(root, subject_files(source, root), folder)
        environment = {**os.environ, "REGRADE_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        suite = [_timed(pytest, root, environment) for _ in range(repeats)]
        first, second = (_timed([str(REGRADE), "score", str(patch)], root, environment) for patch in patches)
        suite += [_timed(pytest, root, environment) for _ in range(repeats)]
        rows = {"suite": suite, "first": [first], "second": [second]}
        quick = {"stored": ["score", str(patches[0])], "help": ["--help"], "version": ["--version"]}
        for key, arguments in quick.items():
            rows[key] = [_timed([str(REGRADE), *arguments], root, environment) for _ in range(repeats)]
    return {
        key: (statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times))
        for key, times in rows.items()
    }


def _figures(times: Times) -> dict[str, float]:
    seconds = {f"{key}_seconds": round(wall, 2) for key, (wall, _) in times.items()}
    cpu = {f"{key}_cpu_seconds": round(cpu, 2) for key, (_, cpu) in times.items()}
    ratios = {f"{key}_ratio": round(times[key][0] / times["suite"][0], 2) for key in ("first", "second")}
    return {**seconds, **cpu, **ratios}


def _patches(root: Path, files: Sequence[str], folder: Path) -> list[Path]:
    """Two patches that add a statement to the first and to the last one-line `return` of the largest module."""
    path = max(files, key=lambda file: (root / file).stat().st_size)
    lines = (root / path).read_text("utf-8").splitlines()
    numbers = [
        number
        for number, line in enumerate(lines)
        if line.startswith("    return ") and line.count("(") == line.count(")") and line[-1] not in "[{(,\\"
    ]
    patches = []
    for number in (numbers[0], numbers[-1]):
        patch = folder / f"{len(patches)}.diff"
        new = (
            f"--- a/{path}\n+++ b/{path}\n@@ -{number + 1} +{number + 1},2 @@\n+    _unused = None\n {lines[number]}\n"
        )
        patch.write_text(new, "utf-8")
        patches.append(patch)
    return patches


def _timed(command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Wall time and CPU time of a command, in seconds. The CPU time omits processes inside a sandbox."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
