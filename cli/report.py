"""`regrade report`: write the report of a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import progress, stderr, stdout_to_stderr
from regrade.cli.loading import load, measured
from regrade.cli.options import SandboxName, Workers
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.storage.run import Run


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    steps: Annotated[
        bool,
        typer.Option(
            "--steps",
            help="First run the whole suite after each change of the agents, where that is not stored: once for each "
            "distinct tree.",
        ),
    ] = False,
    tasks: Annotated[
        Path | None,
        typer.Option("--tasks", help="With --steps: the task file of the run. Default: the ready-made tasks."),
    ] = None,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Write report.html and summary.json of a run; of a study report.html, report.md and study.json.

    Of a run with a training log it also writes training.html: every logged number, alarms, and attempts. It is all that
    a run without evaluated policies has.

    With --steps, the report says of each step of an agent which tests of the whole suite it fixed and broke, whatever
    the agent saw. A stopped command continues where it stopped.
    """
    from regrade.evaluators.storage.run import Run
    from regrade.reports.html_report import write_report
    from regrade.reports.study_page import write_study_report
    from regrade.reports.study_results import stored_settings
    from regrade.reports.training_page import write_training_report

    if tasks is not None and not steps:
        raise UserError("--tasks needs --steps: a report alone runs no tests")
    if steps:
        _measure(run, tasks, sandbox, workers)
    if stored_settings(run) is not None:
        typer.echo(write_study_report(run))
        return
    opened = Run.open(run)
    training = write_training_report(run) if any(opened.training().values()) else None
    typer.echo(write_report(run) if opened.manifest.policies or training is None else training)


def _measure(folder: Path, tasks: Path | None, sandbox: str, workers: int | None) -> None:
    """Measure what each change of the agents did to the full tests. Raises UserError."""
    from regrade.datasets.plurals import counted
    from regrade.evaluators.evaluation.step_measurement import measure_steps
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage.episode_file import episodes_path
    from regrade.evaluators.storage.graded_runs import IMPORTED
    from regrade.evaluators.storage.run import Run

    run = Run.open(folder)
    if IMPORTED in run.manifest.configuration:
        raise UserError(
            f"{folder} was imported: another program's trajectories do not say what the tree was after each step"
        )
    policies = [name for name in run.manifest.policies if episodes_path(run.evaluation(name)).exists()]
    if not policies:
        raise UserError(f"{folder}: none of its policies has recorded steps: only agents have them")
    with run.writing(), stdout_to_stderr():
        chosen = _tasks_of(run, policies, tasks, sandbox)
        with Scorer(sandbox=sandbox, workers=workers) as scorer:
            for name in policies:
                with progress(f"running the tests of every step of {name}") as show:
                    found = measure_steps(run.evaluation(name), chosen, scorer, show)
                line = f"{name}: {counted(found.attempts, 'attempt')}, {counted(found.trees, 'distinct tree')} run now"
                if found.without_task:
                    line += f"; {found.without_task} at other versions of the tasks: give those of the run with --tasks"
                if found.unknown:
                    line += f"; {found.unknown} without a result for a reason outside the agent: run it again"
                stderr().print(line, markup=False, soft_wrap=True, style="dim")


def _tasks_of(run: Run, policies: list[str], tasks: Path | None, sandbox: str) -> list[Task]:
    """The tasks at which these policies have attempts."""
    from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path

    wanted = {key[1] for name in policies for key in EpisodeFile(episodes_path(run.evaluation(name))).attempts}
    found = [task for task in load("builtin" if tasks is None else str(tasks), None) if task.id in wanted]
    return measured(found, sandbox)
