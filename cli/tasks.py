"""`regrade tasks`: list, show, validate, build, export or import tasks, and make demonstrations of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regrade.cli import harden, task_formats
from regrade.cli.console import activities, one_line, print_json, progress
from regrade.cli.loading import limited, load, load_one, load_to_learn, measured, proposed_patches
from regrade.cli.options import (
    LARGEST_SEED,
    MOST,
    BuiltinSplit,
    Deselect,
    JsonObject,
    Limit,
    PythonPath,
    SandboxName,
    Seed,
    TestPaths,
    TestRuns,
    TestTimeout,
    TimeLimit,
    Turns,
    Workers,
    agent_limits,
    creatable,
    takes,
)
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task

INVALID = 2
MOST_SHOWN = 8

app = typer.Typer(
    help="List, show, validate, build, export, import or demonstrate tasks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

app.command("harden")(harden.harden)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="builtin, cross-module, a task file, a task set, a recipe folder, or what `tasks export` wrote.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON per task on stdout.")]


app.command("export")(task_formats.export)
app.command("import")(task_formats.import_tasks)


@app.command("list")
def list_tasks(source: Source = "builtin", split: BuiltinSplit = None, json: AsJson = False) -> None:
    """List tasks with their numbers of tests, without fetching any package."""
    from regrade.datasets.sources import list_tasks as listed_tasks

    tasks = listed_tasks(source, split)
    if json:
        for task in tasks:
            print_json(asdict(task))
        return
    for task in tasks:  # no table, so that ids can be copied whole
        typer.echo(f"{task.id}  ({task.fail_to_pass} FAIL_TO_PASS, {task.pass_to_pass} PASS_TO_PASS)")
    counts = Counter(task.repository for task in tasks)
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    typer.echo(f"{counted(len(tasks), 'task')}: {listed}")


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(metavar="TASK_ID", help="Id of the task.")],
    source: Source = "builtin",
    reference: Annotated[bool, typer.Option("--reference", help="Also show the reference patch.")] = False,
    json: JsonObject = False,
) -> None:
    """Show one task: instruction, location and tests."""
    task = load_one(source, task_id)
    patch = task.reference.text if reference and task.reference else None
    if json:
        print_json({**details(task), **({"reference": patch} if reference else {})})
        return
    location = f"{task.target.file}:{task.target.first_line} {task.target.function}" if task.target else "anywhere"
    lines = [f"{task.id} ({task.repository})", f"instruction: {task.instruction}", f"location: {location}"]
    if task.failure:
        lines.append("failure: " + task.failure.strip().replace("\n", "\n    "))
    lines += [f"FAIL_TO_PASS: {test}" for test in task.fail_to_pass[:MOST_SHOWN]]
    if (more := len(task.fail_to_pass) - MOST_SHOWN) > 0:
        lines.append(f"FAIL_TO_PASS: {more} more (all with --json)")
    lines.append(f"PASS_TO_PASS: {len(task.pass_to_pass)} tests")
    if task.shown.tests is not None:
        lines.append(f"shown to an agent: {', '.join(task.shown.tests) or 'no test'}")
    typer.echo("\n".join(lines))
    if patch:
        typer.echo(f"\n{patch}", nl=False)


@app.command()
def validate(
    source: Source,
    split: BuiltinSplit = None,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    json: AsJson = False,
) -> None:
    """Validate tasks by execution.

    A task is valid if its FAIL_TO_PASS tests fail at the base and all its tests pass with the reference. Exits with 2
    if a task is not valid.
    """
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.validation import validate as validate_tasks

    tasks = measured(load(source, split), sandbox)
    with Scorer(sandbox=sandbox, workers=workers) as scorer, progress("validating") as report:
        results = validate_tasks(tasks, scorer, report)
    invalid = [result for result in results if not result.holds]
    if json:
        for one in results:
            print_json(
                {
                    "id": one.task.id,
                    "holds": one.holds,
                    "problems": one.problems,
                    "unknown": one.unknown,
                    "notes": one.notes,
                }
            )
    else:
        for result in invalid:
            typer.echo(f"{result.task.id}: {result.unknown or '; '.join(result.problems)}")
        for result in results:
            for note in result.notes:
                typer.echo(f"{result.task.id}: note: {note}")
        typer.echo(f"{len(results) - len(invalid)} of {len(results)} tasks are valid")
    if invalid:
        raise typer.Exit(INVALID)


@app.command()
def demonstrations(
    out: Annotated[Path, typer.Option(dir_okay=False, help="File for the demonstrations, as JSON lines.")],
    source: Source = "builtin",
    split: BuiltinSplit = None,
    limit: Limit = None,
    form: Annotated[
        Literal["compact", "chat"],
        typer.Option(
            "--format",
            help="compact: one-line actions, as `regrade train` learns them; chat: messages with tool calls, for TRL.",
        ),
    ] = "compact",
    turns: Turns = 12,
    test_runs: TestRuns = None,
    with_mistake: Annotated[
        int, typer.Option(min=0, max=MOST, help="Traces of a task that err and recover, besides the one that doesn't.")
    ] = 1,
    with_refusal: Annotated[
        int, typer.Option(min=0, max=MOST, help="Traces of a task that begin with an edit that changes nothing.")
    ] = 1,
    failed: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Predictions of a policy (SWE-bench's format): its failed patches are the first mistakes. Repeat.",
        ),
    ] = None,
    seed: Seed = 0,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Make demonstrations for agents from reference patches.

    A scripted expert makes the right edit, tests it and hands in; in other traces it makes a wrong edit first, sees the
    tests fail, and takes it back. Every action is executed, and the full suite must find each final patch clean. A
    killed run goes on when it is repeated. The ready-made tasks are by default those of the split demonstrations.
    """
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.policy_training.environments.agent_tools import EpisodeLimits
    from regrade.policy_training.environments.demonstration_files import write_demonstrations
    from regrade.policy_training.environments.demonstration_formats import FORMATS
    from regrade.policy_training.environments.demonstrations import DemonstrationSettings, Demonstrator

    limits = agent_limits(turns, test_runs) or EpisodeLimits(turns=1)
    tasks = measured(limited(load_to_learn(source, split, "demonstrations"), limit, seed), sandbox)
    if not tasks:
        raise UserError(f"{source} has no tasks in the split {split!r}: choose another with --split")
    patches = proposed_patches(failed or [], tasks)
    with Scorer(sandbox=sandbox, workers=workers) as scorer, progress("demonstrating") as report:
        demonstrator = Demonstrator(
            tasks,
            scorer,
            limits,
            DemonstrationSettings(with_mistake=with_mistake, with_refusal=with_refusal),
            form=FORMATS[form],
            failed=patches,
            seed=seed,
        )
        made = write_demonstrations(demonstrator, out, report)
    for why, count in made.reasons:
        typer.echo(f"note: {counted(count, 'trace')} left out: {one_line(why)}", err=True)
    typer.echo(f"{out}: {counted(made.traces, 'trace')}, of which {made.with_mistakes} err and recover")


