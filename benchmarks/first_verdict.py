"""How long a user waits: for the first verdict on a repository, the second, a stored one, and the help.

Plain pytest runs on the same repository before and after, because the load of the machine changes: a ratio is more
reliable than a time. The repository is a source distribution of the ready-made tasks; the cache starts empty.

    python benchmarks/first_verdict.py --package more-itertools
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _latest import record

from regrade.datasets.mutation.packages import fetch, package, subject_files

REGRADE = Path(sys.executable).with_name("regrade")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="more-itertools", help="of the ready-made tasks")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command that stores nothing; the median")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        folder, source = Path(name), package(chosen.package)
        root = folder / "repository"
        shutil.copytree(fetch(source), root)
        patches = _patches(root, subject_files(source, root), folder)
        environment = {**os.environ, "REGRADE_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        suite = [_timed(pytest, root, environment)]
        first, second = (_timed([str(REGRADE), "score", str(patch)], root, environment) for patch in patches)
        suite.append(_timed(pytest, root, environment))
        rows = {"suite": suite, "first": [first], "second": [second]}
        quick = {"stored": ["score", str(patches[0])], "help": ["--help"], "version": ["--version"]}
        for key, arguments in quick.items():
            rows[key] = [_timed([str(REGRADE), *arguments], root, environment) for _ in range(chosen.repeats)]
    medians = {key: tuple(map(statistics.median, zip(*times, strict=True))) for key, times in rows.items()}
    labels = {
        "suite": "the suite alone, plain pytest",
        "first": "first verdict",
        "second": "second patch",
        "stored": "stored verdict",
        "help": "regrade --help",
        "version": "regrade --version",
    }
    print(f"{chosen.package}{'':30}  wall s   CPU s   wall, relative to the suite")
    for key, (wall, cpu) in medians.items():
        print(f"{labels[key]:{30 + len(chosen.package)}}  {wall:6.2f}  {cpu:6.2f}  {wall / medians['suite'][0]:6.2f}")
    seconds = {f"{key}_seconds": round(wall, 2) for key, (wall, _) in medians.items()}
    ratios = {f"{key}_ratio": round(medians[key][0] / medians["suite"][0], 2) for key in ("first", "second")}
    record("first_verdict", {"package": chosen.package, **seconds, **ratios})


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
