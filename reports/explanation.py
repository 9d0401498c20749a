"""The breakdown of a score: the tree of contributions, for a terminal or as an HTML section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from regrade.datasets.visible_text import visible
from regrade.rewards.breakdown import Breakdown, Part, Role, arithmetic, rounded_shares

if TYPE_CHECKING:
    from regrade.evaluators.attribution.results import Attribution


def print_breakdown(breakdown: Breakdown, console: Console | None = None, *, title: str = "", cost: str = "") -> None:
    """Print the tree, in colour only on a terminal, and what its level does not exclude. (For machines:
    `Breakdown.to_json`.)

    Args:
        cost: of the assurance, in words.
    """
    console = console or Console()
    console.print(render_breakdown(breakdown, title, cost))
    if breakdown.is_scored and breakdown.not_excluded:
        console.print(breakdown.not_excluded, style="dim", markup=False, soft_wrap=True)


def render_breakdown(breakdown: Breakdown, title: str = "", cost: str = "") -> Tree:
    """Return the tree of a breakdown for a rich console. The contributions add up to the value at its root."""
    tree = Tree(_head(breakdown, title, cost), guide_style="dim")
    _grow(tree, breakdown.parts, breakdown.value)
    return tree


def explanation_html(breakdown: Breakdown, title: str = "", attribution: Attribution | None = None) -> str:
    """Return the tree as one `<section>` with its own style, for any page; all text is escaped.

    With an attribution, the patch follows: each hunk with its contribution to the score.
    """
    from regrade.reports.hunks import attribution_view
    from regrade.reports.templating import render

    hunks = attribution and attribution_view(attribution)
    return render("explanation.html", breakdown=breakdown, title=visible(title), attribution=hunks)


def _head(breakdown: Breakdown, title: str, cost: str) -> Text:
    head = Text(f"{visible(title)}  " if title else "", style="bold")
    if breakdown.value is None:
        head.append("unscored", style="bold magenta")
    else:
        head.append(f"{breakdown.value:.3f}", style=f"bold {_colour(breakdown.value)}")
    if breakdown.cause:
        head.append(f"  {visible(breakdown.cause)}", style="magenta" if breakdown.value is None else "red")
    head.append(f"  (assurance: {breakdown.assurance}{f', {cost}' if cost else ''})", style="dim")
    return head


def _grow(tree: Tree, parts: tuple[Part, ...], whole: float | None) -> None:
    contributions = rounded_shares([part.contribution for part in parts], whole)
    sums = [arithmetic(part, contribution) for part, contribution in zip(parts, contributions, strict=True)]
    width = max((len(_label(part)) for part in parts), default=0)
    numbers = max(map(len, sums), default=0)
    for part, contribution, shown in zip(parts, contributions, sums, strict=True):
        line = Text(f"{_label(part):<{width}}  ", style="bold" if part.role is Role.PART else "")
        line.append(f"{shown:<{numbers}}", style=_style(part))
        line.append(f"  {visible(part.why)}" if part.why else "", style="not bold default")
        _grow(tree.add(line), part.parts, contribution)


def _label(part: Part) -> str:
    return f"only if {part.name}" if part.role is Role.GATE else part.name


def _style(part: Part) -> str:
    if part.closes:
        return "bold red"
    if part.role is Role.ADJUSTMENT:
        return "yellow"
    return "dim" if part.value is None else _colour(part.value)


def _colour(value: float) -> str:
    return "green" if value >= 0.8 else "yellow" if value >= 0.4 else "red"
