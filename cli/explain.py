"""`regrade explain`: the contributions to a score, of a patch or of an attempt recorded in a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli import options
from regrade.cli.console import print_json, stdout
from regrade.cli.jobs import AttributionOptions
from regrade.cli.score import show
from regrade.cli.scoring_options import ScoringOptions
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from regrade.cli.jobs import ScoreRequest
    from regrade.datasets.episodes import Episode
    from regrade.evaluators.attribution.results import Attribution
    from regrade.evaluators.storage.step_effects import StepEffect
    from regrade.rewards.breakdown import Breakdown


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(ScoringOptions):
    """The arguments and options of the command; None: not given."""

    source: Annotated[
        str, typer.Argument(metavar="PATCH|RUN", help="A patch file, the folder of a run, or a .jsonl file of rows.")
    ]
    task_id: Annotated[
        list[str] | None, typer.Argument(metavar="TASK_ID", help="For a run: the task of the attempt.")
    ] = None
    policy: Annotated[str | None, typer.Option(help="For a run: the policy. Default: the candidate.")] = None
    temperature: Annotated[float | None, typer.Option(help="For a run: temperature. Default: the policy's best.")] = (
        None
    )
    sample: Annotated[int, typer.Option(min=0, help="For a run: number of the attempt at the task.")] = 0
    hunks: Annotated[
        bool, typer.Option("--hunks", help="Attribute the score to the hunks of the patch, by scoring parts of it.")
    ] = False
    fine: Annotated[bool, typer.Option("--fine", help="With --hunks: split hunks at unchanged lines.")] = False
    budget: Annotated[
        int, typer.Option(min=8, max=options.MOST, help="With --hunks: maximum number of scored parts.")
    ] = 256
    seed: Annotated[
        int, typer.Option(min=0, max=options.LARGEST_SEED, help="With --hunks: seed of the sampled parts.")
    ] = 0
    observations: Annotated[
        bool, typer.Option("--observations", help="For an attempt of an agent: also what each of its steps showed.")
    ] = False
    json: options.JsonObject = False
    html: Annotated[bool, typer.Option("--html", help="One HTML section on stdout, for use in any page.")] = False


@options.takes(ExplainOptions)
def explain(given: ExplainOptions) -> None:
    """Explain a score: contributions with reasons.

    The contributions of the tree add up to the score. A patch that was scored before is explained from stored evidence,
    without a run of its tests.
    """
    if given.json and given.html:
        raise UserError("--json and --html exclude each other: give one of them")
    if given.observations and (given.json or given.html):
        raise UserError("--observations is for the terminal: --json has them anyway, and --html has no steps")
    if given.fine and not given.hunks:
        raise UserError("--fine needs --hunks: give both, or neither")
    request, source = given.request(), given.source
    settings = AttributionOptions(given.fine, given.budget, given.seed) if given.hunks else None
    attempts = given.task_id or []
    if Path(source).is_dir() or source.endswith(".jsonl"):
        if len(attempts) > 1:
            raise UserError(f"one attempt at a time: give the task {attempts[0]!r} or {attempts[1]!r}")
        task = next(iter(attempts), None)
        row = recorded_attempt(Path(source), task, given.policy, given.temperature, given.sample)
        explained = _of_attempt(Path(source), row, request, settings)
    elif attempts:
        raise UserError(_one_patch(source, attempts[0]))
    else:
        explained = _of_patch(source, request, settings)
    _show(explained, given.json, given.html, given.observations)


@dataclass(frozen=True)
class ExplainedScore:
    """A score with its breakdown, and its attribution to hunks if requested."""

    title: str
    breakdown: Breakdown
    notes: tuple[str, ...] = ()
    attribution: Attribution | None = None
    episode: Episode | None = None
    """The steps of an agent's attempt."""
    effects: tuple[StepEffect, ...] | None = None
    """Of its changes on the full tests; None: not measured."""


def _show(explained: ExplainedScore, json: bool, html: bool, observations: bool) -> None:
    if html:
        from regrade.reports.explanation import explanation_html

        typer.echo(explanation_html(explained.breakdown, explained.title, explained.attribution))
    elif json and (explained.attribution or explained.episode):
        breakdown, notes = explained.breakdown, list(explained.notes)
        whole = {"of": explained.title, **breakdown.to_json(), "not_excluded": breakdown.not_excluded, "notes": notes}
        hunks = {"hunks": explained.attribution.to_json()} if explained.attribution else {}
        print_json({**whole, **hunks, **_episode_json(explained)})
    else:
        show(explained.breakdown, json, explained.notes, of=explained.title)
        if explained.attribution is not None:
            from regrade.reports.hunks import print_attribution

            print_attribution(explained.attribution, stdout())
        if explained.episode is not None:
            from regrade.reports.trajectories import print_trajectory, trajectory_view

            view = trajectory_view(explained.episode, explained.effects)
            print_trajectory(view, stdout(), with_observations=observations)


