"""The hunks of a patch and what each has to do with its reward, for a terminal and as a piece of HTML."""

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
from regrade.reports.wording import duration, number, signed
from regrade.rewards.breakdown import NOT_APPLICABLE

CAVEAT = (
    "This explains the reward, not the model's mind: which hunks the verdict on this patch rests on, not why they were "
    "written."
)
SHOWN_NAMES = 3
"""Tests and hunks that a sentence names; of more the number is told."""
NOTABLE = 0.05
"""An interaction of two groups that is worth a word."""
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
    """One group of hunks, in words."""

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
    """All that is said of an attribution."""

    head: str
    groups: tuple[GroupView, ...]
    remarks: tuple[str, ...]
    caveat: str = CAVEAT


def attribution_view(found: Attribution) -> AttributionView:
    """What is said of an attribution, wherever it is shown."""
    groups = tuple(_group(place, group) for place, group in enumerate(found.groups, 1))
    return AttributionView(_head(found), groups, tuple(_remarks(found)))


def print_attribution(found: Attribution, console: Console) -> None:
    """Print a line for each group of hunks, and below it what happens without it."""
    view = attribution_view(found)
    console.print(Text(visible(view.head), style="bold"))
    if view.groups:
        console.print(_table(view.groups))
    for remark in (*view.remarks, view.caveat):
        console.print(Text(visible(remark)), style="dim")


def consequence(group: GroupShare) -> str:
    """What happens without the group: `Without it, 2 tests break: a, b`."""
    rest = group.without
    if rest.value is None:
        return f"Without it: unscored ({rest.cause})"
    said = [
        _tests(rest.newly_broken, "breaks", "break"),
        _tests(rest.no_longer_fixed, "is not fixed", "are not fixed"),
        _tests(rest.no_longer_broken, "is not broken", "are not broken"),
        _tests(rest.newly_fixed, "is fixed", "are fixed"),
    ]
    told = "; ".join(each for each in said if each)
    cause = f" ({rest.cause})" if rest.cause else ""
    if told:
        return f"Without it, {told}{cause}"
    if rest.change is not None and abs(rest.change) < ROUNDED:
        return f"Without it, nothing changes{cause}"
    return f"Without it, no test differs{cause}"


def _tests(names: Sequence[str], one: str, several: str) -> str:
    if not names:
        return ""
    verb = plural(len(names), one, several)
    return f"{counted(len(names), 'test')} {verb}: {listed(names, SHOWN_NAMES)}"


def _group(place: int, group: GroupShare) -> GroupView:
    share = group.share
    tone = "plain" if share.value is None or abs(share.value) < ROUNDED else (
        "good" if share.value > 0 else "bad"
    )  # fmt: skip
    parts = sorted(group.parts.items(), key=lambda part: -abs(part[1]))
    shown = [f"{name} {_signed(value)}" for name, value in parts if abs(value) >= ROUNDED]
    return GroupView(
        number=place,
        adds=_share(group),
        tone=tone,
        parts=", ".join(shown) if len(shown) > 1 else "",
        alone=_value(group.alone),
        without=_value(group.without.value),
        consequence=consequence(group),
        why=f"These hunks are told together: {group.why}" if group.why else "",
        hunks=tuple(_hunk(hunk.name, hunk.text) for hunk in group.hunks),
    )


def _hunk(name: str, text: str) -> HunkView:
    lines = diff_lines(text)
    return HunkView(name, tuple(lines[:SHOWN_LINES]), max(0, len(lines) - SHOWN_LINES))


def _share(group: GroupShare) -> str:
    share = group.share
    if share.value is None:
        if not (math.isfinite(share.low) and math.isfinite(share.high)):
            return "not known"
        return f"not known: {_signed(share.low)} to {_signed(share.high)}"
    error = f" ± {share.standard_error:.{DIGITS}f}" if share.standard_error > 0 else ""
    return f"{_signed(share.value)}{error}"


def _signed(value: float) -> str:
    """What rounds to 0 has no sign."""
    return signed(value, DIGITS) if abs(value) >= ROUNDED else number(0.0, DIGITS)


def _value(value: float | None) -> str:
    return "–" if value is None else number(value, DIGITS)


