"""Which level of assurance honest patches reach, whether any falls short of its task's, and what a level costs.

The patches are those of `honest.py`: references of ready-made tasks, most with what honest people do beside a fix.
What a task allows is what its reference reaches; a patch falls short where it reaches less.

    python benchmarks/assurance.py                   # 560 patches, half an hour on two cores
    python benchmarks/assurance.py --patches 40      # nothing is recorded
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from honest import PATCHES, Honest, honest_patches, record, spread

from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import TestRun, Verification

Found = tuple[Honest, TestRun, Verification]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=PATCHES)
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--workers", type=int)
    chosen = parser.parse_args()
    patches = honest_patches(spread(load_tasks(), chosen.patches))
    with (
        tempfile.TemporaryDirectory(prefix="regrade-assurance-") as folder,
        Scorer(sandbox=chosen.sandbox, workers=chosen.workers, cache=Path(folder)) as scorer,
    ):
        # What the reference shows is found out first, once for each task, so that the seconds are those of a patch.
        references = [(honest.task, _reference(honest.task)) for honest in patches]
        scorer.gather(references, [Verification], reachable=True, progress=_progress)
        jobs = [(honest.task, honest.patch) for honest in patches]
        gathered = scorer.gather(jobs, [TestRun, Verification], reachable=True, progress=_progress)
        name = scorer.sandbox.name
    found = [
        (honest, evidence.records[TestRun], evidence.records[Verification])
        for honest, evidence in zip(patches, gathered, strict=True)
        if Verification in evidence.records
    ]
    short = shortfalls(found)
    figures = show(found, short)
    unknown = len(patches) - len(found)
    print(f"{len(found)} honest patches in {name}, {unknown} not known: {len(short)} reach less than their task allows")
    for honest, _, verification in short:
        print(
            f"  {honest.task.id}, {honest.kind}: {verification.level}, not {verification.reachable}: {verification.why}"
        )
    if chosen.patches >= PATCHES:
        record(figures | {"sandbox": name, "unknown": unknown}, "assurance")
    return 1 if short else 0


def _reference(task: Task) -> Patch:
    assert task.reference is not None
    return task.reference


def shortfalls(found: Sequence[Found]) -> list[Found]:
    """Those that are resolved and reach a weaker level than their task's reference."""
    return [each for each in found if each[1].resolved and not each[2].reaches(each[2].reachable)]


def show(found: Sequence[Found], short: Sequence[Found]) -> dict[str, object]:
    """Print the table, and return its figures."""
    levels_shown = [level for level in AssuranceLevel if level > AssuranceLevel.UNCONFINED]
    reached = Counter(verification.level for _, _, verification in found)
    own = statistics.median(run.seconds for _, run, _ in found)
    print(f"{'level':16} {'patches':>8} {'share':>7} {'median seconds beyond the tests':>32}")
    seconds: dict[str, float] = {}
    for level in levels_shown:
        spent = [verification.seconds for _, _, verification in found if verification.level == level]
        seconds[level] = round(statistics.median(spent), 3) if spent else 0.0
        print(f"{level:16} {reached[level]:8} {reached[level] / len(found):7.1%} {seconds[level]:32.2f}")
    print(f"the tests alone, in the candidate's process: {own:.2f} s")
    repositories: dict[str, dict[str, int]] = {}
    for honest, _, verification in found:
        levels = repositories.setdefault(honest.task.repository, dict.fromkeys(levels_shown, 0))
        levels[verification.level] += 1
    for name, levels in sorted(repositories.items()):
        print(f"{name:16} {', '.join(f'{count} {level}' for level, count in levels.items() if count)}")
    return {
        "patches": len(found),
        "short": len(short),
        "levels": dict(reached),
        "median_seconds": seconds,
        "median_seconds_of_the_tests": round(own, 3),
        "repositories": repositories,
    }


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done % 20 < 2 or done == total:
        print(f"assurance: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