def _episode_json(explained: ExplainedScore) -> dict[str, Any]:
    from msgspec import to_builtins

    from regrade.datasets.episode_json import StoredEpisode

    if explained.episode is None:
        return {}
    return {"episode": StoredEpisode.of(explained.episode).to_json(), "effects": to_builtins(explained.effects)}


def _of_patch(source: str, request: ScoreRequest, settings: AttributionOptions | None) -> ExplainedScore:
    from regrade.cli.jobs import attribute_file, score_files

    if settings is None:
        (result,), attribution = score_files([source], request), None
    else:
        result, attribution = attribute_file(source, request, settings)
    assert result.breakdown is not None  # the only patch is never put aside
    return ExplainedScore(result.source, result.breakdown, result.notes, attribution)


def _of_attempt(
    source: Path, row: pd.Series, request: ScoreRequest, settings: AttributionOptions | None
) -> ExplainedScore:
    title, breakdown = breakdown_of_attempt(source, row)
    episode, effects = _steps_of_attempt(source, row)
    if settings is None:
        return ExplainedScore(title, breakdown, episode=episode, effects=effects)
    from regrade.cli.jobs import attribute_attempt

    of_task = replace(request, task=row["task"], fail_to_pass=())
    attribution = attribute_attempt(row["patch"], row["task_digest"], of_task, settings)
    notes = _store_for_report(source, row, attribution, request.reward) if source.is_dir() else ()
    return ExplainedScore(title, breakdown, notes, attribution, episode, effects)


def _steps_of_attempt(source: Path, row: pd.Series) -> tuple[Episode | None, tuple[StepEffect, ...] | None]:
    """The episode of an attempt, and the effects of its changes, if they are stored."""
    from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path
    from regrade.evaluators.storage.run import Run
    from regrade.evaluators.storage.step_effects import load_steps, steps_path
    from regrade.reports.trajectories import effects_for

    rows = Run.open(source).evaluation(row["policy"]) if source.is_dir() else source
    values = {str(name): value for name, value in row.items()}
    episode = EpisodeFile(episodes_path(rows)).get(values)
    return episode, effects_for(values, load_steps(steps_path(rows))) if episode else None


def _store_for_report(run: Path, row: pd.Series, attribution: Attribution, reward: str) -> tuple[str, ...]:
    """Store the attribution for the run's report. Returns a note if the run cannot be written."""
    from regrade.reports.attribution_store import store_attribution
    from regrade.reports.hunks import attribution_view

    view = attribution_view(attribution)
    with_reward = replace(view, remarks=(*view.remarks, f"The reward is {reward!r}."))
    try:
        store_attribution(run, row["task"], row["patch_digest"], with_reward)
    except OSError as error:
        return (f"not stored for the run's report: {error.strerror or error}: {run}; make it writable and repeat",)
    return ()


def _one_patch(source: str, second: str) -> str:
    """The error message for two arguments of which the first is not a run."""
    if Path(second).exists() or second == "-" or second.endswith((".diff", ".patch")):
        return (
            f"one patch at a time, and {second!r} is a second one: explain each alone, or use `regrade score "
            f"{source} {second}`, which prints the same trees"
        )
    return f"{source!r} is not a run, so it has no attempt at {second!r}; for a patch, give the task with --task"


def recorded_attempt(
    source: Path, task_id: str | None, policy: str | None, temperature: float | None, sample: int
) -> pd.Series:
    """The row of one attempt. Raises UserError if there is no such attempt."""
    from regrade.cli.compare import select

    return _attempt(select(source, "candidate", policy, temperature, "--policy"), source, task_id, sample)


def breakdown_of_attempt(source: Path, row: pd.Series) -> tuple[str, Breakdown]:
    """The title of an attempt, and its recorded breakdown."""
    from regrade.evaluators.storage.run import Run
    from regrade.reports.assurance import level_of
    from regrade.rewards.assurance import BY_DEFAULT
    from regrade.rewards.assurance_level import AssuranceLevel
    from regrade.rewards.breakdown import Breakdown

    of_run = Run.open(source).manifest.assurance if source.is_dir() else ""
    level = level_of(row["parts"]) if row["fixed"] else ""
    assurance = level or (AssuranceLevel.IN_PROCESS if of_run == BY_DEFAULT else of_run)
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
    tasks = rows["task"].unique()
    if task_id is None and len(tasks) == 1:
        task_id = tasks[0]
    if task_id is None or task_id not in tasks:
        problem = "give TASK_ID" if task_id is None else f"no attempt at task {task_id!r}"
        raise UserError(f"{source}: {problem}; there are attempts at {len(tasks)} tasks, for example {tasks[0]!r}")
    attempts = rows[(rows["task"] == task_id) & (rows["sample"] == sample)]
    if attempts.empty:
        samples = sorted(int(number) for number in rows[rows["task"] == task_id]["sample"].unique())
        raise UserError(f"{source}: task {task_id!r} has no sample {sample}; it has {', '.join(map(str, samples))}")
    return attempts.iloc[0]


def _number(value: float) -> float | None:
    return None if value != value else float(value)  # NaN: unscored
