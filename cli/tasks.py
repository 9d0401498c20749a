"""`regrade tasks`: the ready-made tasks and your own: list, show, validate, build."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli.console import activities, print_json, progress
from regrade.cli.loading import load, load_one
from regrade.cli.options import SandboxName, Workers

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task

INVALID = 2
MOST_SHOWN = 8

app = typer.Typer(
    help="List, show, validate or build tasks.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

Source = Annotated[str, typer.Argument(help="builtin, a task file (.json, .jsonl), or a folder of recipes.")]
Split = Annotated[str | None, typer.Option(help="demonstrations, tests_only, validation or held_out; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON a task on stdout.")]


@app.command("list")
def list_tasks(source: Source = "builtin", split: Split = None, json: AsJson = False) -> None:
    """List tasks, each with its tests to mend and to keep."""
    tasks = load(source, split)
    if json:
        for task in tasks:
            print_json(summary(task))
        return
    for task in tasks:  # no table: ids are there to be copied whole
        typer.echo(f"{task.id}  ({len(task.fail_to_pass)} to mend, {len(task.pass_to_pass)} to keep)")
    counts = Counter(task.repository for task in tasks)
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    typer.echo(f"{len(tasks)} tasks: {listed}")


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(help="The task's id.")],
    source: Source = "builtin",
    reference: Annotated[bool, typer.Option("--reference", help="Show the reference patch too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show one task: what is asked, where, and by which tests."""
    task = load_one(source, task_id)
    patch = task.reference.text if reference and task.reference else None
    if json:
        print_json({**details(task), **({"reference": patch} if reference else {})})
        return
    place = f"{task.target.file}:{task.target.first_line} {task.target.function}" if task.target else "anywhere"
    lines = [f"{task.id} ({task.repository})", f"asked:    {task.instruction}", f"where:    {place}"]
    if task.failure:
        lines.append("failure:  " + task.failure.strip().replace("\n", "\n          "))
    lines += [f"must pass: {test}" for test in task.fail_to_pass[:MOST_SHOWN]]
    if (more := len(task.fail_to_pass) - MOST_SHOWN) > 0:
        lines.append(f"must pass: {more} more (all with --json)")
    lines.append(f"must keep passing: {len(task.pass_to_pass)} tests")
    typer.echo("\n".join(lines))
    if patch:
        typer.echo(f"\n{patch}", nl=False)


@app.command()
def validate(
    source: Source, split: Split = None, sandbox: SandboxName = "auto", workers: Workers = None, json: AsJson = False
) -> None:
    """Find out by execution whether tasks hold: their tests fail at the base and pass with the reference.

    Exits 2 if one of them does not.
    """
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.validation import validate as validate_tasks

    tasks = load(source, split)
    with Scorer(sandbox=sandbox, workers=workers) as scorer, progress("validating") as tell:
        found = validate_tasks(tasks, scorer, tell)
    bad = [each for each in found if not each.holds]
    if json:
        for each in found:
            print_json({"id": each.task.id, "holds": each.holds, "problems": each.problems, "unknown": each.unknown})
    else:
        for each in bad:
            typer.echo(f"{each.task.id}: {each.unknown or '; '.join(each.problems)}")
        typer.echo(f"{len(found) - len(bad)} of {len(found)} tasks hold")
    if bad:
        raise typer.Exit(INVALID)


@app.command()
def build(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the recipes, one file a package.")],
    package: Annotated[list[str] | None, typer.Option(help="Only this package; repeat for more. Default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is proposed. The ready-made tasks have seed 1.")] = 1,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Build tasks from the pinned packages by planting bugs.

    A bug is kept if, by execution, tests that passed notice it, others still pass, and its reference mends it. The same
    seed writes the same bytes; each file is compared with the one that ships.
    """
    from regrade.datasets.mutation.packages import PACKAGES
    from regrade.datasets.mutation.packages import package as pinned
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.mutation_tasks import build as build_recipes

    chosen = [pinned(name) for name in package] if package else PACKAGES
    # Each candidate from the start: what a fork of one process shows in common with another may be chance.
    with Scorer(sandbox=sandbox, workers=workers) as scorer, activities() as tell:
        written = build_recipes(scorer, out, seed, chosen, progress=tell)
    for path in written:
        typer.echo(f"{path}: {_against_shipped(path)}")


def _against_shipped(path: Path) -> str:
    from regrade.datasets.mutation.recipe_format import read_recipes
    from regrade.datasets.sources import BUILTIN

    shipped = BUILTIN / path.name
    same = "none such ships" if not shipped.is_file() else "other than the one that ships"
    if shipped.is_file() and shipped.read_bytes() == path.read_bytes():
        same = "the same bytes as the one that ships"
    return f"{len(read_recipes(path).tasks)} tasks, {same}"


def summary(task: Task) -> dict[str, Any]:
    """The task in one line of JSON."""
    target = task.target
    return {
        "id": task.id, "repository": task.repository, "source": task.source,
        "file": target.file if target else None, "function": target.function if target else None,
        "fail_to_pass": len(task.fail_to_pass), "pass_to_pass": len(task.pass_to_pass),
    }  # fmt: skip


def details(task: Task) -> dict[str, Any]:
    return {
        **summary(task), "instruction": task.instruction, "failure": task.failure,
        "fail_to_pass": list(task.fail_to_pass), "pass_to_pass": list(task.pass_to_pass), "digest": task.digest,
    }  # fmt: skip
