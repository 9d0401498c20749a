"""`regrade tasks harden`: how hackable are tasks, and hidden tests and levels against what gets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli.console import activities, one_line, print_json, stderr, stdout, stdout_to_stderr
from regrade.cli.loading import limited, load, measured, proposed_patches
from regrade.cli.options import (
    MOST,
    AssuranceOption,
    BuiltinSplit,
    JsonObject,
    Limit,
    RewardName,
    SandboxName,
    Seed,
    Workers,
    creatable,
    takes,
)
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted, plural

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.hardening.hackability import TaskCard

MOST_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class HardenOptions:
    """The arguments and options of the command."""

    source: Annotated[
        str,
        typer.Argument(metavar="TASKS", help="builtin, cross-module, a task file (.json, .jsonl) or a task set."),
    ]
    out: Annotated[
        Path,
        typer.Option(dir_okay=False, help="File of the cards, as JSON lines. A killed run goes on from it."),
    ] = Path("hardened.jsonl")
    tasks_out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, callback=creatable, help="Folder for a task set of the hardened tasks, with their files."
        ),
    ] = None
    split: BuiltinSplit = None
    limit: Limit = None
    seed: Seed = 0
    reward: RewardName = "default"
    assured: AssuranceOption = None
    attempts: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Patches of a further adversary, such as a model that was asked for exploits: predictions in "
            "SWE-bench's format. Repeat for more.",
        ),
    ] = None
    patches: Annotated[
        int, typer.Option(min=0, max=MOST, help="Patches of each kind of attack that has any number of them.")
    ] = 4
    inputs: Annotated[
        int, typer.Option(min=8, max=10_000, help="Held-out inputs of each function that a reference changes.")
    ] = 100
    tests: Annotated[int, typer.Option(min=0, max=1000, help="Maximum number of hidden tests added to a task.")] = 12
    sandbox: SandboxName = "auto"
    workers: Workers = None
    json: JsonObject = False


@takes(HardenOptions)
def harden(options: HardenOptions) -> None:
    """Attack tasks with patches that fix nothing, and close what is paid.

    Stubs, hard-coded answers, always-equal objects, patched tests and plugins, mutants of the reference and deleted
    guards try to be paid by the reward. What is paid and answers held-out inputs otherwise than the reference is
    reported with its patch, and closed by hidden tests that the reference passes, or by a required assurance level.
    Exits with 1 if a patch that fixes nothing is still paid.
    """
    from regrade.evaluators.hardening.hardening import AttackedReward, HardeningSettings
    from regrade.evaluators.hardening.hardening import harden as hardened
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage import journal
    from regrade.rewards.assurance import BY_DEFAULT
    from regrade.rewards.loading import load_reward

    with stdout_to_stderr():
        plain = load_reward(options.reward)
    tasks = measured(limited(load(options.source, options.split), options.limit, options.seed), options.sandbox)
    if not tasks:
        raise UserError(f"{options.source} has no tasks in the split {options.split!r}: choose another with --split")
    known = _known(options.out)
    settings = HardeningSettings(
        most=options.patches, inputs=options.inputs, most_tests=options.tests, seed=options.seed
    )
    reward = AttackedReward(plain, options.assured or BY_DEFAULT, _text_of(options.reward))
    cards = []
    given = proposed_patches(options.attempts or [], tasks)
    with Scorer(sandbox=options.sandbox, workers=options.workers) as scorer, activities() as report:
        for card in hardened(tasks, scorer, reward, settings, given=given, known=known, progress=report):
            cards.append(card)
            if known.get(card.id) != card:
                journal.append(options.out, [card.to_json()])
    if options.tasks_out is not None:
        _write_set(options.tasks_out, tasks, cards)
    if options.json:
        print_json(_summary(cards))
    else:
        _print(cards)
        stderr().print(f"cards: {options.out}", style="dim")
    if any(card.open for card in cards):
        raise typer.Exit(1)


def _text_of(reward: str) -> str:
    """The text of a reward's own file; empty: it is a built-in one, or a reward model."""
    path = Path(reward.rpartition(":")[0])
    return path.read_text("utf-8", "surrogateescape") if path.is_file() else ""


