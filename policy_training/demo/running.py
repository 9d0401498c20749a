"""Runs the main job, in two processes side by side where there are two cores.

Two processes of one thread use two cores better than one process of two threads does: a small model has little to share
out. torch is imported only to ask for a GPU; each process loads its own model.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from regrade.evaluators.evaluation.sweeps import Stage
from regrade.evaluators.storage.file_locks import has_locks
from regrade.evaluators.storage.run import Run
from regrade.policy_training.demo.settings import DemoSettings
from regrade.policy_training.policies.models import EMBEDDED
from regrade.policy_training.recipe.lanes import most_lanes, run_lanes, torch_threads, usable_cores

DEFAULT_JOBS = 2
"""More would mostly wait for reinforcement learning."""


def run_demo(
    out: Path,
    settings: DemoSettings,
    seed: int,
    stage: Stage,
    *,
    sandbox: str = "auto",
    model: str = EMBEDDED,
    jobs: int | None = None,
) -> Run:
    """Run the main job in `out`, or resume it.

    Args:
        jobs: processes side by side. Default: None: two, or one where there is one core, a GPU that they would share,
            or a file system without locks.

    Raises:
        UserError: there is no network on the first run, no model or no sandbox, `out` contains a run with other
            settings, or a process was killed.
    """
    run = Run(out)
    run.configure({"settings": asdict(settings), "seed": seed, "model": model})
    run.update(seeds={"run": seed}, model=model)
    with run.writing():
        jobs = jobs or (min(DEFAULT_JOBS, most_lanes()) if has_locks(out) else 1)
        # How sums are rounded depends on the number of threads, and figures must not depend on whether another process
        # runs beside this one: so one alone has as many threads as one of two.
        threads = max(1, len(usable_cores()) // max(DEFAULT_JOBS, jobs))
        work = partial(work_at_demo, out, settings, seed, sandbox, model, threads)
        try:
            with Run(out, is_shared=True).wall_time():
                run_lanes(work, jobs, stage)
        finally:
            run.remove_locks()
    return run


def work_at_demo(
    out: Path, settings: DemoSettings, seed: int, sandbox: str, model: str, threads: int, stage: Stage
) -> None:
    """What one process does."""
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.policy_training.demo.pipeline import Demo

    run = Run(out, is_shared=True)
    with torch_threads(threads), Scorer(workers=len(usable_cores()), sandbox=sandbox) as scorer:
        Demo(run, settings, seed, stage, model, scorer).work()
