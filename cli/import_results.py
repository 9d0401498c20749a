"""`regrade import`: graded results of other programs as a run, for `regrade compare` and the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import one_line, print_json, stderr, stdout
from regrade.cli.options import JsonObject, creatable

if TYPE_CHECKING:
    from regrade.evaluators.storage.graded_runs import Counts, GradedImport

MOST_LINES = 60


def import_results(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Files or folders of graded results, one or more a policy."),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, callback=creatable, help="New folder for the run.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Name of the policy; repeat for each source. One name for several sources: its runs."),
    ] = None,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(help="File of instances with FAIL_TO_PASS and PASS_TO_PASS: these instances count. Repeat."),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option(help="Results of the reference patches: PASS_TO_PASS tests that they break are set aside."),
    ] = None,
    unreported: Annotated[
        str,
        typer.Option(
            help="An attempt without an outcome is `missing`, or counts as `unresolved`: neither fixed nor broken."
        ),
    ] = "missing",
    format_name: Annotated[
        str | None, typer.Option("--format", help="Format of the results. Default: by the content of each file.")
    ] = None,
    json: JsonObject = False,
) -> None:
    """Read graded results of other programs into a run, without executing anything.

    Formats: swe-bench (`report.json`, also of SWE-smith), run-log, summary (sb-cli), harbor (job folders), openhands,
    inspect (needs the extra `inspect`), predictions (also mini-swe-agent), table (CSV or JSON lines). What a source
    does not say is missing; what is odd in it is listed.

    Then: `regrade compare RUN`, `regrade compare RUN OTHER`, `regrade report RUN`.
    """
    from regrade.datasets.errors import UserError
    from regrade.evaluators.storage.graded_runs import read_graded, write_graded

    if unreported not in ("missing", "unresolved"):
        raise UserError(f"--unreported {unreported!r}: give missing or unresolved")
    graded = read_graded(
        sources,
        policies=policy or (),
        tasks=tasks or (),
        gold=gold,
        unreported="unresolved" if unreported == "unresolved" else "missing",
        format_name=format_name,
    )
    write_graded(graded, out)
    if json:
        print_json(
            {
                "run": str(out),
                "policies": [{**asdict(each), "missing": each.missing} for each in graded.counts()],
                "trajectories": graded.episodes,
                "findings": graded.findings.to_json(),
            }
        )
        return
    _print(graded, out)


def _print(graded: GradedImport, out: Path) -> None:
    from rich.table import Table

    from regrade.evaluators.analysis.comparison import TOLERATED_MISSING

    table = Table(box=None, pad_edge=False)
    table.add_column("policy")
    for column in ("attempts", "fixed", "broke", "fixed but broke", "clean fix", "missing"):
        table.add_column(column, justify="right")
    for counts in graded.counts():
        table.add_row(counts.policy, *_figures(counts))
    stdout().print(table)
    for name, count in graded.episodes.items():
        typer.echo(f"{name}: the steps of {count} of {len(graded.rows[name])} attempts")
    for line in graded.findings.lines()[:MOST_LINES]:
        typer.echo(f"note: {one_line(line)}", err=True)
    many = [counts.policy for counts in graded.counts() if counts.missing > TOLERATED_MISSING * counts.attempts]
    if many:
        typer.echo(
            f"note: {', '.join(many)}: more than {TOLERATED_MISSING:.0%} of the attempts have no outcome, which "
            "`compare` refuses; --unreported unresolved counts them as neither fixed nor broken, as leaderboards do",
            err=True,
        )
    other = "" if len(graded.rows) > 1 else " OTHER"
    stderr().print(f"{out}: next, regrade compare {out}{other}", style="dim", markup=False)


def _figures(counts: Counts) -> tuple[str, ...]:
    return (
        str(counts.attempts),
        _share(counts.fixed, counts.fix_known),
        _share(counts.broke, counts.broke_known, "unmeasured"),
        _share(counts.fixed_but_broke, min(counts.fix_known, counts.broke_known), "unmeasured"),
        _share(counts.clean, counts.clean_known),
        str(counts.missing),
    )


def _share(count: int, known: int, unknown: str = "unknown") -> str:
    return f"{count} of {known} ({100 * count / known:.1f} %)" if known else unknown
