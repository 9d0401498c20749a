"""`regrade demo`: the main job from the training of a baseline to the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from regrade.cli.console import progress, stderr, stdout
from regrade.cli.extras import training_libraries
from regrade.cli.options import LARGEST_SEED, ModelName, SandboxName, creatable


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
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices.")] = 0,
    model: ModelName = "smollm2-135m",
    sandbox: SandboxName = "auto",
) -> None:
    """Run the main job: train, evaluate, report.

    Train an SFT baseline, continue with reinforcement learning from executed tests, and report which policy fixes more
    and breaks less. The same command resumes a stopped run.
    """
    with training_libraries("`regrade demo`"):
        from regrade.policy_training.demo.pipeline import run_demo
        from regrade.policy_training.demo.settings import FULL, QUICK
    from regrade.reports.html_report import write_report
    from regrade.reports.results import load_results
    from regrade.reports.terminal import print_results

    folder = out or Path("runs", "demo-quick" if quick else "demo")
    run_demo(folder, QUICK if quick else FULL, seed, stage, sandbox=sandbox, model=model)
    report = write_report(folder)
    print_results(load_results(folder), stdout())
    typer.echo(f"\nreport:  {report}\nfigures: {folder / 'summary.json'}")


@contextmanager
def stage(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress display for one stage of the run, and a line with its wall time at the end."""
    console = stderr()
    if not console.is_terminal:
        console.print(f"{title} ...", markup=False)
    began = time.monotonic()
    with progress(title) as display:
        yield display
    console.print(f"{title}: {time.monotonic() - began:.0f} s", markup=False)
