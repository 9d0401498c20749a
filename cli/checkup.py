"""`regrade doctor TASKS`: are these tasks fit for training and evaluation?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regrade.cli.console import activities, one_line, print_json, progress
from regrade.cli.loading import limited, load, load_one, measured
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted, plural

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.task_curation.checkup import CheckUp

BAD = 1
TASK_FILES = (".json", ".jsonl")


def examine(
    tasks: Sequence[Task], *, sandbox: str, workers: int | None, runs: int, mutants: int, seed: int, json: bool
) -> None:
    """Print one line per task and a summary. Exits with 1 if a task is bad. Raises UserError if a check failed."""
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.checkup import check_up

    results: list[CheckUp] = []
    with Scorer(sandbox=sandbox, workers=workers) as scorer, activities() as report:
        for result in check_up(tasks, scorer, runs=runs, mutants=mutants, seed=seed, progress=report):
            results.append(result)
            if json:
                print_json(result.to_json())
            else:
                typer.echo(task_line(result))
    if not json:
        typer.echo(summary(results))
    if any(result.problems for result in results):
        raise typer.Exit(BAD)
    lost = [result for result in results if result.unknown]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(results)} tasks could not be examined, for a reason of this machine: "
            f"{lost[0].unknown}; fix it and run the same command again, all other results are stored"
        )


def task_line(result: CheckUp) -> str:
    """The line of one task."""
    unknown = [result.unknown] if result.unknown else []
    if result.problems:
        verdict, facts = "BAD", [problem.why for problem in result.problems] + [f"unknown: {why}" for why in unknown]
    elif unknown:
        verdict, facts = "?", unknown
    else:
        verdict, facts = "good", [*_figures(result), *(f"note: {note}" for note in result.notes)]
    return f"{verdict:4} {one_line(result.task.id)}: {one_line('; '.join(facts))}"


def _figures(result: CheckUp) -> list[str]:
    from regrade.evaluators.task_curation.checkup import ExploitOutcome

    figures = ["no reference" if result.reference is None else f"reference {result.reference:.3f}"]
    figures[0] += ", empty patch " + ("unscored" if result.nothing is None else f"{result.nothing:.3f}")
    figures.append(f"{result.runs} runs agree" if result.runs > 1 else "1 run")
    if result.exploits:
        refused = sum(outcome in (ExploitOutcome.FAILS, ExploitOutcome.SEEN) for outcome in result.exploits.values())
        figures.append(f"{refused} of {len(result.exploits)} exploits refused")
    if result.guards is not None:
        count = len(result.guards)
        figures.append(f"{counted(count, 'test')} {plural(count, 'executes', 'execute')} the changed code")
    if result.killed or result.survivors:
        figures.append(f"{len(result.killed)} of {len(result.killed) + len(result.survivors)} mutants killed")
    if result.assurance is not None:
        figures.append(f"verdicts are {result.assurance.level}")
    return figures


def summary(results: Sequence[CheckUp]) -> str:
    """The number of healthy tasks, the number of tasks per kind of problem, and the totals."""
    from regrade.evaluators.task_curation.checkup import tally

    totals = [f"{sum(result.is_healthy for result in results)} of {len(results)} tasks are healthy"]
    totals += [f"{count} {kind}" for kind, count in tally(results).items()]
    if unknown := sum(bool(result.unknown) for result in results):
        totals.append(f"{unknown} unknown")
    killed = sum(len(result.killed) for result in results)
    if mutants := killed + sum(len(result.survivors) for result in results):
        totals.append(f"{killed} of {mutants} mutants killed ({100 * killed / mutants:.0f} %)")
    if levels := Counter(result.assurance.level for result in results if result.assurance is not None):
        totals.append(f"verdicts: {', '.join(f'{count} {level}' for level, count in levels.most_common())}")
    return "; ".join(totals)


def chosen_tasks(sources: Sequence[str], split: str | None, limit: int | None, seed: int, sandbox: str) -> list[Task]:
    """The tasks of files, folders of recipes, `builtin`, and ids; with a limit, a random sample drawn by `seed`.

    Raises:
        UserError: a source is none of these, or is not valid.
    """
    return measured(limited([task for source in sources for task in _tasks_of(source, split)], limit, seed), sandbox)


def _tasks_of(source: str, split: str | None) -> list[Task]:
    from regrade.datasets.mutation.recipe_format import recipe_files

    path = Path(source)
    if path.is_dir() and not recipe_files(path):
        raise UserError(
            f"the folder {source!r} contains no recipes of tasks; for a repository, give --repo {source} "
            "--fail-to-pass TEST"
        )
    if source == "builtin" or path.exists() or source.endswith(TASK_FILES):
        return load(source, split)
    if split is not None:
        raise UserError(f"--split applies to sets of tasks, and {source!r} is a single task: leave it out")
    return [load_one("builtin", source)]


def task_of_repository(
    repo: Path,
    fail_to_pass: Sequence[str],
    reference: Path | None,
    sandbox: str,
    runs: int,
    time_limit: float | None,
    test_timeout: float | None,
    **choice: Sequence[str],
) -> Task:
    """The task of a repository, from a run of its tests, with a patch file as its reference.

    Args:
        choice: `tests`, `deselect` and `python_path` of `local_task`.

    Raises:
        UserError: there is no such repository, or the patch does not apply to it.
    """
    from regrade.cli.jobs import check_applies, check_diff, read_patch
    from regrade.evaluators.execution.hanging_tests import time_limits
    from regrade.evaluators.task_curation.local_repository import local_task

    patch = None if reference is None else read_patch(str(reference))
    if patch is not None:
        check_diff(str(reference), patch)
    with progress("running the unchanged tests") as report:
        task = local_task(
            repo,
            fail_to_pass,
            sandbox=sandbox,
            runs=max(runs, 3),
            time_limit=time_limit,
            test_limit=test_timeout,
            tests=choice.get("tests", ()),
            deselect=choice.get("deselect", ()),
            python_path=choice.get("python_path", ()),
            progress=report,
            tell=lambda note: typer.echo(f"note: {one_line(note)}", err=True),
        )
    typer.echo(f"note: {time_limits(task)}", err=True)
    if patch is not None:
        check_applies(str(reference), patch, task, is_stored=False)
    return replace(task, reference=patch)
