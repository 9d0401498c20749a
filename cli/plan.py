"""`regrade evaluate plan`: the number of tasks and attempts that a difference needs, before an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli.console import print_json, stderr, stdout
from regrade.cli.options import MOST, BaselinePolicy, CandidatePolicy, JsonObject, RunTemperature, creatable, takes
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import plural

if TYPE_CHECKING:
    from regrade.evaluators.analysis.sample_size import Spread

ATTEMPTS = (1, 2, 4, 8)
RUNS = (1, 3, 5)


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The arguments and options of the command; None: not given."""

    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Folder of a run, or a .jsonl file of evaluation rows: measures the discordance."
        ),
    ] = None
    other: Annotated[
        Path | None, typer.Argument(metavar="OTHER", help="Run or file of the candidate. Default: RUN.")
    ] = None
    effect: Annotated[float, typer.Option(help="True difference to detect; 0.05 means 5 points.")] = 0.05
    discordance: Annotated[
        float | None,
        typer.Option(help="Without a run: the share of tasks on which exactly one of the two policies succeeds."),
    ] = None
    by_chance: Annotated[
        float | None,
        typer.Option(help="Without a run: the same share between the baseline and itself with another seed."),
    ] = None
    design_effect: Annotated[
        float | None, typer.Option(help="Design effect of similar tasks; 1: the tasks are independent.")
    ] = None
    between_runs: Annotated[
        float | None,
        typer.Option(
            help="Without several runs in RUN: standard deviation of a policy's rate from run to run, beyond chance; "
            "0.03 means 3 points."
        ),
    ] = None
    runs: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MOST, help="Runs of each policy. Repeat for more. Default: 1, 3 and 5 if runs differ."),
    ] = None
    margin: Annotated[float, typer.Option(help="Tolerated loss in the other metric.")] = 0.02
    power: Annotated[float, typer.Option(help="Probability of detecting the difference if it exists.")] = 0.8
    alpha: Annotated[float, typer.Option(help="Probability of a false detection (two-sided).")] = 0.05
    tasks: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Also print the difference that this number of tasks detects.")
    ] = None
    attempts: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MOST, help="Attempts per task. Repeat for more. Default: 1, 2, 4 and 8."),
    ] = None
    baseline_policy: BaselinePolicy = None
    candidate_policy: CandidatePolicy = None
    temperature: RunTemperature = None
    declare: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, callback=creatable, help="Folder of a new run: write the margin and the plan into it."
        ),
    ] = None
    json: JsonObject = False


@takes(PlanOptions)
def plan(options: PlanOptions) -> None:
    """Plan the number of tasks needed to detect a difference.

    Uses the discordance measured in a run, `regrade evaluate plan RUN`, or an assumed one, `--discordance 0.1`.
    """
    spreads = _spreads(options)
    tried = tuple(options.attempts or ATTEMPTS) if any(x.by_chance is not None for x in spreads.values()) else (1,)
    if options.attempts and tried == (1,) and options.attempts != [1]:
        _note("the effect of several attempts per task is unknown: give --by-chance, or a run with several")
    if all(spread.between_runs is None for spread in spreads.values()):
        _note(
            "how much a policy differs from run to run is unknown, and taken as 0: evaluate each policy several times, "
            "or assume --between-runs"
        )
    planned = {
        "effect": abs(options.effect),
        "margin": options.margin,
        "power": options.power,
        "alpha": options.alpha,
        "measures": {name: _measure(spread, tried, options) for name, spread in spreads.items()},
    }
    if options.declare is not None:
        _declare(options.declare, planned)
    if options.json:
        print_json(planned)
    else:
        _print(planned, options.tasks)


def _note(text: str) -> None:
    stderr().print(f"note: {text}", markup=False)


def _spreads(options: PlanOptions) -> dict[str, Spread]:
    """Measure -> its spread: measured in a run, or assumed."""
    if options.run is None:
        return {"assumed": _assumed(options)}
    if options.discordance is not None or options.by_chance is not None:
        raise UserError("give a run or --discordance, not both: the discordance of a run is measured")
    return _measured(options.run, options)


def _measure(spread: Spread, tried: Sequence[int], options: PlanOptions) -> dict[str, Any]:
    """What the plan says of one measure: the spread, and the numbers of tasks by attempts and runs."""
    runs = tuple(options.runs or (RUNS if spread.between_runs else (1,)))
    by_attempts = {str(k): [_needed(spread, k, count, options) for count in runs] for k in tried}
    return {
        "discordance": spread.discordance,
        "by_chance": spread.by_chance,
        "design_effect": spread.design_effect,
        "between_runs": spread.between_runs,
        "attempts": {key: rows[0] for key, rows in by_attempts.items()},
        "runs": by_attempts,
    }


