"""`regrade study`: what learning from tests is worth in demonstrations, over a grid of trained policies."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import stages, stdout
from regrade.cli.extras import check_training_libraries
from regrade.cli.options import MOST_JOBS, ModelName, SandboxName, creatable
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.evaluators.evaluation.sweeps import Stage
    from regrade.policy_training.study.settings import StudySettings


class StudyTasks(StrEnum):
    """The sources of tasks that have a grid."""

    BUILTIN = "builtin"
    CROSS_MODULE = "cross-module"


def study(
    out: Annotated[
        Path, typer.Option(file_okay=False, callback=creatable, help="Folder of the study; a study in it goes on.")
    ],
    cells: Annotated[
        list[str] | None,
        typer.Option(
            help="Run these cells only, and those that they need: a name or a pattern, such as 'rl-d32-*-s0'. Repeat."
        ),
    ] = None,
    tasks: Annotated[
        StudyTasks,
        typer.Option(
            help="The ready-made tasks. cross-module: their shown tests miss what a wrong fix breaks in other modules."
        ),
    ] = StudyTasks.BUILTIN,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small grid of small cells: every part for real, figures are noise.")
    ] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="Show what is done, and what is left with an estimate; run nothing.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_JOBS,
            help="Cells side by side, each in a process with an equal share of the cores: 2 use "
            "two cores best. Default: 1.",
        ),
    ] = 1,
    model: ModelName = "smollm2-135m",
    sandbox: SandboxName = "auto",
) -> None:
    """Measure what learning from tests is worth in demonstrations.

    Train and judge SFT, SFT given equal time, and reinforcement learning from executed tests at several numbers of
    demonstrations and of tested tasks, and draw their curves. A stopped study resumes by the same command.
    """
    from regrade.policy_training.study.settings import CROSS_MODULE, FULL, QUICK

    if quick and tasks is StudyTasks.CROSS_MODULE:
        raise UserError("--quick has a grid of its own, of builtin tasks: leave out --tasks")
    settings = QUICK if quick else CROSS_MODULE if tasks is StudyTasks.CROSS_MODULE else FULL
    if only_list:
        from regrade.reports.study_results import stored_settings

        _list(out, stored_settings(out) or settings, cells or ())
        return
    check_training_libraries("`regrade study`")
    from regrade.policy_training.recipe.lanes import run_lanes
    from regrade.reports.study_page import FIGURES, study_markdown, write_study_report
    from regrade.reports.study_results import load_study

    with stages() as stage:
        run_lanes(partial(_work_at_study, out, settings, cells or (), sandbox, model), jobs, stage)
    page = write_study_report(out)
    typer.echo(study_markdown(load_study(out)))
    typer.echo(f"report:  {page}\nfigures: {out / FIGURES}")


def _work_at_study(
    out: Path, settings: StudySettings, cells: Sequence[str], sandbox: str, model: str, stage: Stage
) -> None:
    """What one process does, with its cores."""
    from regrade.policy_training.recipe.lanes import torch_threads, usable_cores
    from regrade.policy_training.study.running import run_study
    from regrade.reports.study_page import write_study_report

    cores = len(usable_cores())
    with torch_threads(cores):
        run_study(
            out,
            settings,
            stage,
            cells=cells,
            sandbox=sandbox,
            workers=cores,
            model=model,
            after_cell=lambda _cell: write_study_report(out),
        )


def _list(out: Path, settings: StudySettings, patterns: list[str] | tuple[()]) -> None:
    from rich.table import Table

    from regrade.policy_training.study.cells import cell_states, chosen, grid
    from regrade.reports.number_format import duration
    from regrade.reports.study_results import time_left

    states = cell_states(out, chosen(grid(settings), patterns))
    table = Table("cell", "state", "so far", "left, about", box=None)
    for state in states:
        words = "done" if state.is_done else "started" if state.seconds else "not started"
        left = "" if state.is_done else "unknown" if state.left is None else duration(state.left)
        table.add_row(state.cell.name, words, duration(state.seconds) if state.seconds else "", left)
    stdout().print(table)
    typer.echo(time_left(states))
