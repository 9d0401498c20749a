"""`regrade compare`: two policies on the same tasks, with intervals, a verdict and an exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import print_json, stdout
from regrade.cli.options import BaselinePolicy, CandidatePolicy, JsonObject, RunTemperature
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from regrade.evaluators.analysis.comparison import Comparison
    from regrade.evaluators.storage.run import Run

FailOn = Literal["regressed", "worst-case", "inconclusive", "open", "not-improved", "never"]
FAILED = 1
NOT_COMPARABLE = 2
"""A gate must not open without a comparison."""


def compare(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="Folder of a run, or a .jsonl file of rows.")],
    candidate: Annotated[
        Path | None, typer.Argument(metavar="CANDIDATE", help="The other run or file. Default: BASELINE.")
    ] = None,
    baseline_policy: BaselinePolicy = None,
    candidate_policy: CandidatePolicy = None,
    temperature: RunTemperature = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Tolerated loss in one metric. Default: that of `evaluate plan --declare`, else 0.02."),
    ] = None,
    fail_on: Annotated[
        FailOn,
        typer.Option(
            help="Verdicts that exit with 1, for a gate in CI. worst-case: also if only the worst case of the missing "
            "attempts is regressed. inconclusive: also regressed. open: also every verdict without shown "
            "non-inferiority in both questions. Not comparable: 2, except for never."
        ),
    ] = "regressed",
    mixed_versions: Annotated[
        bool, typer.Option("--mixed-versions", help="Compare runs of different versions, which is refused by default.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout, for a job summary.")] = False,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="List the reward parts that moved, and the tasks that changed outcome.")
    ] = False,
    json: JsonObject = False,
) -> None:
    """Compare two policies: which fixes more and breaks less?

    Prints differences with intervals, and a verdict: improved, regressed, inconclusive, no difference shown, or not
    comparable. Both questions, fixing and breaking, are answered: better, worse, non-inferior, or open. Exits with 1 if
    the candidate regressed, with 2 if the two are not comparable.

    One run with several policies: `regrade compare RUN`. Two runs or files: `regrade compare A B`. Graded results of
    other programs: `regrade import` first.
    """
    from regrade.evaluators.analysis import comparability, comparison
    from regrade.evaluators.analysis.checkpoint_changes import task_changes

    sources = (baseline, candidate or baseline)
    if json and markdown:
        raise UserError("--json and --markdown exclude each other: give one of them")
    first = select(baseline, "baseline", baseline_policy, temperature)
    second = select(sources[1], "candidate", candidate_policy, temperature)
    declared, notes = comparability.check(*sources, margin=margin, mixed_versions=mixed_versions)
    result = comparison.compare(first, second, declared)
    names = _names(result, *sources)
    result = replace(result, warnings=(*result.warnings, *notes), baseline=names[0], candidate=names[1])
    changes = task_changes(first, second) if tasks else None
    if json:
        print_json(result.to_json() | ({"tasks": changes.to_json()} if changes else {}))
    elif markdown:
        from regrade.reports.markdown import comparison_markdown

        typer.echo(comparison_markdown(result))
        if changes:
            from regrade.reports.checkpoint_changes import task_changes_markdown

            typer.echo("\n" + task_changes_markdown(changes))
    else:
        from regrade.reports.checkpoint_changes import print_task_changes
        from regrade.reports.terminal import print_comparison

        print_comparison(result, stdout())
        if changes:
            print_task_changes(changes, stdout())
    raise typer.Exit(exit_code(result, fail_on))


def _names(result: Comparison, baseline: Path, candidate: Path) -> tuple[str, str]:
    """The names of two policies of one name, told apart by their files; else those that they have."""
    from regrade.datasets.formats.predictions import distinct_names

    if result.baseline != result.candidate or baseline.absolute() == candidate.absolute():
        return result.baseline, result.candidate
    first, second = distinct_names([baseline, candidate])
    return f"{result.baseline} ({first})", f"{result.candidate} ({second})"


def exit_code(comparison: Comparison, fail_on: FailOn) -> int:
    """The exit code of `compare`; 0: the gate is open."""
    verdict, decision = comparison.verdict, comparison.decision
    if fail_on == "never":
        return 0
    if decision is None:
        return NOT_COMPARABLE
    fails = {
        "regressed": verdict == "regressed",
        "worst-case": "regressed" in (verdict, comparison.worst),
        "inconclusive": verdict in ("regressed", "inconclusive"),
        "open": verdict in ("regressed", "inconclusive") or decision.is_open,
        "not-improved": verdict != "improved",
    }
    return FAILED if fails[fail_on] else 0


def select(
    source: Path, role: str, policy: str | None, temperature: float | None, option: str | None = None
) -> pd.DataFrame:
    """The rows of one policy at one temperature.

    Args:
        option: the command's option for the policy, for the error message. Default: `--ROLE-policy`.

    Raises:
        UserError: there are no rows, no such policy or temperature, or several policies of that role.
    """
    from regrade.evaluators.storage.rows import load_rows
    from regrade.evaluators.storage.run import Run

    if (source / "manifest.json").is_file():
        run = Run.open(source)
        name = policy or _of_role(run, role, option or f"--{role}-policy")
        rows = load_rows(run.evaluation(name)) if name in run.manifest.policies else _no_policy(source, name, run)
        chosen = run.manifest.policies[name].best_temperature if temperature is None else temperature
        return _at(rows, chosen, source)
    rows = _rows_of_files(source)
    if policy is not None:
        available = sorted(rows["policy"].unique())
        rows = rows[rows["policy"] == policy]
        if rows.empty:
            raise UserError(
                f"{source}: no rows of policy {policy!r}; there are rows of {', '.join(map(repr, available))}"
            )
    return rows if temperature is None else _at(rows, temperature, source)


def _rows_of_files(source: Path) -> pd.DataFrame:
    """The rows of a file or a folder. Graded results of another program are no rows: the error names their reader."""
    from regrade.evaluators.storage.foreign_results import is_graded
    from regrade.evaluators.storage.rows import load_rows

    try:
        return load_rows(source)
    except UserError as error:
        if source.exists() and is_graded(source):
            raise UserError(
                f"{source}: graded results of another program, not rows of `regrade evaluate`: read both sides with "
                f"`regrade import SOURCE --out RUN`, and compare the runs"
            ) from error
        raise


def _of_role(run: Run, role: str, option: str) -> str:
    policies = run.manifest.policies
    of_role = [name for name, entry in policies.items() if entry.role == role]
    if len(of_role) == 1:
        return of_role[0]
    if len(policies) == 1:
        return next(iter(policies))
    listed = ", ".join(f"{name} ({entry.role})" for name, entry in policies.items()) or "none"
    count = f"{len(of_role)} policies are" if of_role else "no policy is"
    raise UserError(f"{run.folder}: {count} its {role}; choose with {option} from: {listed}")


def _no_policy(source: Path, name: str, run: Run) -> pd.DataFrame:
    listed = ", ".join(map(repr, run.manifest.policies)) or "none"
    raise UserError(f"{source}: no policy {name!r}; the run has {listed}")


def _at(rows: pd.DataFrame, temperature: float, source: Path) -> pd.DataFrame:
    chosen = rows[rows["temperature"] == temperature]
    if chosen.empty:
        available = ", ".join(f"{value:g}" for value in sorted(rows["temperature"].unique()))
        raise UserError(f"{source}: no rows at temperature {temperature:g}; there are rows at {available}")
    return chosen