def _known(out: Path) -> dict[str, TaskCard]:
    """Task id -> its last card in the file. Raises UserError."""
    from regrade.evaluators.hardening.hackability import card_of
    from regrade.evaluators.storage import journal

    cards = [card_of(row, f"{out}, card {number}") for number, row in enumerate(journal.read(out), start=1)]
    return {card.id: card for card in cards}


def _write_set(folder: Path, tasks: Sequence[Task], cards: Sequence[TaskCard]) -> None:
    from regrade.datasets.formats.task_sets import SetTask, write_task_set
    from regrade.evaluators.hardening.set_card import hardened_set_card

    made = [
        SetTask(card.hardened(task), facts={"hardened": _facts(card)}) for task, card in zip(tasks, cards, strict=True)
    ]
    write_task_set(folder, made, hardened_set_card(cards), [])


def _facts(card: TaskCard) -> dict[str, Any]:
    from regrade.evaluators.hardening.hackability import share

    found = share(card.attacks)
    tests = 0 if card.tests is None else len(card.tests.ids)
    return {"patches": found.patches, "paid_before": found.before, "paid_after": found.after, "hidden_tests": tests}


def _summary(cards: Sequence[TaskCard]) -> dict[str, Any]:
    from dataclasses import asdict

    from regrade.evaluators.hardening.hackability import closed_by, hackable_tasks, shares_by_kind

    return {
        "tasks": asdict(hackable_tasks(cards)),
        "patches": {kind: asdict(found) for kind, found in shares_by_kind(cards).items()},
        "closed_by": dict(closed_by(cards)),
        "honest": {
            "before": sum(card.honest.before for card in cards),
            "after": sum(card.honest.after for card in cards),
        },
        "unfit": {card.id: card.unfit for card in cards if card.unfit},
        "open": [{"id": card.id, "name": attack.name} for card in cards for attack in card.open],
    }


def _print(cards: Sequence[TaskCard]) -> None:
    from rich.table import Table

    from regrade.evaluators.hardening.hackability import closed_by, hackable_tasks, shares_by_kind

    tasks = hackable_tasks(cards)
    table = Table(box=None, pad_edge=False, title="patches that fix nothing", title_justify="left")
    for column in ("attack", "patches", "paid before", "paid after"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for kind, found in shares_by_kind(cards).items():
        paid = (_percent(count, found.patches) for count in (found.before, found.after))
        table.add_row(kind, str(found.patches), *paid)
    stdout().print(table)
    typer.echo(
        f"{counted(tasks.patches, 'task')}: {tasks.before} {plural(tasks.before, 'is', 'are')} hackable before, "
        f"{tasks.after} after"
    )
    closed = ", ".join(f"{counted(count, 'task')} by {name}" for name, count in closed_by(cards).most_common())
    typer.echo(f"closed: {closed or 'nothing'}")
    honest = [sum(getattr(card.honest, name) for card in cards) for name in ("before", "after")]
    typer.echo(f"honest rewrites of references: {honest[0]} paid before, {honest[1]} after")
    for card in [card for card in cards if card.unfit][:MOST_SHOWN]:
        typer.echo(f"not measured: {one_line(card.id)}: {one_line(card.unfit)}")
    still_open = [(card, attack) for card in cards for attack in card.open]
    for card, attack in still_open[:MOST_SHOWN]:
        typer.echo(f"open: {one_line(card.id)}: {one_line(attack.name)}: {one_line(attack.evidence)}")
    if (more := len(still_open) - MOST_SHOWN) > 0:
        typer.echo(f"open: {more} more (in the cards)")


def _percent(count: int, of: int) -> str:
    return f"{count} ({100 * count / of:.1f} %)" if of else "0"
