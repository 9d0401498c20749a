"""Do warm workers and selected tests say what a cold start and the whole suite say?

Fixes of ready-made tasks and the same fixes with a further bug beside them are scored in three ways in each sandbox: by
warm workers, which run the reachable tests; warm with the whole suite; and cold, each patch in a sandbox, an
interpreter and a tree of its own, with all tests. A difference is a test that came out otherwise than cold, or another
set of fixed tests, another verdict or another end of the run.

    python benchmarks/warm_and_cold.py --patches 1000       # about half an hour for each sandbox on two cores
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from _latest import record
from scoring import Job, package_jobs

from regrade.datasets.patches import Patch
from regrade.evaluators.sandboxes import available
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import TestRun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument(
        "--sandboxes", nargs="*", default=[name for name, problem in available().items() if not problem]
    )
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # that the plain process is no boundary is known here
    jobs = list(package_jobs(chosen.patches))
    print(f"{'sandbox':12} {'patches':>8} {'tests':>9} {'warm':>8} {'whole suite':>12} {'cold':>8} {'differences':>12}")
    for sandbox in chosen.sandboxes:
        with tempfile.TemporaryDirectory(prefix="regrade-bench-") as folder:
            record(f"warm_and_cold_{sandbox}", compare(jobs, sandbox, Path(folder)))


def compare(jobs: Sequence[Job], sandbox: str, folder: Path) -> dict[str, float]:
    """Score all jobs in three ways; seconds a patch for each, and in how much they differ."""
    runs, seconds = {}, {}
    first_of_each = [(task, Patch("")) for task in {task.base.root: task for task, _ in jobs}.values()]
    for name, options, reachable in (("warm", {}, True), ("whole", {}, False), ("cold", {"cold": True}, False)):
        with Scorer(sandbox=sandbox, cache=folder, **options) as scorer:
            scorer.gather(first_of_each, [TestRun], reachable=True)
            began = time.perf_counter()
            found = scorer.gather(jobs, [TestRun], reachable=reachable)
            seconds[name] = (time.perf_counter() - began) / len(jobs)
        assert not any(evidence.infrastructure for evidence in found)
        runs[name] = [evidence.records[TestRun] for evidence in found]
    differing = 0
    for name in ("warm", "whole"):
        for (task, patch), one, other in zip(jobs, runs[name], runs["cold"], strict=True):
            apart = differences(one, other)
            differing += len(apart)
            if apart:
                print(f"  {name}: {task.id}, patch {patch.digest[:12]}: {', '.join(apart[:5])}")
    tests = sum(len(run.outcomes) for run in runs["cold"])
    print(
        f"{sandbox:12} {len(jobs):8} {tests:9} {seconds['warm']:8.3f} {seconds['whole']:12.3f} {seconds['cold']:8.3f} "
        f"{differing:12}",
        flush=True,
    )
    return {
        "patches": len(jobs),
        "tests": tests,
        "differences": differing,
        **{k: round(v, 4) for k, v in seconds.items()},
    }


def differences(one: TestRun, other: TestRun) -> list[str]:
    """What two runs of the same patch do not agree on."""
    apart = [] if one.end == other.end else [f"end {one.end.value} and {other.end.value}"]
    apart += [
        name
        for name, runs in (("fixed", (one.fixed, other.fixed)), ("resolved", (one.resolved, other.resolved)))
        if runs[0] != runs[1]
    ]
    shared = {test for test, outcome in one.outcomes.items() if outcome.status.value != "unreached"}
    return apart + [
        test
        for test in sorted(shared & other.outcomes.keys())
        if one.outcomes[test].status != other.outcomes[test].status
    ]


if __name__ == "__main__":
    main()
