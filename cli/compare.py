"""`regrade compare`: two policies on the same tasks, with intervals and a verdict that a script can act on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import print_json, stdout
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from regrade.evaluators.analysis.comparison import Verdict
    from regrade.evaluators.storage.run import Run

FailOn = Literal["regressed", "not-improved", "never"]
FAILED = 1
NOT_COMPARABLE = 2
"""A gate must not open because nothing could be said."""


def compare(
    baseline: Annotated[Path, typer.Argument(help="A run's folder, or a .jsonl file of evaluation rows.")],
    candidate: Annotated[
        Path | None, typer.Argument(help="The other run or file; left out: another policy of the first.")
    ] = None,
    baseline_policy: Annotated[
        str | None, typer.Option(help="Policy of the baseline; default: the run's baseline.")
    ] = None,
    candidate_policy: Annotated[str | None, typer.Option(help="Policy to judge; default: the run's candidate.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Compare at this temperature; default: each policy's own best, found on validation tasks."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="How much worse one measure may be before a gain in the other is no gain; default: as was declared "
            "for the run by `evaluate plan --declare`, else 0.02."
        ),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Exit with 1 on this verdict: a gate for CI. (Not comparable: 2, unless never.)")
    ] = "regressed",
    mixed_versions: Annotated[
        bool, typer.Option("--mixed-versions", help="Compare runs of different versions, which is refused else.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout, as for a job's summary.")] = False,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Name the reward parts that moved and the tasks that changed outcome.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say which of two policies fixes more and breaks less.

    With intervals and a verdict. Exits 1 if the candidate regressed, 2 if the two cannot be compared.

    One run of several policies: `regrade compare RUN`. Two runs or files: `regrade compare A B`.
    """
    from regrade.evaluators.analysis import comparability, comparison
    from regrade.evaluators.analysis.checkpoint_changes import task_changes

    sources = (baseline, candidate or baseline)
    if json and markdown:
        raise UserError("--json and --markdown are two forms of the same answer: choose one")
    first = select(baseline, "baseline", baseline_policy, temperature)
    second = select(sources[1], "candidate", candidate_policy, temperature)
    declared, notes = comparability.check(*sources, margin=margin, mixed_versions=mixed_versions)
    found = comparison.compare(first, second, declared)
    found = replace(found, warnings=(*found.warnings, *notes))
    changes = task_changes(first, second) if tasks else None
    if json:
        print_json(found.to_json() | ({"tasks": changes.to_json()} if changes else {}))
    elif markdown:
        from regrade.reports.markdown import comparison_markdown

        typer.echo(comparison_markdown(found))
        if changes:
            from regrade.reports.checkpoint_changes import task_changes_markdown

            typer.echo("\n" + task_changes_markdown(changes))
    else:
        from regrade.reports.checkpoint_changes import print_task_changes
        from regrade.reports.terminal import print_comparison

        print_comparison(found, stdout())
        if changes:
            print_task_changes(changes, stdout())
    raise typer.Exit(exit_code(found.verdict, fail_on))


def exit_code(verdict: Verdict, fail_on: FailOn) -> int:
    """What `compare` ends with: 0 where the gate is open."""
    if fail_on == "never":
        return 0
    if verdict == "not comparable":
        return NOT_COMPARABLE
    return FAILED if verdict == "regressed" or (fail_on == "not-improved" and verdict != "improved") else 0


def select(
    source: Path, role: str, policy: str | None, temperature: float | None, option: str | None = None
) -> pd.DataFrame:
    """The rows of one policy at one temperature.

    Args:
        option: what names the policy on the command line; default: `--ROLE-policy`.

    Raises:
        UserError: nothing there, no such policy or temperature, or several of them and no way to choose.
    """
    from regrade.evaluators.storage.rows import load_rows
    from regrade.evaluators.storage.run import Run

    if (source / "manifest.json").is_file():
        run = Run.open(source)
        name = policy or _of_role(run, role, option or f"--{role}-policy")
        rows = load_rows(run.evaluation(name)) if name in run.manifest.policies else _no_policy(source, name, run)
        chosen = run.manifest.policies[name].best_temperature if temperature is None else temperature
        return _at(rows, chosen, source)
    rows = load_rows(source)
    if policy is not None:
        known = sorted(rows["policy"].unique())
        rows = rows[rows["policy"] == policy]
        if rows.empty:
            raise UserError(f"{source}: no rows of policy {policy!r}; it holds {', '.join(map(repr, known))}")
    return rows if temperature is None else _at(rows, temperature, source)


def _of_role(run: Run, role: str, option: str) -> str:
    policies = run.manifest.policies
    found = [name for name, entry in policies.items() if entry.role == role]
    if len(found) == 1:
        return found[0]
    if len(policies) == 1:
        return next(iter(policies))
    listed = ", ".join(f"{name} ({entry.role})" for name, entry in policies.items()) or "none"
    count = f"{len(found)} policies are" if found else "no policy is"
    raise UserError(f"{run.folder}: {count} its {role}; choose with {option} from: {listed}")


def _no_policy(source: Path, name: str, run: Run) -> pd.DataFrame:
    listed = ", ".join(map(repr, run.manifest.policies)) or "none"
    raise UserError(f"{source}: no policy {name!r}; it holds {listed}")


def _at(rows: pd.DataFrame, temperature: float, source: Path) -> pd.DataFrame:
    chosen = rows[rows["temperature"] == temperature]
    if chosen.empty:
        known = ", ".join(f"{value:g}" for value in sorted(rows["temperature"].unique()))
        raise UserError(f"{source}: no rows at temperature {temperature:g}; there are rows at {known}")
    return chosen
