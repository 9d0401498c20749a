"""`regrade rewards`: which rewards there are, whether one is fit to train on, and what it really pays for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import asides, print_json, progress, stdout

if TYPE_CHECKING:
    from regrade.evaluators.analysis.reward_audit import Audit

app = typer.Typer(help="List rewards, check one, or audit what one pays for.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, one line an item.")]
UNFIT = 1
DEFAULT = "Did it fix the bug and break nothing, at what reach and with what care."


@app.command("list")
def list_rewards(json: Json = False) -> None:
    """The built-in rewards and what each means."""
    from rich.table import Table

    from regrade.rewards.builtin import builtin_rewards

    table = Table("reward", "needs", "what it is", box=None, pad_edge=False)
    for name, reward in builtin_rewards().items():
        needs = sorted(kind.__name__ for kind in reward.needs)
        what = DEFAULT if name == "default" else " ".join((reward.__doc__ or "").partition("\n\n")[0].split())
        if json:
            print_json({"name": name, "needs": needs, "what": what})
        table.add_row(name, ", ".join(needs), what)
    if not json:
        stdout().print(table)


@app.command()
def check(
    reward: Annotated[str, typer.Argument(help="A built-in name, or FILE:NAME.")],
    examples: Annotated[int, typer.Option(help="Pieces of evidence for each property.", min=1)] = 200,
    json: Json = False,
) -> None:
    """Find out whether a reward is fit to train on; exits 1 if not.

    On generated evidence: it answers, in [0, 1], adds up, is deterministic and pure, stays unscored where evidence is
    missing, never rises when a passing test breaks, never falls when a failing one is mended.
    """
    from regrade.rewards.conformance import RULES, UNTESTED, Violation, examine_reward
    from regrade.rewards.loading import load_reward

    with asides(), progress("checking") as tell:
        results = examine_reward(load_reward(reward), examples=examples, progress=tell)
    for rule, result in results.items():
        lacks = isinstance(result, Violation)
        if json:
            problem = {"problem": result.problem, "evidence": result.evidence} if isinstance(result, Violation) else {}
            print_json({"rule": rule, "holds": None if result is UNTESTED else not lacks, **problem})
            continue
        meaning = " ".join((RULES[rule].__doc__ or "").split())
        typer.echo(f"{'FAILS' if lacks else 'not tested' if result is UNTESTED else 'holds'}  {rule}: {meaning}")
        if isinstance(result, Violation):
            typer.echo(f"       {result.problem}\n       given {result.evidence}")
    if any(isinstance(result, Violation) for result in results.values()):
        raise typer.Exit(UNFIT)


@app.command()
def audit(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a .jsonl file of evaluation rows.")],
    json: Json = False,
) -> None:
    """Say what the reward of a run pays for: what each part moves between attempts at the same task.

    That, and not its weight, is what GRPO sees of a part.
    """
    from regrade.evaluators.analysis import reward_audit as audits

    found = audits.audit(audits.read_rows(run))
    if json:
        print_json(found.to_json())
    else:
        _print(found)


def _print(found: Audit) -> None:
    from rich.table import Table

    console = stdout()
    console.print(
        f"reward {found.reward}: {found.attempts:,} attempts, {found.unscored:,} unscored; {found.groups:,} groups of "
        f"attempts at one task, {found.informative:,} of which differ in reward"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    for column in ("weight", "applies", "mean", "share of variance", "with clean fix"):
        table.add_column(column, justify="right")
    for part in found.parts:
        mean = "" if part.mean is None else f"{part.mean:.3f}"
        outcome = "" if part.with_outcome is None else f"{part.with_outcome:+.2f}"
        table.add_row(part.name, f"{part.weight:.3f}", f"{part.applies:.0%}", mean, f"{part.share:.0%}", outcome)
    console.print(table)
    if found.outcome_share is not None:
        console.print(f"Clean fixes and breakage explain {found.outcome_share:.0%} of the variance.")
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow")