def _head(found: Attribution) -> str:
    if not found.groups:
        return "The patch has no hunks: there is nothing to share the reward out among."
    groups, hunks = len(found.groups), sum(len(group.hunks) for group in found.groups)
    what = f"{counted(hunks, 'hunk')}{f' in {groups} groups' if groups < hunks else ''}"
    how = f"exact Shapley values of {what}" if found.is_exact else (
        f"Shapley values of {what} ± standard error, from {found.orders} sampled orders in antithetic pairs"
    )  # fmt: skip
    if found.gap is None:
        return f"By hunk: {how}. {_unknown(found)}"
    return (
        f"By hunk: {how}; they add up to {number(_known(found.whole), DIGITS)} (the patch) less "
        f"{number(_known(found.nothing), DIGITS)} (no patch) = {_signed(found.gap)}"
    )


def _known(subset: Subset) -> float:
    assert subset.value is not None
    return subset.value


def _unknown(found: Attribution) -> str:
    what, subset = ("the patch", found.whole) if found.whole.value is None else ("no patch at all", found.nothing)
    return f"What they add up to is not known: the reward of {what} is unscored ({subset.cause})"


def _remarks(found: Attribution) -> list[str]:
    said = list(found.notes)
    said += [
        f"Group {place}: {group.why}."
        for place, group in enumerate(found.groups, 1)
        if group.why and group.why != TOO_MANY  # a note says that of all of them
    ]
    if found.unscored:
        said.append(_unscored(found))
    said += _together(found)
    if found.groups:
        total = sum(len(group.hunks) for group in found.groups)
        said.append(_smallest(found.smallest, total, found.whole))
    cost = found.cost
    said.append(
        f"Cost: {cost.subsets} subsets, {cost.from_store} of them from the store; "
        f"{counted(cost.executions, 'execution')} for the others; {duration(cost.seconds)}."
    )
    return said


def _together(found: Attribution) -> Iterator[str]:
    """The pairs of groups that matter most to each other."""
    pairs = sorted(found.interactions.items(), key=lambda pair: (-abs(pair[1]), pair[0]))[:SHOWN_NAMES]
    for what, sign in (("More together than apart", 1), ("Less together than apart", -1)):
        told = [f"{_numbers(pair)} ({_signed(value)})" for pair, value in pairs if sign * value >= NOTABLE]
        if told:
            yield f"{what}: {'; '.join(told)}."


def _unscored(found: Attribution) -> str:
    causes = [cause for _, cause in found.unscored]
    again = "" if all(cause.startswith(NOT_APPLICABLE) for cause in causes) else (
        " The same command runs again only what could not be run."
    )  # fmt: skip
    return (
        f"{len(causes)} of {found.cost.subsets} subsets are unscored ({causes[0]}). That is not 0: what depends on "
        f"them is not known.{again}"
    )


def _smallest(smallest: Smallest | None, total: int, whole: Subset) -> str:
    if smallest is None:
        if whole.passes is None:
            return "Which part of the patch passes is not known: no test tells."
        return "No part of the patch that was run passes: a FAIL_TO_PASS test fails, or something is broken."
    proof = {
        "smallest": "proven smallest",
        "one-minimal": "proven minimal, though perhaps not smallest",
        "": "not proven minimal",
    }[smallest.proof]
    if not smallest.hunks:
        return "Smallest part that passes: nothing. The tests ask for no change."
    count = len(smallest.hunks)
    names = [hunk.name for hunk in smallest.hunks]
    what = "the whole patch" if count == total else f"{count} of {total} hunks, {listed(names, SHOWN_NAMES)}"
    return f"Smallest part that passes: {what} ({proof}: {smallest.why})."


def _numbers(places: Sequence[int]) -> str:
    listed = [str(place + 1) for place in places]
    return f"group {listed[0]}" if len(listed) == 1 else f"groups {', '.join(listed[:-1])} and {listed[-1]}"


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
        said = "\n".join(visible(each) for each in (group.consequence, group.parts) if each)
        adds = Text(group.adds, style=styles[group.tone])
        table.add_row(str(group.number), Text(names), adds, group.alone, group.without, Text(said))
    return table
