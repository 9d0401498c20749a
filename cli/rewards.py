"""`regrade rewards`: list rewards, check one for training, or audit the rewards of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import print_json, progress, stdout, stdout_to_stderr
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.evaluators.analysis.reward_audit import Audit
    from regrade.evaluators.analysis.training_audit import TrainingAudit

app = typer.Typer(help="List rewards, check one, or audit those of a run.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
UNFIT = 1
MOST_EXAMPLES = 100_000
DEFAULT = "FAIL_TO_PASS and PASS_TO_PASS tests; for clean fixes also impact, style, complexity and size."


@app.command("list")
def list_rewards(json: Json = False) -> None:
    """List the built-in rewards."""
    from rich.table import Table

    from regrade.rewards.builtin import builtin_rewards

    table = Table("reward", "needs", "meaning", box=None, pad_edge=False)
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
    reward: Annotated[
        str, typer.Argument(metavar="REWARD", help="A built-in reward, or FILE:NAME for your own reward.")
    ],
    examples: Annotated[
        int, typer.Option(help="Number of generated examples per property.", min=1, max=MOST_EXAMPLES)
    ] = 200,
    json: Json = False,
) -> None:
    """Check whether a reward is fit for training.

    Tests properties on generated evidence: the reward returns a value in [0, 1], adds up, is deterministic and pure,
    stays unscored if evidence is missing, never rises if a passing test breaks, and never falls if a failing test is
    fixed. Exits with 1 if a property fails.
    """
    from regrade.rewards.conformance import RULES, UNTESTED, Violation, examine_reward
    from regrade.rewards.loading import load_reward

    with stdout_to_stderr(), progress("checking") as report:
        results = examine_reward(load_reward(reward), examples=examples, progress=report)
    for rule, result in results.items():
        fails = isinstance(result, Violation)
        if json:
            problem = {"problem": result.problem, "evidence": result.evidence} if isinstance(result, Violation) else {}
            print_json({"rule": rule, "holds": None if result is UNTESTED else not fails, **problem})
            continue
        meaning = " ".join((RULES[rule].__doc__ or "").split())
        typer.echo(f"{'FAILS' if fails else 'not tested' if result is UNTESTED else 'holds'}  {rule}: {meaning}")
        if isinstance(result, Violation):
            typer.echo(f"       {result.problem}\n       given {result.evidence}")
    if any(isinstance(result, Violation) for result in results.values()):
        raise typer.Exit(UNFIT)


@app.command()
def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or a .jsonl file of evaluation rows.")],
    json: Json = False,
) -> None:
    """Audit the rewards of a run.

    Of a training: for each component of the reward, its mean in the first and the last quarter of the steps, its spread
    within groups, its share of the variance there, in which share of the groups it decides (more than half of the
    variance is its), its correlation with clean fixes and with breakage, and findings in words.

    Of evaluation rows: the share of each reward part in the variance between attempts at the same task. This share, not
    the weight, is the signal for a group-relative trainer: `share` without division by the standard deviation of the
    group (Dr. GRPO, `scale_rewards="none"`), `scaled` with it (GRPO as published, TRL's default).
    """
    from regrade.evaluators.analysis import reward_audit as audits
    from regrade.evaluators.analysis.training_audit import audit_training
    from regrade.evaluators.storage.run import Run

    trained = audit_training(Run.open(run)) if (run / "manifest.json").exists() else []
    is_evaluated = any((run / "evaluations").glob("*.jsonl"))
    if not trained and not is_evaluated and run.is_dir() and Run.open(run).training():
        raise UserError(
            f"{run}: its training log has no components of a reward, since sft learns without one and a training that "
            "has just begun has no step yet; give a training by another algorithm, or a run of `regrade evaluate`"
        )
    rows = [] if trained and not is_evaluated else audits.read_rows(run)
    audited = audits.audit(rows) if rows else None
    if json:
        record = {} if audited is None else audited.to_json()
        print_json(record | ({"training": [each.to_json() for each in trained]} if trained else {}))
        return
    for each in trained:
        _print_training(each)
    if trained:
        stdout().print(TRAINING_COLUMNS, style="dim")
    if audited is not None:
        _print(audited)


TRAINING_COLUMNS = (
    "first, last: mean of the first and the last quarter of the steps; spread: standard deviation within groups; "
    "share: of the variance within groups of what is paid; decides: groups of which it has more than half; then the "
    "correlation within groups with clean fixes and with breakage, and the attempts that are paid it without a clean "
    "fix. A gate has what all attempts behind it have in common."
)


def _print_training(audited: TrainingAudit) -> None:
    from rich.table import Table

    console = stdout()
    console.print(
        f"training {audited.phase}: {audited.steps:,} logged steps; {audited.groups:,} groups of compared attempts, "
        f"{audited.different_groups:,} with different rewards"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("component", overflow="fold")
    for column in ("first", "last", "spread", "share", "decides", "with fix", "with breakage", "paid unfixed"):
        table.add_column(column, justify="right")
    for part in audited.components:
        means = [_number(value, ".3f") for value in (part.first, part.last, part.std_within)]
        shares = [_number(value, ".0%") for value in (part.share, part.decides)]
        correlations = [_number(value, "+.2f") for value in (part.with_resolved, part.with_breakage)]
        table.add_row(part.name, *means, *shares, *correlations, _number(part.paid_unresolved, ".0%"))
    console.print(table)
    for finding in audited.findings:
        console.print(f"finding: {finding}", style="yellow", markup=False)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _print(audited: Audit) -> None:
    from rich.table import Table

    console = stdout()
    console.print(
        f"reward {audited.reward}: {audited.attempts:,} attempts, {audited.unscored:,} unscored; "
        f"{audited.groups:,} groups of attempts at the same task, {audited.informative:,} with different rewards"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    for column in ("weight", "applies", "mean", "share", "scaled", "with clean fix"):
        table.add_column(column, justify="right")
    for part in audited.parts:
        mean = "" if part.mean is None else f"{part.mean:.3f}"
        outcome = "" if part.with_outcome is None else f"{part.with_outcome:+.2f}"
        shares = (f"{part.share:.0%}", f"{part.scaled_share:.0%}")
        table.add_row(part.name, f"{part.weight:.3f}", f"{part.applies:.0%}", mean, *shares, outcome)
    console.print(table)
    console.print(
        "share: of the variance within groups; scaled: the same after division by the standard deviation of the group, "
        'as in GRPO and TRL\'s default (share alone: scale_rewards="none").',
        style="dim",
    )
    if audited.outcome_share is not None and audited.scaled_outcome_share is not None:
        console.print(
            f"The outcome of an attempt (fixes and regressions) explains {audited.outcome_share:.0%} of the variance, "
            f"and {audited.scaled_outcome_share:.0%} of the scaled one."
        )
    for warning in audited.warnings:
        console.print(f"warning: {warning}", style="yellow")
