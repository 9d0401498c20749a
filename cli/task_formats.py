"""`regrade tasks export` and `regrade tasks import`: tasks in the formats of other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import activities, one_line
from regrade.cli.loading import limited, load, measured
from regrade.cli.options import BuiltinSplit, Limit, SandboxName, Seed, creatable
from regrade.datasets.plurals import counted

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task

MOST_LINES = 60


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="builtin, cross-module, a task file, a task set, a recipe folder, or instances."
        ),
    ],
    form: Annotated[
        Literal["swe-bench", "harbor"],
        typer.Option("--format", help="swe-bench: instances (v5); harbor: a folder a task (schema 1.4)."),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, callback=creatable, help="Folder to write, or to replace.")],
    split: BuiltinSplit = None,
    limit: Limit = None,
    file_type: Annotated[
        Literal["jsonl", "json", "parquet"],
        typer.Option(help="Of SWE-bench instances. parquet needs the extra `parquet`."),
    ] = "jsonl",
    seed: Seed = 0,
    sandbox: SandboxName = "auto",
) -> None:
    """Write tasks in the format of another program.

    The folder has all that the tasks need: their base files, tests, environments and reference patches. It is written
    whole or not at all. Every command that takes tasks takes the folder too. Ids that are no plain names are changed.
    """
    from regrade.datasets.formats.harbor_export import write_harbor
    from regrade.datasets.formats.swe_bench_export import write_swe_bench

    tasks = measured(limited(load(source, split), limit, seed), sandbox)
    if form == "harbor":
        written = write_harbor(out, tasks)
        typer.echo(f"{out}: {counted(len(written), 'Harbor task')}")
        return
    made = write_swe_bench(out, tasks, file_type)
    if made.without_space:
        typer.echo(
            f"note: {counted(made.without_space, 'test')} with a space in the id, which SWE-bench's parser cuts: such "
            "tests are in the key `regrade` alone",
            err=True,
        )
    typer.echo(f"{out}: {counted(made.instances, 'SWE-bench instance')}")


def import_tasks(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", exists=True, help="Rows of SWE-bench (v4, v5), SWE-smith or R2E; or Harbor tasks."
        ),
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, callback=creatable, help="Folder for the task set, or one to replace.")
    ],
    repositories: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Folder of git clones (OWNER__NAME, OWNER/NAME or NAME), or a JSON file of OWNER/NAME and URL. "
            "Default: the folder `repositories` beside FILE.",
        ),
    ] = None,
    instance: Annotated[list[str] | None, typer.Option(help="Only the instance with this id. Repeat for more.")] = None,
    python: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Interpreter with the dependencies of the tests."),
    ] = None,
    time_limit: Annotated[float | None, typer.Option(min=1, help="Seconds of one run of a task's tests.")] = None,
    sandbox: SandboxName = "auto",
) -> None:
    """Read tasks of another program into a task set.

    A row of SWE-bench has no files: they are exported from your clone of its repository, without history. Entries that
    are no tests of pytest are left out, and named. Nothing is executed, unless a row has no list of PASS_TO_PASS tests:
    these are then measured. Validate the set by `regrade tasks validate`.
    """
    from regrade.datasets.formats.task_sets import SetTask, check_writable, write_task_set
    from regrade.datasets.graded.records import Findings
    from regrade.datasets.sources import load_tasks

    check_writable(out)
    findings = Findings()
    with activities() as report:
        report("reading the tasks", 0, 0)
        tasks = _chosen(load_tasks(source, repositories=repositories, findings=findings), instance, source)
    tasks = [_with_settings(task, python, time_limit) for task in tasks]
    for line in findings.lines()[:MOST_LINES]:
        typer.echo(f"note: {one_line(line)}", err=True)
    tasks = measured(tasks, sandbox)
    write_task_set(out, [SetTask(task) for task in tasks], _card(tasks, source), [])
    typer.echo(f"{out}: {counted(len(tasks), 'task')}; next, regrade tasks validate {out}")


def _chosen(tasks: list[Task], instances: list[str] | None, source: Path) -> list[Task]:
    from regrade.datasets.errors import UserError

    if not instances:
        return tasks
    unknown = sorted({*instances} - {task.id for task in tasks})
    if unknown:
        raise UserError(f"{source} has no usable instance {unknown[0]!r} among {len(tasks)}, such as {tasks[0].id!r}")
    return [task for task in tasks if task.id in instances]


def _with_settings(task: Task, python: Path | None, time_limit: float | None) -> Task:
    if python is not None:
        task = replace(task, requirements=(str(python.absolute()),))
    if time_limit is not None:
        task = replace(task, limits=replace(task.limits, wall_seconds=time_limit))
    return task


def _card(tasks: list[Task], source: Path) -> str:
    from collections import Counter

    counts = Counter(task.repository for task in tasks)
    rows = "".join(f"| {name} | {count} |\n" for name, count in sorted(counts.items()))
    return (
        f"# Tasks of {source.name}\n\n{counted(len(tasks), 'task')}, read from `{source.name}`. They are not validated "
        f"yet: run `regrade tasks validate`.\n\n| repository | tasks |\n|-|-|\n{rows}"
    )