def _needed(spread: Spread, attempts: int, runs: int, options: PlanOptions) -> dict[str, int | float | None]:
    from regrade.evaluators.analysis.sample_size import smallest_effect, tasks_for_margin, tasks_needed

    def ask(question: Callable[..., Any], amount: float) -> Any:
        return question(spread, amount, attempts=attempts, runs=runs, power=options.power, alpha=options.alpha)

    return {
        "runs": runs,
        "tasks": ask(tasks_needed, options.effect),
        "tasks_to_hold": ask(tasks_for_margin, options.margin),
        "effect_seen": None if options.tasks is None else ask(smallest_effect, options.tasks),
    }


def _assumed(options: PlanOptions) -> Spread:
    from regrade.evaluators.analysis.sample_size import Spread

    if options.discordance is None:
        raise UserError(
            "no discordance: give a run to measure it, or assume one: --discordance 0.1 means that exactly one of the "
            "two policies succeeds on a tenth of the tasks"
        )
    design_effect = 1.0 if options.design_effect is None else options.design_effect
    return Spread(options.discordance, options.by_chance, design_effect, options.between_runs)


def _measured(run: Path, options: PlanOptions) -> dict[str, Spread]:
    """Metric -> its spread in the run, between two policies, or between a single policy and itself."""
    from regrade.cli.compare import select
    from regrade.evaluators.analysis import sample_size
    from regrade.evaluators.analysis.differences import VERDICT_METRICS

    first = select(run, "baseline", options.baseline_policy, options.temperature)
    second = select(options.other or run, "candidate", options.candidate_policy, options.temperature)
    is_itself = options.other is None and first.equals(second)
    if is_itself:
        _note("a single policy: its differences from itself are a lower bound")
    spreads = {}
    for metric in VERDICT_METRICS:
        spread = sample_size.spread_within(first, metric) if is_itself else sample_size.spread_of(first, second, metric)
        if spread is not None:
            assumed = {"design_effect": options.design_effect, "between_runs": options.between_runs}
            given = {name: value for name, value in assumed.items() if value is not None}
            spreads[metric.name] = replace(spread, **given)
    if not spreads:
        why = "one attempt per task, or always the same outcome" if is_itself else "the two policies never differ"
        raise UserError(f"{run}: nothing can be measured: {why}; give --discordance instead")
    return spreads


def _declare(folder: Path, plan: dict[str, Any]) -> None:
    from regrade.evaluators.storage.run import Run

    run = Run(folder)
    begun = [name for name in run.manifest.policies if run.evaluation(name).exists()]
    if begun:
        raise UserError(
            f"{folder}: {', '.join(map(repr, begun))} {plural(len(begun), 'was', 'were')} evaluated already, but "
            "a margin must be declared before: declare it in a new run"
        )
    run.update(configuration={"comparison": {key: plan[key] for key in ("effect", "margin", "power", "alpha")}})


def _print(planned: dict[str, Any], tasks: int | None) -> None:
    from rich.table import Table

    console = stdout()
    levels = f"power {planned['power']:g}, two-sided alpha {planned['alpha']:g}"
    console.print(
        f"Tasks to detect a difference of {100 * planned['effect']:g} points, and to exclude a loss of "
        f"{100 * planned['margin']:g} points ({levels})",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    headings = ["", "discordance", "by chance", "design effect", "attempts", "runs"]
    headings += ["tasks to detect", "tasks to exclude loss"]
    for heading in [*headings, *([] if tasks is None else [f"detected with {tasks} tasks"])]:
        table.add_column(heading, justify="left" if not heading else "right")
    for name, measure in planned["measures"].items():
        chance = "unknown" if measure["by_chance"] is None else f"{100 * measure['by_chance']:.1f} %"
        head = [name, f"{100 * measure['discordance']:.1f} %", chance, f"{measure['design_effect']:.2f}"]
        for attempts, by_runs in measure["runs"].items():
            for sizes in by_runs:
                effect = sizes["effect_seen"]
                last = [] if tasks is None else ["none" if effect is None else f"{100 * effect:.1f} points"]
                numbers = [_number(sizes[key]) for key in ("tasks", "tasks_to_hold")]
                table.add_row(*head, attempts, str(sizes["runs"]), *numbers, *last)
                head = [""] * len(head)
    console.print(table)


def _number(tasks: int | None) -> str:
    return "none suffice" if tasks is None else f"{tasks:,}"
