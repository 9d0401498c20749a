"""`regrade explain`: where a score came from, for a patch or for an attempt recorded in a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regrade.cli.console import print_json, stdout
from regrade.cli.options import (
    AssuranceOption,
    FailToPass,
    Repo,
    RewardModelFolder,
    RewardName,
    SandboxName,
    TaskFile,
    TaskId,
    TimeLimit,
)
from regrade.cli.score import show
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from regrade.cli.jobs import ScoreRequest, Sharing
    from regrade.evaluators.attribution.results import Attribution
    from regrade.rewards.breakdown import Breakdown


def explain(
    source: Annotated[
        str, typer.Argument(metavar="PATCH|RUN", help="A patch file, or a run's folder or a .jsonl file of rows.")
    ],
    task_id: Annotated[
        list[str] | None, typer.Argument(metavar="TASK_ID", help="Of a run: the task whose attempt to explain.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Of a run: the policy; default: the run's candidate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of a run: default is the policy's best.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Of a run: which of the attempts at the task.")] = 0,
    repo: Repo = Path(),
    fail_to_pass: FailToPass = None,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    tasks: TaskFile = None,
    task: TaskId = None,
    reward_model: RewardModelFolder = None,
    time_limit: TimeLimit = 600.0,
    assured: AssuranceOption = None,
    hunks: Annotated[
        bool, typer.Option("--hunks", help="Share the score out among the hunks of the patch, by scoring parts of it.")
    ] = False,
    fine: Annotated[
        bool, typer.Option("--fine", help="With --hunks: take hunks apart too, wherever a line between changes stays.")
    ] = False,
    budget: Annotated[int, typer.Option(min=8, help="With --hunks: score at most so many parts of the patch.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="With --hunks: seed of the parts that are sampled.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    html: Annotated[bool, typer.Option("--html", help="One HTML section on stdout, to be put into any page.")] = False,
) -> None:
    """Show where a score came from, part by part.

    The contributions of the tree add up to the score, each with its reason.

    A patch that was scored before is explained from stored evidence: no test is run again.
    """
    if json and html:
        raise UserError("--json and --html are two forms of one answer: choose one")
    if fine and not hunks:
        raise UserError("--fine is about --hunks: give both, or neither")
    from regrade.cli.jobs import ScoreRequest, Sharing

    wanted = tuple(fail_to_pass or ())
    request = ScoreRequest(
        repo=repo,
        fail_to_pass=wanted,
        tasks=tasks,
        task=task,
        reward=reward,
        sandbox=sandbox,
        workers=None,
        reachable=False,
        reward_model=reward_model,
        time_limit=time_limit,
        assured=assured,
    )
    sharing = Sharing(fine, budget, seed) if hunks else None
    attempts = task_id or []
    if Path(source).is_dir() or source.endswith(".jsonl"):
        if len(attempts) > 1:
            raise UserError(f"one attempt is explained at a time: name the task {attempts[0]!r} or {attempts[1]!r}")
        row = recorded(Path(source), next(iter(attempts), None), policy, temperature, sample)
        explained = _of_attempt(Path(source), row, request, sharing)
    elif attempts:
        raise UserError(_one_patch(source, attempts[0]))
    else:
        explained = _of_patch(source, request, sharing)
    _show(explained, json, html)


@dataclass(frozen=True)
class Explained:
    """What is known of one score."""

    title: str
    breakdown: Breakdown
    notes: tuple[str, ...] = ()
    attribution: Attribution | None = None


def _show(found: Explained, json: bool, html: bool) -> None:
    if html:
        from regrade.reports.explanation import explanation_html

        typer.echo(explanation_html(found.breakdown, found.title, found.attribution))
    elif found.attribution is None:
        show(found.breakdown, json, found.notes, of=found.title)
    elif json:
        whole = {"of": found.title, **found.breakdown.to_json(), "notes": list(found.notes)}
        print_json({**whole, "hunks": found.attribution.to_json()})
    else:
        from regrade.reports.hunks import print_attribution

        show(found.breakdown, json, found.notes, of=found.title)
        print_attribution(found.attribution, stdout())


def _of_patch(source: str, request: ScoreRequest, sharing: Sharing | None) -> Explained:
    from regrade.cli.jobs import attribute_file, score_files

    if sharing is None:
        (result,), attribution = score_files([source], request), None
    else:
        result, attribution = attribute_file(source, request, sharing)
    assert result.breakdown is not None  # the only patch is never put aside
    return Explained(result.source, result.breakdown, result.notes, attribution)


def _of_attempt(source: Path, row: pd.Series, request: ScoreRequest, sharing: Sharing | None) -> Explained:
    title, breakdown = described(source, row)
    if sharing is None:
        return Explained(title, breakdown)
    from regrade.cli.jobs import attribute_attempt

    of_task = replace(request, task=row["task"], fail_to_pass=())
    attribution = attribute_attempt(row["patch"], row["task_digest"], of_task, sharing)
    notes = _keep(source, row, attribution, request.reward) if source.is_dir() else ()
    return Explained(title, breakdown, notes, attribution)


def _keep(run: Path, row: pd.Series, attribution: Attribution, reward: str) -> tuple[str, ...]:
    """Keep it for the run's report. Returns a note where the run can't be written: the answer is shown in any case."""
    from regrade.reports.attribution_store import store_attribution
    from regrade.reports.hunks import attribution_view

    view = attribution_view(attribution)
    told = replace(view, remarks=(*view.remarks, f"The reward is {reward!r}."))
    try:
        store_attribution(run, row["task"], row["patch_digest"], told)
    except OSError as error:
        return (f"not kept for the run's report: {error.strerror or error}: {run}; make it writable and ask again",)
    return ()


def _one_patch(source: str, second: str) -> str:
    """What is wrong with two arguments of which the first is no run."""
    if Path(second).exists() or second == "-" or second.endswith((".diff", ".patch")):
        return (
            f"one patch is explained at a time, and {second!r} is a second one: explain each by itself, or use "
            f"`regrade score {source} {second}`, which prints the same tree of each"
        )
    return f"{source!r} is no run, so it has no attempt at {second!r}; for a patch name the task by --task"


def recorded(
    source: Path, task_id: str | None, policy: str | None, temperature: float | None, sample: int
) -> pd.Series:
    """The row of one attempt. Raises UserError if there is no such attempt."""
    from regrade.cli.compare import select

    return _attempt(select(source, "candidate", policy, temperature, "--policy"), source, task_id, sample)


def described(source: Path, row: pd.Series) -> tuple[str, Breakdown]:
    """The name of an attempt, and what its score came from as it was recorded."""
    from regrade.evaluators.storage.run import Run
    from regrade.rewards.breakdown import Breakdown

    assurance = Run.open(source).manifest.assurance if source.is_dir() else ""
    record = {
        "value": _number(row["reward"]),
        "status": row["status"],
        "cause": row["cause"] or None,
        "parts": row["parts"],
    }
    attempt = f"temperature {row['temperature']:g}, sample {row['sample']}, seed {row['seed']}"
    name = f"{row['policy']} on {row['task']}, {attempt}"
    return name, Breakdown.from_json({**record, "assurance": assurance or "not recorded"})


def _attempt(rows: pd.DataFrame, source: Path, task_id: str | None, sample: int) -> pd.Series:
    known = rows["task"].unique()
    if task_id is None and len(known) == 1:
        task_id = known[0]
    if task_id is None or task_id not in known:
        wanted = "which task?" if task_id is None else f"no attempt at task {task_id!r};"
        raise UserError(f"{source}: {wanted} it holds attempts at {len(known)} tasks, such as {known[0]!r}")
    found = rows[(rows["task"] == task_id) & (rows["sample"] == sample)]
    if found.empty:
        samples = sorted(int(number) for number in rows[rows["task"] == task_id]["sample"].unique())
        raise UserError(f"{source}: task {task_id!r} has no sample {sample}; it has {', '.join(map(str, samples))}")
    return found.iloc[0]


def _number(value: float) -> float | None:
    return None if value != value else float(value)  # NaN stands for unscored in a table
