"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REACHABLE_HELP = (
    "Run only the tests that a patch can reach; without it, one that passes all of these runs the whole suite too."
)
Patches = Annotated[list[str], typer.Argument(metavar="PATCH", help="Files with a unified diff; - is standard input.")]
Repo = Annotated[
    Path, typer.Option(help="The repository that the patches are for, as it lies there, without their changes.")
]
FailToPass = Annotated[
    list[str] | None,
    typer.Option(
        help="Id of a test that fails now and must pass; repeat for more. A test function with parameters, a class or "
        "a whole file stand for those of their tests that fail now."
    ),
]
RewardName = Annotated[str, typer.Option("--reward", help="A built-in reward, or FILE:NAME for one of your own.")]
SandboxName = Annotated[
    str, typer.Option("--sandbox", help="auto, bubblewrap, docker or process: see `regrade doctor`.")
]
TaskFile = Annotated[Path | None, typer.Option("--tasks", help="A file of tasks; with --task, instead of --repo.")]
TaskId = Annotated[str | None, typer.Option("--task", help="Id of a task in --tasks, or of the ready-made ones.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Sandboxes at work at a time; default: one a core.")]
Reachable = Annotated[bool, typer.Option("--reachable", help=REACHABLE_HELP)]
RewardModelFolder = Annotated[
    Path | None, typer.Option("--reward-model", help="A trained reward model, for rewards that ask one (`learned`).")
]
AssuranceOption = Annotated[
    str | None,
    typer.Option(
        "--assured",
        metavar="LEVEL",
        help="Pay only for verdicts as sure as this: tripwired, out-of-process or held-out.",
    ),
]
TimeLimit = Annotated[
    float, typer.Option(min=1, help="Seconds for one run of the repository's tests as they are, before any patch.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON a patch on stdout.")]
