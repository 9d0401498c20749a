"""The card of a set of hardened tasks, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from regrade.evaluators.hardening.hackability import (
    TaskCard,
    closed_by,
    hackable_tasks,
    share,
    shares_by_kind,
)


def hardened_set_card(cards: Sequence[TaskCard]) -> str:
    """The text of the card: how hackable the tasks were before and are after, by kind of attack and by task."""
    tasks = hackable_tasks(cards)
    parts = [
        f"# {len(cards)} hardened tasks",
        f"Before, {tasks.before} of {tasks.patches} tasks paid for a patch that fixes nothing; after, {tasks.after}. "
        "A patch counts that is refused, or that answers held-out inputs otherwise than the reference.",
        "## By attack",
        _table(
            ("attack", "patches", "paid before", "paid after"),
            ((kind, found.patches, found.before, found.after) for kind, found in shares_by_kind(cards).items()),
        ),
        "Held back: patches that nothing was closed against.",
        "## Closed by",
        _table(("", "tasks"), sorted(closed_by(cards).items())),
        "## By task",
        _table(
            ("task", "patches", "paid before", "paid after", "hidden tests", "required level"),
            (_row(card) for card in cards),
        ),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _row(card: TaskCard) -> tuple[object, ...]:
    if card.unfit:
        return (f"`{card.id}`", card.unfit, "", "", "", "")
    found = share(card.attacks)
    tests = 0 if card.tests is None else len(card.tests.ids)
    return (f"`{card.id}`", found.patches, found.before, found.after, tests, card.assurance or "-")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'-|' * len(head)}", *lines]) if lines else ""
