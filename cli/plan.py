"""`regrade evaluate plan`: how many tasks and attempts it takes to see a difference, before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli.console import print_json, stderr, stdout
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import plural

if TYPE_CHECKING:
    from regrade.evaluators.analysis.sample_size import Spread

ATTEMPTS = (1, 2, 4, 8)


def plan(
    run: Annotated[
        Path | None, typer.Argument(help="A stored run (or a .jsonl file), whose discordance is used; or none.")
    ] = None,
    other: Annotated[
        Path | None, typer.Argument(help="The other run or file, if the candidate is not in the first.")
    ] = None,
    effect: Annotated[float, typer.Option(help="The true difference to see; 0.05 is 5 points.")] = 0.05,
    discordance: Annotated[
        float | None,
        typer.Option(help="Without a run: the share of tasks on which exactly one of the two policies succeeds."),
    ] = None,
    by_chance: Annotated[
        float | None,
        typer.Option(help="Without a run: that share between the baseline and itself with another seed."),
    ] = None,
    design_effect: Annotated[
        float | None, typer.Option(help="How much tasks of one place resemble each other; 1: not at all.")
    ] = None,
    margin: Annotated[float, typer.Option(help="How much worse the other measure may be.")] = 0.02,
    power: Annotated[float, typer.Option(help="Probability of seeing the difference if it is there.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Probability of seeing one if there is none.")] = 0.05,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="The other way round: what is seen with so many tasks?")
    ] = None,
    attempts: Annotated[
        list[int] | None, typer.Option(min=1, help="Attempts at each task; repeat for several. Default: 1, 2, 4, 8.")
    ] = None,
    baseline_policy: Annotated[str | None, typer.Option(help="Policy of the stored run's baseline.")] = None,
    candidate_policy: Annotated[str | None, typer.Option(help="Policy to hold against it.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the stored run; default: each policy's best.")] = None,
    declare: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="A run that has not begun: write the margin and the plan into it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say how many tasks it takes to see a difference.

    From the discordance of a stored run, `regrade evaluate plan RUN`, or an assumed one, `--discordance 0.1`.
    """
    from regrade.evaluators.analysis import sample_size

    if run is None:
        spreads = {"assumed": _assumed(discordance, by_chance, design_effect)}
    else:
        if discordance is not None or by_chance is not None:
            raise UserError("give a stored run or --discordance, not both: a run's discordance is measured")
        spreads = _measured(run, other, baseline_policy, candidate_policy, temperature, design_effect)
    tried = tuple(attempts or ATTEMPTS) if any(x.by_chance is not None for x in spreads.values()) else (1,)
    if attempts and tried == (1,) and attempts != [1]:
        stderr().print(
            "note: what several attempts at a task are worth is not known: give --by-chance, or a run with several",
            markup=False,
        )
    levels = {"power": power, "alpha": alpha}
    found: dict[str, Any] = {"effect": abs(effect), "margin": margin, **levels, "measures": {}}
    for name, spread in spreads.items():
        by_attempts: dict[str, dict[str, int | float | None]] = {}
        for k in tried:
            by_attempts[str(k)] = {
                "tasks": sample_size.tasks_needed(spread, effect, attempts=k, **levels),
                "tasks_to_hold": sample_size.tasks_for_margin(spread, margin, attempts=k, **levels),
                "effect_seen": None
                if tasks is None
                else sample_size.smallest_effect(spread, tasks, attempts=k, **levels),
            }
        found["measures"][name] = {
            "discordance": spread.discordance,
            "by_chance": spread.by_chance,
            "design_effect": spread.design_effect,
            "attempts": by_attempts,
        }
    if declare is not None:
        _declare(declare, found)
    if json:
        print_json(found)
    else:
        _tell(found, tasks)


def _assumed(discordance: float | None, by_chance: float | None, design_effect: float | None) -> Spread:
    from regrade.evaluators.analysis.sample_size import Spread

    if discordance is None:
        raise UserError(
            "name a stored run to measure the discordance from, or assume one: --discordance 0.1 says that on a tenth "
            "of the tasks exactly one of the two policies will succeed"
        )
    return Spread(discordance, by_chance, 1.0 if design_effect is None else design_effect)


def _measured(
    run: Path,
    other: Path | None,
    baseline_policy: str | None,
    candidate_policy: str | None,
    temperature: float | None,
    design_effect: float | None,
) -> dict[str, Spread]:
    """Measure -> its spread in the stored run: between two policies, or between a single one and itself."""
    from dataclasses import replace

    from regrade.cli.compare import select
    from regrade.evaluators.analysis import sample_size
    from regrade.evaluators.analysis.differences import VERDICT_METRICS

    first = select(run, "baseline", baseline_policy, temperature)
    second = select(other or run, "candidate", candidate_policy, temperature)
    is_itself = other is None and first.equals(second)
    if is_itself:
        stderr().print("note: a single policy: its differences from itself are the least that there will be")
    spreads = {}
    for metric in VERDICT_METRICS:
        spread = sample_size.spread_within(first, metric) if is_itself else sample_size.spread_of(first, second, metric)
        if spread is not None:
            spreads[metric.name] = spread if design_effect is None else replace(spread, design_effect=design_effect)
    if not spreads:
        why = "has one attempt at each task, or always the same outcome" if is_itself else "and the other never differ"
        raise UserError(f"{run} {why}: nothing can be measured; give --discordance instead")
    return spreads


def _declare(folder: Path, plan: dict[str, Any]) -> None:
    from regrade.evaluators.storage.run import Run

    run = Run(folder)
    begun = [name for name in run.manifest.policies if run.evaluation(name).exists()]
    if begun:
        raise UserError(
            f"{folder}: {', '.join(map(repr, begun))} {plural(len(begun), 'was', 'were')} evaluated already, and a "
            "margin is declared before that: declare it in a new run"
        )
    run.update(configuration={"comparison": {key: plan[key] for key in ("effect", "margin", "power", "alpha")}})


def _tell(found: dict[str, Any], tasks: int | None) -> None:
    from rich.table import Table

    console = stdout()
    levels = f"probability {found['power']:g}, two-sided {100 * found['alpha']:g} %"
    console.print(
        f"Tasks to see a difference of {100 * found['effect']:g} points, and to show that one is not "
        f"{100 * found['margin']:g} points worse ({levels})",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    headings = ["", "discordance", "by chance", "design effect", "attempts", "tasks to see it", "tasks to hold"]
    for heading in [*headings, *([] if tasks is None else [f"seen with {tasks} tasks"])]:
        table.add_column(heading, justify="left" if not heading else "right")
    for name, measure in found["measures"].items():
        chance = "unknown" if measure["by_chance"] is None else f"{100 * measure['by_chance']:.1f} %"
        head = [name, f"{100 * measure['discordance']:.1f} %", chance, f"{measure['design_effect']:.2f}"]
        for attempts, each in measure["attempts"].items():
            seen = each["effect_seen"]
            last = [] if tasks is None else ["none" if seen is None else f"{100 * seen:.1f} points"]
            table.add_row(*head, attempts, f"{each['tasks']:,}", f"{each['tasks_to_hold']:,}", *last)
            head = [""] * len(head)
    console.print(table)
