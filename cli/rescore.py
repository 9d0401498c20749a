"""`regrade rescore`: another reward for a run that is over, from its kept evidence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli.console import asides, print_json, stderr, stdout

if TYPE_CHECKING:
    import pandas as pd


def rescore(
    run: Annotated[Path, typer.Argument(help="A run's folder, from `regrade evaluate` or `regrade demo`.")],
    reward: Annotated[str, typer.Option(help="The reward to give: a built-in name, or FILE:NAME.")],
    out: Annotated[
        Path | None, typer.Option(help="Write a copy of the run with the new rewards here, for `report` and `compare`.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON per policy and temperature.")] = False,
) -> None:
    """Reward a stored run anew, without running anything.

    The evidence of every attempt was kept; a reward is a pure function of it. The run itself stays as it is.
    """
    from regrade.evaluators.evaluation.rescoring import rescore_run, write_rescored
    from regrade.evaluators.storage.run import Run
    from regrade.rewards.loading import load_reward

    with asides():
        chosen, source = load_reward(reward), Run.open(run)
        began = time.perf_counter()
        found = rescore_run(source, chosen)
    seconds = time.perf_counter() - began
    if out is not None:
        write_rescored(source, {name: after for name, (_, after) in found.items()}, out)
    summary = _summary(found)
    if json:
        for record in summary.to_dict("records"):
            print_json({key: None if value != value else value for key, value in record.items()})
        return
    _print(summary, reward)
    attempts = sum(len(after) for _, after in found.values())
    patches = len({(row["task_digest"], row["patch_digest"]) for _, after in found.values() for row in after})
    stderr().print(f"{attempts:,} attempts, {patches:,} different patches of tasks, {seconds:.2f} s", style="dim")


def _summary(found: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> pd.DataFrame:
    """A row per policy and temperature: attempts, mean reward before and after, unscored ones."""
    import pandas as pd

    rows = pd.DataFrame(
        {
            "policy": policy, "temperature": new["temperature"],
            "before": old["reward"], "after": new["reward"], "unscored": new["reward"] is None,
        }
        for policy, (before, after) in found.items()
        for old, new in zip(before, after, strict=True)
    )  # fmt: skip
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