@dataclass(frozen=True, kw_only=True)
class _BuildOptions:
    """Options of `regrade tasks build`."""

    out: Annotated[
        Path,
        typer.Option(
            file_okay=False, callback=creatable, help="Folder for the task set, or for the recipes of packages."
        ),
    ]
    repo: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REPO]...",
            help="Folders, git URLs or clones, archives, or packages (NAME or NAME==VERSION). Default: the pinned "
            "packages of the ready-made tasks.",
        ),
    ] = None
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this task source: commits, mutation, cross-module, features or refactors. Repeat for more."
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, max=MOST, help="Maximum number of tasks of one source.")] = None
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of the unchanged tests; a test must pass in all.")] = 3
    python: Annotated[
        Path | None,
        typer.Option(help="Interpreter with the dependencies of the tests, instead of an environment built for them."),
    ] = None
    tests: TestPaths = None
    deselect: Deselect = None
    python_path: PythonPath = None
    time_limit: TimeLimit = None
    test_timeout: TestTimeout = None
    split_by: Annotated[Literal["repository", "module", "function"], typer.Option(help="What no two splits share.")] = (
        "module"
    )
    package: Annotated[list[str] | None, typer.Option(help="Only this pinned package. Repeat for more.")] = None
    cross_module: Annotated[
        bool, typer.Option("--cross-module", help="Of pinned packages: as --source cross-module.")
    ] = False
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all choices. The ready-made tasks have seed 1.")
    ] = 1
    sandbox: SandboxName = "auto"
    workers: Workers = None
    json: JsonObject = False


