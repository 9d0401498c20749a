"""`regrade rescore`: another reward for a finished run, from its stored evidence; or trajectories, judged again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli.console import one_line, print_json, stderr, stdout, stdout_to_stderr
from regrade.cli.options import AssuranceOption, SandboxName, Workers, creatable
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def rescore(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run; with --tasks, a file or a folder of trajectories."),
    ],
    reward: Annotated[str, typer.Option(help="A built-in reward, or FILE:NAME for your own reward.")],
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            callback=creatable,
            help="Folder for a copy of the run with the new rewards, for `report` and `compare`.",
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks of trajectories (a task file, or builtin): their last patches are executed."),
    ] = None,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
    assured: AssuranceOption = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON per policy and temperature.")] = False,
) -> None:
    """Apply another reward to a finished run, or judge stored trajectories.

    A reward is a pure function of the stored evidence, so no test of a run is executed. The run itself does not change,
    and its assurance level remains required.

    With --tasks, RUN is a file or a folder of trajectories (ATIF, mini-swe-agent, SWE-agent, OpenHands, Regrade). The
    patch at the end of each is executed on its task, and --out is the new run, with the steps of each attempt. The same
    command resumes it.
    """
    if tasks is not None:
        _judge_trajectories(run, tasks, reward, out, sandbox, workers, assured, json=json)
        return
    _rescore_run(run, reward, out, json=json)


def _judge_trajectories(
    source: Path,
    tasks: str,
    reward: str,
    out: Path | None,
    sandbox: str,
    workers: int | None,
    assured: str | None,
    *,
    json: bool,
) -> None:
    from regrade.cli.evaluate import judge_recorded
    from regrade.cli.loading import load, measured
    from regrade.datasets.graded.records import Findings
    from regrade.policy_training.policy_files import entrants_of_trajectories

    if out is None:
        raise UserError("trajectories are judged into a new run: give its folder with --out")
    findings = Findings()
    contest, chosen = entrants_of_trajectories(source, load(tasks, None), findings)
    for line in findings.lines():
        typer.echo(f"note: {one_line(line)}", err=True)
    judge_recorded(
        contest,
        measured(chosen, sandbox),
        out,
        reward=reward,
        assured=assured,
        sandbox=sandbox,
        workers=workers,
        json=json,
    )


def _rescore_run(run: Path, reward: str, out: Path | None, *, json: bool) -> None:
    from regrade.evaluators.evaluation.rescoring import rescore_run, write_rescored
    from regrade.evaluators.storage.run import Run
    from regrade.rewards.assurance import BY_DEFAULT, at_level
    from regrade.rewards.assurance_level import AssuranceLevel
    from regrade.rewards.loading import load_reward

    with stdout_to_stderr():
        plain, source = load_reward(reward), Run.open(run)
        level = source.manifest.assurance
        is_verified = level == BY_DEFAULT or (
            level in list(AssuranceLevel) and AssuranceLevel(level) > AssuranceLevel.IN_PROCESS
        )
        chosen = at_level(plain, level).named(f"{plain.name}, assured {level}") if is_verified else plain
        began = time.perf_counter()
        rescored = rescore_run(source, chosen)
    seconds = time.perf_counter() - began
    if out is not None:
        write_rescored(source, {name: after for name, (_, after) in rescored.items()}, out)
    summary = _summary(rescored)
    if json:
        for record in summary.to_dict("records"):
            print_json({key: None if value != value else value for key, value in record.items()})
        return
    _print(summary, reward)
    attempts = sum(len(after) for _, after in rescored.values())
    patches = len({(row["task_digest"], row["patch_digest"]) for _, after in rescored.values() for row in after})
    stderr().print(f"{attempts:,} attempts, {patches:,} distinct patches, {seconds:.2f} s", style="dim")


def _summary(rescored: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> pd.DataFrame:
    """One row per policy and temperature: attempts, mean reward before and after, number of unscored attempts."""
    import pandas as pd

    rows = pd.DataFrame(
        {
            "policy": policy,
            "temperature": new["temperature"],
            "before": old["reward"],
            "after": new["reward"],
            "unscored": new["reward"] is None,
        }
        for policy, (before, after) in rescored.items()
        for old, new in zip(before, after, strict=True)
    )
    rows[["before", "after"]] = rows[["before", "after"]].astype(float)
    grouped = rows.groupby(["policy", "temperature"], sort=False)
    return grouped.agg(
        attempts=("after", "size"), before=("before", "mean"), after=("after", "mean"), unscored=("unscored", "sum")
    ).reset_index()


def _print(summary: pd.DataFrame, name: str) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"mean reward, now {name}", title_justify="left")
    table.add_column("policy")
    for column in ("temperature", "attempts", "before", "after", "unscored"):
        table.add_column(column, justify="right")
    for row in summary.itertuples():
        temperature = "greedy" if row.temperature == 0 else f"{row.temperature:g}"
        table.add_row(
            str(row.policy), temperature, str(row.attempts), f"{row.before:.3f}", f"{row.after:.3f}", str(row.unscored)
        )
    stdout().print(table)
