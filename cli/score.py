"""`regrade score`: what patches are worth, on any local repository or on a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import print_json, stderr, stdout
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.rewards.breakdown import Breakdown

Patches = Annotated[list[str], typer.Argument(metavar="PATCH", help="Files with a unified diff; - is standard input.")]
Repo = Annotated[Path, typer.Option(help="The repository that the patches are for, as it lies there.")]
FailToPass = Annotated[
    list[str] | None, typer.Option(help="Id of a test that fails now and must pass; repeat for more.")
]
RewardName = Annotated[str, typer.Option("--reward", help="A built-in reward, or FILE:NAME for one of your own.")]
SandboxName = Annotated[
    str, typer.Option("--sandbox", help="auto, bubblewrap, docker or process: see `regrade doctor`.")
]
TaskFile = Annotated[Path | None, typer.Option("--tasks", help="A file of tasks; with --task, instead of --repo.")]
TaskId = Annotated[str | None, typer.Option("--task", help="Id of a task in --tasks, or of the ready-made ones.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Sandboxes at work at a time; default: one a core.")]
Reachable = Annotated[bool, typer.Option("--reachable", help="Run only the tests that execute a changed function.")]
RewardModelFolder = Annotated[
    Path | None, typer.Option("--reward-model", help="A trained reward model, for rewards that ask one (`learned`).")
]
TimeLimit = Annotated[
    float, typer.Option(min=1, help="Seconds for one run of the repository's tests as they are, before any patch.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON a patch on stdout.")]


def score(
    patches: Patches,
    repo: Repo = Path(),
    fail_to_pass: FailToPass = None,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    tasks: TaskFile = None,
    task: TaskId = None,
    workers: Workers = None,
    reachable: Reachable = False,
    reward_model: RewardModelFolder = None,
    time_limit: TimeLimit = 600.0,
    json: AsJson = False,
) -> None:
    """Score patches for any local repository.

    Each is applied to a fresh tree and its tests run in a sandbox; nothing in the repository is changed. Prints what it
    is worth and why. What was found out is kept, so the same patch is not run twice.
    """
    from regrade.cli.jobs import Question, score_files

    wanted = tuple(fail_to_pass or ())
    question = Question(repo, wanted, tasks, task, reward, sandbox, workers, not reachable, reward_model, time_limit)
    verdicts = score_files(patches, question)
    for verdict in verdicts:
        if verdict.patch.is_empty:
            note = f"note: {verdict.source} is empty: what follows is the verdict on changing nothing"
            stderr().print(note, soft_wrap=True)
        show(verdict.breakdown, json, patch=verdict.source, digest=verdict.patch.digest)
    lost = [verdict for verdict in verdicts if verdict.breakdown.is_lost]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(verdicts)} patches could not be scored, for no fault of theirs: "
            f"{lost[0].breakdown.cause}; mend that and run the same command again"
        )


def show(breakdown: Breakdown, json: bool, **names: str) -> None:
    """Print a breakdown as a tree under the first of `names`, or as a line of JSON that holds them all."""
    from regrade.reports.explain import print_breakdown

    if json:
        print_json({**names, **breakdown.to_json()})
    else:
        print_breakdown(breakdown, title=next(iter(names.values())), console=stdout())
