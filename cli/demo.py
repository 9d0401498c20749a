"""`regrade demo`: the main job from the training of a baseline to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regrade.cli.console import stages, stdout
from regrade.cli.extras import check_training_libraries
from regrade.cli.options import LARGEST_SEED, MOST_JOBS, ModelName, SandboxName, creatable


def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="Run all phases at a small size, in about four minutes.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            callback=creatable,
            help="Folder of the run. Default: runs/demo, with --quick runs/demo-quick.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_JOBS,
            help="Processes side by side, with equal shares of the cores. Default: 2, if there "
            "are two cores and no GPU.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices.")] = 0,
    model: ModelName = "smollm2-135m",
    sandbox: SandboxName = "auto",
) -> None:
    """Run the main job: train, evaluate, report.

    Train an SFT baseline, continue with reinforcement learning from executed tests, and report which policy fixes more
    and breaks less. The same command resumes a stopped run.
    """
    check_training_libraries("`regrade demo`")
    from regrade.policy_training.demo.running import run_demo
    from regrade.policy_training.demo.settings import FULL, QUICK
    from regrade.reports.html_report import write_report
    from regrade.reports.results import load_results
    from regrade.reports.terminal import print_results

    folder = out or Path("runs", "demo-quick" if quick else "demo")
    with stages() as stage:
        run_demo(folder, QUICK if quick else FULL, seed, stage, sandbox=sandbox, model=model, jobs=jobs)
    report = write_report(folder)
    print_results(load_results(folder), stdout())
    typer.echo(f"\nreport:  {report}\nfigures: {folder / 'summary.json'}")
