"""The hunks of a patch with their shares of the reward, for a terminal and as an HTML section."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regrade.datasets.plurals import counted, listed, plural
from regrade.datasets.visible_text import visible
from regrade.evaluators.attribution.hunk_groups import TOO_MANY
from regrade.evaluators.attribution.results import Attribution, GroupShare, Smallest, Subset
from regrade.reports.diff_lines import SHOWN_LINES, diff_lines
from regrade.reports.number_format import duration, number, signed
from regrade.rewards.breakdown import NOT_APPLICABLE

CAVEAT = (
    "This explains the reward, not the model's intent: it shows on which hunks the verdict depends, not why the model "
    "wrote them."
)
SHOWN_NAMES = 3
"""Maximal number of tests or hunks named in a sentence; of the rest only the number is shown."""
NOTABLE = 0.05
"""Smallest interaction of two groups that is shown."""
DIGITS = 3
ROUNDED = 0.5 * 10**-DIGITS


@dataclass(frozen=True)
class HunkView:
    """One hunk in the patch view."""

    name: str
    lines: tuple[tuple[str, str], ...]
    """(kind, text), as of `diff_lines`."""
    more_lines: int


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """One group of hunks, as text."""

    number: int
    adds: str
    tone: str
    """`good`, `bad` or `plain`."""
    parts: str
    alone: str
    without: str
    consequence: str
    why: str
    hunks: tuple[HunkView, ...]


@dataclass(frozen=True)
class AttributionView:
    """An attribution as text. `RUN/hunks.jsonl` stores it: its fields are keys of that file."""

    head: str
    groups: tuple[GroupView, ...]
    remarks: tuple[str, ...]
    caveat: str = CAVEAT


def attribution_view(attribution: Attribution) -> AttributionView:
    """Return an attribution as text, for all formats."""
    groups = tuple(_group(index, group) for index, group in enumerate(attribution.groups, 1))
    return AttributionView(_head(attribution), groups, tuple(_remarks(attribution)))


def print_attribution(attribution: Attribution, console: Console) -> None:
    """Print each group of hunks with its share and the consequence of its removal, then remarks and a caveat."""
    view = attribution_view(attribution)
    console.print(Text(visible(view.head), style="bold"))
    if view.groups:
        console.print(_table(view.groups))
    for remark in (*view.remarks, view.caveat):
        console.print(Text(visible(remark)), style="dim")


def consequence(group: GroupShare) -> str:
    """Return the consequence of removing the group: `Without it, 2 tests break: a, b`."""
    rest = group.without
    if rest.value is None:
        return f"Without it: unscored ({rest.cause})"
    changes = [
        _tests(rest.newly_broken, "breaks", "break"),
        _tests(rest.no_longer_fixed, "is not fixed", "are not fixed"),
        _tests(rest.no_longer_broken, "is not broken", "are not broken"),
        _tests(rest.newly_fixed, "is fixed", "are fixed"),
    ]
    listed_changes = "; ".join(change for change in changes if change)
    cause = f" ({rest.cause})" if rest.cause else ""
    if listed_changes:
        return f"Without it, {listed_changes}{cause}"
    if rest.change is not None and abs(rest.change) < ROUNDED:
        return f"Without it, nothing changes{cause}"
    return f"Without it, no test differs{cause}"


def _tests(names: Sequence[str], one: str, several: str) -> str:
    if not names:
        return ""
    verb = plural(len(names), one, several)
    return f"{counted(len(names), 'test')} {verb}: {listed(names, SHOWN_NAMES)}"


def _group(index: int, group: GroupShare) -> GroupView:
    share = group.share
    tone = "plain" if share.value is None or abs(share.value) < ROUNDED else ("good" if share.value > 0 else "bad")
    parts = sorted(group.parts.items(), key=lambda part: -abs(part[1]))
    shown = [f"{name} {_signed(value)}" for name, value in parts if abs(value) >= ROUNDED]
    return GroupView(
        number=index,
        adds=_share(group),
        tone=tone,
        parts=", ".join(shown) if len(shown) > 1 else "",
        alone=_value(group.alone),
        without=_value(group.without.value),
        consequence=consequence(group),
        why=f"These hunks form one group: {group.why}" if group.why else "",
        hunks=tuple(_hunk(hunk.name, hunk.text) for hunk in group.hunks),
    )


def _hunk(name: str, text: str) -> HunkView:
    lines = diff_lines(text)
    return HunkView(name, tuple(lines[:SHOWN_LINES]), max(0, len(lines) - SHOWN_LINES))


def _share(group: GroupShare) -> str:
    share = group.share
    if share.value is None:
        if not (math.isfinite(share.low) and math.isfinite(share.high)):
            return "unknown"
        return f"unknown: {_signed(share.low)} to {_signed(share.high)}"
    error = f" ± {share.standard_error:.{DIGITS}f}" if share.standard_error > 0 else ""
    return f"{_signed(share.value)}{error}"


def _signed(value: float) -> str:
    """Values that round to 0 have no sign."""
    return signed(value, DIGITS) if abs(value) >= ROUNDED else number(0.0, DIGITS)


def _value(value: float | None) -> str:
    return "–" if value is None else number(value, DIGITS)


def _head(attribution: Attribution) -> str:
    if not attribution.groups:
        return "The patch has no hunks to attribute the reward to."
    groups, hunks = len(attribution.groups), sum(len(group.hunks) for group in attribution.groups)
    players = f"{counted(hunks, 'hunk')}{f' in {groups} groups' if groups < hunks else ''}"
    method = (
        f"exact Shapley values of {players}"
        if attribution.is_exact
        else f"Shapley values of {players} ± standard error, "
        f"from {attribution.orders} sampled orders in antithetic pairs"
    )
    if attribution.gap is None:
        return f"By hunk: {method}. {_unknown(attribution)}"
    whole, nothing = (_value(subset.value) for subset in (attribution.whole, attribution.nothing))
    gap = _signed(attribution.gap)
    return f"By hunk: {method}; they add up to {whole} (the patch) minus {nothing} (no patch) = {gap}"


def _unknown(attribution: Attribution) -> str:
    whole, nothing = attribution.whole, attribution.nothing
    name, subset = ("the patch", whole) if whole.value is None else ("the empty patch", nothing)
    return f"Their sum is unknown: the reward of {name} is unscored ({subset.cause})"


def _remarks(attribution: Attribution) -> list[str]:
    remarks = list(attribution.notes)
    remarks += [
        f"Group {index}: {group.why}."
        for index, group in enumerate(attribution.groups, 1)
        if group.why and group.why != TOO_MANY  # one note covers all groups with that reason
    ]
    if attribution.unscored:
        remarks.append(_unscored(attribution))
    remarks += _interactions(attribution)
    if attribution.groups:
        total = sum(len(group.hunks) for group in attribution.groups)
        remarks.append(_smallest(attribution.smallest, total, attribution.whole))
    cost = attribution.cost
    remarks.append(
        f"Cost: {cost.subsets} subsets, {cost.from_store} of them from the store; "
        f"{counted(cost.executions, 'execution')} for the others; {duration(cost.seconds)}."
    )
    return remarks


def _interactions(attribution: Attribution) -> Iterator[str]:
    """The largest interactions of two groups."""
    pairs = sorted(attribution.interactions.items(), key=lambda pair: (-abs(pair[1]), pair[0]))[:SHOWN_NAMES]
    for heading, sign in (("Positive interaction", 1), ("Negative interaction", -1)):
        listed = [f"{_numbers(pair)} ({_signed(value)})" for pair, value in pairs if sign * value >= NOTABLE]
        if listed:
            yield f"{heading}: {'; '.join(listed)}."


def _unscored(attribution: Attribution) -> str:
    causes = [cause for _, cause in attribution.unscored]
    again = (
        ""
        if all(cause.startswith(NOT_APPLICABLE) for cause in causes)
        else (" The same command repeats only the failed runs.")
    )
    return (
        f"{len(causes)} of {attribution.cost.subsets} subsets are unscored ({causes[0]}). Unscored is not 0: values "
        f"that depend on them are unknown.{again}"
    )


def _smallest(smallest: Smallest | None, total: int, whole: Subset) -> str:
    if smallest is None:
        if whole.passes is None:
            return "The smallest passing part is unknown: the patch has no test outcomes."
        return "No executed part of the patch passes: a FAIL_TO_PASS test fails, or a test is broken."
    proof = {
        "smallest": "proven smallest",
        "one-minimal": "proven minimal, perhaps not smallest",
        "": "not proven minimal",
    }[smallest.proof]
    if not smallest.hunks:
        return "Smallest passing part: nothing. The tests pass without the patch."
    count = len(smallest.hunks)
    names = [hunk.name for hunk in smallest.hunks]
    part = "the whole patch" if count == total else f"{count} of {total} hunks, {listed(names, SHOWN_NAMES)}"
    return f"Smallest passing part: {part} ({proof}: {smallest.why})."


def _numbers(indices: Sequence[int]) -> str:
    numbers = [str(index + 1) for index in indices]
    return f"group {numbers[0]}" if len(numbers) == 1 else f"groups {', '.join(numbers[:-1])} and {numbers[-1]}"


def _table(groups: Sequence[GroupView]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("hunk", overflow="fold")
    for heading in ("adds", "alone", "without"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    styles = {"good": "green", "bad": "red", "plain": ""}
    for group in groups:
        more = len(group.hunks) - SHOWN_NAMES
        names = "\n".join(visible(hunk.name) for hunk in group.hunks[:SHOWN_NAMES])
        names += f"\nand {more} more" if more > 0 else ""
        text = "\n".join(visible(line) for line in (group.consequence, group.parts) if line)
        adds = Text(group.adds, style=styles[group.tone])
        table.add_row(str(group.number), Text(names), adds, group.alone, group.without, Text(text))
    return table
