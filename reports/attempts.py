"""The tasks one by one: which policy fixed which, and every different patch that was tried, with what came of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from regrade.evaluators.analysis.side_metrics import hops_name
from regrade.reports.diff_lines import SHOWN_LINES, diff_lines
from regrade.reports.results import PolicyResult
from regrade.reports.severity import severity_of
from regrade.reports.wording import number, temperature
from regrade.rewards.evidence import End

if TYPE_CHECKING:
    from regrade.reports.hunks import AttributionView  # it shows patches as they are shown here

Group = Literal["won", "lost", "both", "none"]
GROUPS: tuple[Group, ...] = ("won", "lost", "both", "none")

Row = Mapping[str, Any]
OUTCOME = ("patch_digest", "well_formed", "applied", "status", "end", "broken", "fixed")
"""Attempts that agree in these are one answer."""
ENDS = {End.TIMEOUT.value: "ran out of time", End.MEMORY.value: "ran out of memory", End.CRASHED.value: "crashed"}

NOT_KNOWN = "not known"
OUTCOMES: Mapping[str, Callable[[Row], bool]] = {
    "clean fix": lambda row: row["clean_fix"] == 1,
    "fixed": lambda row: row["fix"] == 1,
    "breakage": lambda row: row["broke"] == 1,
    "fix with breakage": lambda row: row["fix"] == 1 and row["broke"] == 1,
    "skipped tests": lambda row: row["newly_skipped"] > 0,
    "came to no end": lambda row: row["end"] in ENDS,
    "tampering": lambda row: row["tampering"] > 0,
    "edited tests": lambda row: row["protected_edits"] > 0,
    "changed nothing": lambda row: bool(row["empty"]),
    "does not apply": lambda row: not row["applied"],
    "answer unreadable": lambda row: not row["well_formed"],
    "reward unscored": lambda row: math.isnan(row["reward"]),
}
"""What the tasks can be filtered by -> does it hold of this attempt?"""

SHOWN_TESTS = 12
"""Broken tests listed by name; of more only the number is shown."""
SHOWN_CHARACTERS = 4000
"""Characters of an answer."""
PAGE_BUDGET = 2_500_000
"""Characters of patches and reasons in one page; later tasks are then listed without them."""


@dataclass(frozen=True)
class Who:
    """A policy that proposed a patch, and in how many of its attempts."""

    label: str
    ink: str
    count: int


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """One distinct answer to a task."""

    who: tuple[Who, ...]
    marks: tuple[tuple[str, str], ...]
    """(tone, words): what came of it, such as ("good", "fixed"); the tones are good, bad and plain."""
    lines: tuple[tuple[str, str], ...]
    """(kind, text) of the patch: add, del, hunk, file or same."""
    more_lines: int
    broken_tests: tuple[str, ...]
    more_broken: int
    cause: str
    completion: str
    """The answer word for word."""
    more_characters: int
    well_formed: bool
    steps: tuple[str, ...]
    """What happened, one after the other."""
    reward: float | None
    parts: tuple[Mapping[str, Any], ...]
    hunks: AttributionView | None
    """What each hunk is worth, where that was found out."""


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """One task, as the baseline and the candidate of a comparison did on it."""

    id: str
    repository: str
    function: str
    group: Group
    scores: tuple[tuple[Who, int], ...]
    """(policy with its clean fixes, attempts) for each policy that is shown."""
    failure: str
    reference: tuple[tuple[str, str], ...]
    attempts: tuple[AttemptView, ...]
    """Empty if the page has no room for them."""
    outcomes: tuple[tuple[str, str], ...]
    """(policy's name, what one of its attempts came to), for the filters: see `OUTCOMES`."""
    broken: int
    """The most tests that an attempt at it broke."""
    gain: float
    """The candidate's mean reward less the baseline's; NaN where one is not known."""


def task_views(
    baseline: PolicyResult,
    candidate: PolicyResult | None,
    others: Sequence[PolicyResult],
    inks: Mapping[str, str],
    tasks: Mapping[str, Mapping[str, Any]],
    hunks: Mapping[tuple[str, str], AttributionView],
) -> list[TaskView]:
    """Every task that both policies of a comparison were tried on: changed outcomes first.

    Args:
        candidate: None where nothing is compared: every task is then in `both` or `none`, by what the first did.
        others: further policies whose attempts are shown beside those of the two.
        inks: policy name -> ink.
        tasks: what `Run.record_tasks` kept.
        hunks: (task, digest of a patch) -> what its hunks are worth.
    """
    policies = (baseline, *((candidate,) if candidate else ()), *others)
    rows = {policy.name: _by_task(policy.best) for policy in policies}
    second = (candidate or baseline).name
    shared = sorted(set(rows[baseline.name]) & set(rows[second]))
    groups = {task: _group(rows[baseline.name][task], rows[second][task]) for task in shared}
    views, spent = [], 0
    for task in sorted(shared, key=lambda task: (GROUPS.index(groups[task]), task)):
        mine = [(policy, rows[policy.name][task]) for policy in policies if task in rows[policy.name]]
        attempts = tuple(_attempts(mine, inks, hunks)) if spent < PAGE_BUDGET else ()
        view = _view(task, groups[task], mine, attempts, inks, tasks.get(task, {}))
        spent += sum(map(_size, attempts)) + sum(len(text) for _, text in view.reference)
        views.append(view)
    return views


def _by_task(rows: pd.DataFrame) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows.assign(severity=severity_of(rows)).to_dict("records"):
        found.setdefault(str(row["task"]), []).append({str(name): value for name, value in row.items()})
    return found


def _clean(rows: Sequence[Row]) -> tuple[int, int]:
    """(clean fixes, attempts whose outcome is known)."""
    known = [row["clean_fix"] for row in rows if not math.isnan(row["clean_fix"])]
    return int(sum(known)), len(known)


def _group(baseline: Sequence[Row], candidate: Sequence[Row]) -> Group:
    """By whether at least half of the known attempts are clean fixes."""
    (before_clean, before_n), (after_clean, after_n) = _clean(baseline), _clean(candidate)
    before, after = 0 < before_n <= 2 * before_clean, 0 < after_n <= 2 * after_clean
    return "both" if before and after else "won" if after else "lost" if before else "none"


def _view(
    task: str,
    group: Group,
    mine: Sequence[tuple[PolicyResult, list[Row]]],
    attempts: tuple[AttemptView, ...],
    inks: Mapping[str, str],
    described: Mapping[str, Any],
) -> TaskView:
    first = mine[0][1][0]
    counts = [(policy, *_clean(rows)) for policy, rows in mine]
    scores = tuple((Who(policy.label, inks[policy.name], clean), n) for policy, clean, n in counts)
    return TaskView(
        id=task,
        repository=str(first["repository"]),
        function=str(first["function"]),
        group=group,
        scores=scores,
        failure=str(described.get("failure", "")),
        reference=tuple(diff_lines(str(described.get("reference", "")))) if attempts else (),
        attempts=attempts,
        outcomes=tuple(
            dict.fromkeys((policy.name, outcome) for policy, rows in mine for row in rows for outcome in _outcomes(row))
        ),
        broken=max(
            (int(row["broken"]) for _, rows in mine for row in rows if not math.isnan(row["broken"])), default=0
        ),
        gain=_mean_reward(mine[1][1]) - _mean_reward(mine[0][1]) if len(mine) > 1 else math.nan,
    )


def _mean_reward(rows: Sequence[Row]) -> float:
    known = [row["reward"] for row in rows if not math.isnan(row["reward"])]
    return sum(known) / len(known) if known else math.nan


def _outcomes(row: Row) -> Iterator[str]:
    """All of `OUTCOMES` that hold of an attempt, with how much it broke and how far away."""
    if math.isnan(row["broke"]):
        yield NOT_KNOWN
        return
    for name, holds in OUTCOMES.items():
        if holds(row):
            yield name
    if row["broke"]:
        yield f"severity {row['severity']}"
    for name in dict.fromkeys(hops_name(each) for each in row["broken_hops"] or ()):
        yield f"hops {name}"


def _steps(row: Row) -> Iterator[str]:
    """The attempt as it went: the answer, the patch, the tests, the reward."""
    yield f"Answered at {temperature(row['temperature'])}" + "".join(
        f", {row[name]:,.{digits}f} {unit}"
        for name, digits, unit in (("tokens", 0, "tokens"), ("generation_seconds", 1, "s"))
        if row[name] > 0
    )
    if not row["well_formed"]:
        yield "The answer could not be read, which counts as changing nothing"
    elif not row["applied"]:
        yield "The patch does not apply, which counts as changing nothing"
    else:
        yield "Nothing was changed" if row["empty"] else f"The patch changes {row['changed_lines']:.0f} lines"
    if math.isnan(row["broke"]):
        yield "What came of it is not known: the infrastructure failed"
    elif not row["empty"]:
        yield (
            f"The tests {ENDS.get(row['end'], 'ran')}, {row['execution_seconds']:.1f} s: fixed {row['fixed']:.0f} of "
            f"{row['fail_to_pass']:.0f}, broke {row['broken']:.0f} of {row['guarded']:.0f}"
        )
    yield "Unscored" if math.isnan(row["reward"]) else f"Reward {number(row['reward'])}"


def _attempts(
    mine: Sequence[tuple[PolicyResult, list[Row]]],
    inks: Mapping[str, str],
    hunks: Mapping[tuple[str, str], AttributionView],
) -> Iterator[AttemptView]:
    """The distinct answers of all policies to one task; good ones first."""
    same: dict[tuple[str, ...], list[Row]] = {}
    for _, rows in mine:
        for row in rows:
            same.setdefault(tuple(str(row[name]) for name in OUTCOME), []).append(row)
    for found in sorted(same.values(), key=lambda rows: _rank(rows[0])):
        counts = Counter(row["policy"] for row in found)
        who = tuple(Who(p.label, inks[p.name], counts[p.name]) for p, _ in mine if p.name in counts)
        yield _attempt(found[0], who, hunks.get((found[0]["task"], found[0]["patch_digest"])))


def _rank(row: Row) -> tuple[bool, bool, float]:
    return (row["clean_fix"] != 1, bool(row["empty"]), 1.0 if math.isnan(row["reward"]) else -row["reward"])


def _attempt(row: Row, who: tuple[Who, ...], hunks: AttributionView | None) -> AttemptView:
    lines = diff_lines(row["patch"])
    return AttemptView(
        who=who,
        marks=tuple(_marks(row)),
        lines=tuple(lines[:SHOWN_LINES]),
        more_lines=max(0, len(lines) - SHOWN_LINES),
        broken_tests=tuple((row["broken_tests"] or ())[:SHOWN_TESTS]),
        more_broken=max(0, len(row["broken_tests"] or ()) - SHOWN_TESTS),
        cause=str(row["cause"]),
        completion=str(row["completion"])[:SHOWN_CHARACTERS],
        more_characters=max(0, len(str(row["completion"])) - SHOWN_CHARACTERS),
        well_formed=bool(row["well_formed"]),
        steps=tuple(_steps(row)),
        reward=None if math.isnan(row["reward"]) else float(row["reward"]),
        parts=tuple(row["parts"] or ()),
        hunks=hunks,
    )


def _marks(row: Row) -> Iterator[tuple[str, str]]:
    if math.isnan(row["broke"]):
        yield "plain", "not known: the infrastructure failed"
        return
    if not row["well_formed"]:
        yield "plain", "answer could not be read"
    elif not row["applied"]:
        yield "plain", "does not apply"
    elif row["empty"]:
        yield "plain", "changed nothing"
    elif row["fix"] == 1:
        yield "good", "fixed"
    else:
        yield "plain", f"{int(row['fixed'])} of {int(row['fail_to_pass'])} failing tests fixed"
    if row["end"] not in ("", End.COMPLETED, End.NOT_APPLIED):
        yield "bad", ENDS.get(row["end"], str(row["end"]))
    if row["broken"]:
        yield "bad", f"broke {int(row['broken'])} of {int(row['guarded'])} tests"
    if row["tampering"] > 0:
        yield "bad", "tampering"


def _size(attempt: AttemptView) -> int:
    """Roughly the characters that it takes in the page: 60 of markup for each line of text."""
    texts = (
        [text for _, text in attempt.lines]
        + list(attempt.broken_tests)
        + [attempt.completion, attempt.cause, *attempt.steps]
    )
    if attempt.hunks:
        texts += [text for group in attempt.hunks.groups for hunk in group.hunks for _, text in hunk.lines]
        texts += [attempt.hunks.head, *attempt.hunks.remarks]
    texts += [str(part.get("why", "")) + str(part.get("name", "")) for part in attempt.parts]
    return sum(len(text) + 60 for text in texts)