@app.command()
@takes(_BuildOptions)
def build(options: _BuildOptions) -> None:
    """Build tasks from any repository, or the recipes of the ready-made tasks.

    Installs what the tests of the repository need, runs them several times, and searches for tasks: fix commits,
    planted bugs, bugs with a wrong fix that breaks other modules, functions without a body, and functions to simplify.
    Execution confirms each task. A killed run goes on when it is repeated.
    """
    if options.repo:
        _build_set(options)
    else:
        _build_recipes(options)


def _build_set(options: _BuildOptions) -> None:
    from regrade.datasets.formats.task_sets import check_writable
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.built_repository import BuiltRepository, built_ones, built_repository
    from regrade.evaluators.task_curation.chosen_tests import TestChoice
    from regrade.evaluators.task_curation.task_set_building import chosen_sources, write_tasks

    chosen_sources(options.source or ())
    check_writable(options.out)
    if options.package or options.cross_module:
        raise UserError("--package and --cross-module are for pinned packages: leave them out beside a REPO")
    choice = TestChoice(
        tests=tuple(options.tests or ()),
        deselect=tuple(options.deselect or ()),
        python_path=tuple(options.python_path or ()),
        time_limit=options.time_limit,
        test_limit=options.test_timeout,
    )

    def tell(note: str) -> None:
        typer.echo(f"note: {one_line(note)}", err=True)

    with Scorer(sandbox=options.sandbox, workers=options.workers) as scorer, activities() as report:

        def build_one(repo: str) -> BuiltRepository:
            return built_repository(
                repo,
                scorer,
                seed=options.seed,
                runs=options.runs,
                limit=options.limit,
                python=options.python,
                choice=choice,
                progress=report,
                tell=tell,
            )

        built = built_ones(options.repo or (), build_one, tell)
        made = write_tasks(
            built, options.out, sources=options.source or (), split_by=options.split_by, seed=options.seed
        )
    if options.json:
        print_json({"folder": str(made.folder), "tasks": len(made.tasks), "yield": made.yields.to_json()})
        return
    for (source, kind), row in sorted(made.yields.rows.items()):
        seconds = "" if row.seconds_per_task is None else f", {row.seconds_per_task:.2f} s a task"
        typer.echo(f"{source} {kind}: {row.valid} of {row.tried}{seconds}")
    typer.echo(f"{made.folder}: {counted(len(made.tasks), 'task')}")


def _build_recipes(options: _BuildOptions) -> None:
    """The recipes of pinned packages, each compared with the shipped file."""
    from regrade.datasets.mutation.packages import PACKAGES
    from regrade.datasets.mutation.packages import package as pinned
    from regrade.datasets.sources import READY_MADE
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.task_curation.cross_module_tasks import build_cross_module
    from regrade.evaluators.task_curation.mutation_tasks import build as build_recipes

    cross_module = options.cross_module or options.source == ["cross-module"]
    if not cross_module and options.source not in (None, ["mutation"]):
        raise UserError(
            "without a REPO, the recipes of pinned packages have the source mutation or cross-module: name one"
        )
    chosen = [pinned(name) for name in options.package] if options.package else PACKAGES
    with Scorer(sandbox=options.sandbox, workers=options.workers) as scorer, activities() as report:
        search = build_cross_module if cross_module else build_recipes
        written = search(scorer, options.out, options.seed, chosen, progress=report)
    for path in written:
        shipped = READY_MADE["cross-module" if cross_module else "builtin"] / path.name
        typer.echo(f"{path}: {_comparison_with_shipped(path, shipped)}")


def _comparison_with_shipped(path: Path, shipped: Path) -> str:
    from regrade.datasets.mutation.recipe_format import read_recipes

    comparison = "different from the shipped file" if shipped.is_file() else "no shipped file"
    if shipped.is_file() and shipped.read_bytes() == path.read_bytes():
        comparison = "identical to the shipped file"
    return f"{len(read_recipes(path).tasks)} tasks, {comparison}"


def details(task: Task) -> dict[str, Any]:
    """The task as JSON, with the ids of its tests."""
    from regrade.datasets.catalogue import entry_of

    return {
        **asdict(entry_of(task)), "instruction": task.instruction, "failure": task.failure,
        "fail_to_pass": list(task.fail_to_pass), "pass_to_pass": list(task.pass_to_pass), "digest": task.digest,
        "shown": asdict(task.shown),
    }  # fmt: skip
