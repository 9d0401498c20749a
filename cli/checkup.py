"""`regrade doctor TASKS`: are these tasks fit to be trained and judged on?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regrade.cli.console import activities, one_line, print_json, progress
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
    """Print one line a task and a summary. Exits 1 if one is bad. Raises UserError if one could not be examined."""
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.checkup import check_up

    found: list[CheckUp] = []
    with Scorer(sandbox=sandbox, workers=workers) as scorer, activities() as tell:
        for each in check_up(tasks, scorer, runs=runs, mutants=mutants, seed=seed, progress=tell):
            found.append(each)
            if json:
                print_json(each.to_json())
            else:
                typer.echo(in_words(each))
    if not json:
        typer.echo(summary(found))
    if any(each.problems for each in found):
        raise typer.Exit(BAD)
    lost = [each for each in found if each.unknown]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(found)} tasks could not be examined, for no fault of theirs: {lost[0].unknown}; mend "
            "that and run the same command again, what was found out is kept"
        )


def in_words(each: CheckUp) -> str:
    """A task in one line."""
    if each.problems:
        said = [problem.why for problem in each.problems] + ([f"unknown: {each.unknown}"] if each.unknown else [])
    elif each.unknown:
        said = [each.unknown]
    else:
        said = [*_figures(each), *(f"note: {note}" for note in each.notes)]
    verdict = "BAD" if each.problems else "?" if each.unknown else "good"
    return f"{verdict:4} {one_line(each.task.id)}: {one_line('; '.join(said))}"


def _figures(each: CheckUp) -> list[str]:
    from regrade.evaluators.task_curation.checkup import ExploitOutcome

    worth = f"nothing {each.nothing:.3f}" if each.nothing is not None else "nothing unscored"
    said = [f"reference {each.reference:.3f}, {worth}" if each.reference is not None else f"{worth}, no reference"]
    said.append(f"{each.runs} runs agree" if each.runs > 1 else "1 run")
    if each.exploits:
        rejected = sum(fate in (ExploitOutcome.FAILS, ExploitOutcome.SEEN) for fate in each.exploits.values())
        said.append(f"{rejected} of {len(each.exploits)} exploits rejected")
    if each.guards is not None:
        count = len(each.guards)
        said.append(f"{counted(count, 'test')} {plural(count, 'executes', 'execute')} what it changes")
    if each.killed or each.survivors:
        said.append(f"{len(each.killed)} of {len(each.killed) + len(each.survivors)} mutants killed")
    if each.assurance is not None:
        said.append(f"verdicts are {each.assurance.level}")
    return said


def summary(found: Sequence[CheckUp]) -> str:
    """How many are healthy, and what is wrong with how many of the others."""
    from regrade.evaluators.task_curation.checkup import tally

    healthy = sum(each.is_healthy for each in found)
    said = [f"{healthy} of {len(found)} tasks are healthy"]
    said += [f"{count} {kind}" for kind, count in tally(found).items()]
    unknown = sum(bool(each.unknown) for each in found)
    said += [f"{unknown} unknown"] if unknown else []
    tried = sum(len(each.killed) + len(each.survivors) for each in found)
    killed = sum(len(each.killed) for each in found)
    said += [f"{killed} of {tried} mutants killed ({100 * killed / tried:.0f} %)"] if tried else []
    levels = Counter(each.assurance.level for each in found if each.assurance is not None)
    said += [f"verdicts: {', '.join(f'{count} {level}' for level, count in levels.most_common())}"] if levels else []
    return "; ".join(said)


def chosen_tasks(sources: Sequence[str], split: str | None, limit: int | None, seed: int) -> list[Task]:
    """The tasks of files, of folders of recipes, of `builtin`, and ready-made ones by their ids; with a limit, as many
    of them, drawn by the seed.

    Raises:
        UserError: one of the sources is none of these, or is wrong.
    """
    tasks = [task for source in sources for task in _tasks_of(source, split)]
    if limit is not None and limit < len(tasks):
        tasks = random.Random(seed).sample(sorted(tasks, key=lambda task: task.id), limit)
    return tasks


def _tasks_of(source: str, split: str | None) -> list[Task]:
    from regrade.cli.loading import load, load_one
    from regrade.datasets.mutation.recipe_format import recipe_files

    path = Path(source)
    if path.is_dir() and not recipe_files(path):
        raise UserError(
            f"the folder {source!r} holds no recipes of tasks; if it is a repository, say --repo {source} "
            "--fail-to-pass TEST"
        )
    if source == "builtin" or path.exists() or source.endswith(TASK_FILES):
        return load(source, split)
    if split is not None:
        raise UserError(f"--split is for sets of tasks, and {source!r} is one: leave it out")
    return [load_one("builtin", source)]


def task_of_repository(
    repo: Path, fail_to_pass: Sequence[str], reference: Path | None, sandbox: str, runs: int, time_limit: float
) -> Task:
    """The task made of a repository by running its tests, with a patch file as its reference.

    Raises:
        UserError: there is no such repository, or the patch does not apply to it.
    """
    from regrade.cli.jobs import check_applies, check_diff, read_patch
    from regrade.evaluators.task_curation.local_repository import local_task

    patch = None if reference is None else read_patch(str(reference))
    if patch is not None:
        check_diff(str(reference), patch)
    with progress("running the repository's own tests") as tell:
        task = local_task(
            repo, fail_to_pass, sandbox=sandbox, runs=max(runs, 3), time_limit=time_limit, progress=tell,
            tell=lambda note: typer.echo(f"note: {one_line(note)}", err=True),
        )  # fmt: skip
    if patch is not None:
        check_applies(str(reference), patch, task, is_stored=False)
    return replace(task, reference=patch)
