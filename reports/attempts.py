"""Views of single tasks: which policies fixed a task, and each distinct attempt with its outcome."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from regrade.evaluators.analysis.side_metrics import hops_name
from regrade.evaluators.storage.rows import OUTCOMES as MEASURED
from regrade.reports.diff_lines import SHOWN_LINES, diff_lines
from regrade.reports.number_format import number, temperature
from regrade.reports.results import PolicyResult
from regrade.reports.severity import severity_of
from regrade.rewards.evidence import End

if TYPE_CHECKING:
    from regrade.reports.hunks import AttributionView
    from regrade.reports.trajectories import TrajectoryView

Group = Literal["won", "lost", "both", "none"]
GROUPS: tuple[Group, ...] = ("won", "lost", "both", "none")

Row = Mapping[str, Any]
OUTCOME = ("patch_digest", "well_formed", "applied", "status", "end", "broken", "fixed", *MEASURED)
"""Columns that identify an answer: attempts with equal values are shown once."""
ENDS = {End.TIMEOUT.value: "timed out", End.MEMORY.value: "ran out of memory", End.CRASHED.value: "crashed"}

BROKE = {True: "breakage", False: "no breakage"}

UNKNOWN_FLAGS = {"empty": False, "well_formed": True, "applied": True}
"""How a flag is shown of which graded results of other programs do not say anything."""

UNKNOWN = "unknown"
OUTCOMES: Mapping[str, Callable[[Row], bool]] = {
    "clean fix": lambda row: row["clean_fix"] == 1,
    "fix": lambda row: row["fix"] == 1,
    "breakage": lambda row: row["broke"] == 1,
    "fix with breakage": lambda row: row["fix"] == 1 and row["broke"] == 1,
    "skipped tests": lambda row: row["newly_skipped"] > 0,
    "not completed": lambda row: row["end"] in ENDS,
    "tampered with the evaluation": lambda row: row["tampering"] > 0,
    "edited tests": lambda row: row["protected_edits"] > 0,
    "no change": lambda row: bool(row["empty"]),
    "does not apply": lambda row: not row["applied"],
    "unreadable answer": lambda row: not row["well_formed"],
    "unscored reward": lambda row: math.isnan(row["reward"]),
}
"""Outcome that tasks are filtered by -> predicate on an attempt's row."""

SHOWN_TESTS = 12
"""Maximal number of broken tests listed by name; of the rest only the number is shown."""
SHOWN_CHARACTERS = 4000
"""Maximal number of characters of an answer."""
STEP_MARKUP = 200
"""Characters of markup of one step of an agent."""
PAGE_BUDGET = 2_500_000
"""Characters of patches and reasons in one page; tasks beyond it are listed without their attempts."""


@dataclass(frozen=True)
class PolicyCount:
    """A policy and a number of its attempts."""

    label: str
    ink: str
    count: int


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """One distinct answer to a task."""

    who: tuple[PolicyCount, ...]
    marks: tuple[tuple[str, str], ...]
    """(tone, text) of each outcome, such as ("good", "fixed"); the tones are good, bad and plain."""
    lines: tuple[tuple[str, str], ...]
    """(kind, text) of each line of the patch: add, del, hunk, file or same."""
    more_lines: int
    broken_tests: tuple[str, ...]
    more_broken: int
    cause: str
    completion: str
    """The verbatim answer."""
    more_characters: int
    well_formed: bool
    steps: tuple[str, ...]
    """The processing of the answer, in order."""
    reward: float | None
    parts: tuple[Mapping[str, Any], ...]
    hunks: AttributionView | None
    """The value of each hunk; None if it was not computed."""
    trajectory: TrajectoryView | None
    """The steps of the first of these attempts; None of a policy that answers once."""


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """One task with the attempts of the baseline and the candidate of a comparison."""

    id: str
    repository: str
    function: str
    group: Group
    scores: tuple[tuple[PolicyCount, int], ...]
    """(policy with its clean fixes, attempts) for each shown policy."""
    failure: str
    reference: tuple[tuple[str, str], ...]
    attempts: tuple[AttemptView, ...]
    """Empty beyond `PAGE_BUDGET`."""
    outcomes: tuple[tuple[str, str], ...]
    """(policy's name, outcome of one of its attempts), for the filters: see `OUTCOMES`."""
    broken: int
    """The largest number of tests that one attempt broke."""
    gain: float
    """The candidate's mean reward minus the baseline's; NaN if either is unknown."""


def task_views(
    baseline: PolicyResult,
    candidate: PolicyResult | None,
    further: Sequence[PolicyResult],
    inks: Mapping[str, str],
    tasks: Mapping[str, Mapping[str, Any]],
    hunks: Mapping[tuple[str, str], AttributionView],
    trajectory_of: Callable[[Row], TrajectoryView | None] = lambda _row: None,
) -> list[TaskView]:
    """Return a view of each task with attempts of both policies; tasks that changed outcome come first.

    Args:
        candidate: None without a comparison: a task is then in `both` (fixed by the baseline) or `none`.
        further: other policies with attempts to show.
        inks: policy name -> ink.
        tasks: task id -> the record that `Run.record_tasks` stored.
        hunks: (task, digest of a patch) -> the values of its hunks.
        trajectory_of: the steps of an attempt, by its row. Default: none has any.
    """
    policies = (baseline, *((candidate,) if candidate else ()), *further)
    rows = {policy.name: _by_task(policy.best) for policy in policies}
    second = (candidate or baseline).name
    shared = sorted(set(rows[baseline.name]) & set(rows[second]))
    groups = {task: _group(rows[baseline.name][task], rows[second][task]) for task in shared}
    views, spent = [], 0
    for task in sorted(shared, key=lambda task: (GROUPS.index(groups[task]), task)):
        tried = [(policy, rows[policy.name][task]) for policy in policies if task in rows[policy.name]]
        attempts = tuple(_attempts(tried, inks, hunks, trajectory_of)) if spent < PAGE_BUDGET else ()
        view = _view(task, groups[task], tried, attempts, inks, tasks.get(task, {}))
        spent += sum(map(_size, attempts)) + sum(len(text) for _, text in view.reference)
        views.append(view)
    return views


def _by_task(rows: pd.DataFrame) -> dict[str, list[Row]]:
    by_task: dict[str, list[Row]] = {}
    flags = {name: rows[name].fillna(shown) for name, shown in UNKNOWN_FLAGS.items()}
    for row in rows.assign(severity=severity_of(rows), **flags).to_dict("records"):
        by_task.setdefault(str(row["task"]), []).append({str(name): value for name, value in row.items()})
    return by_task


def _count_clean(rows: Sequence[Row]) -> tuple[int, int]:
    """(clean fixes, attempts with a known outcome)."""
    outcomes = [row["clean_fix"] for row in rows if not math.isnan(row["clean_fix"])]
    return int(sum(outcomes)), len(outcomes)


def _group(baseline: Sequence[Row], candidate: Sequence[Row]) -> Group:
    """A policy fixed the task if at least half of its attempts with a known outcome are clean fixes."""
    (before_clean, before_n), (after_clean, after_n) = _count_clean(baseline), _count_clean(candidate)
    before, after = 0 < before_n <= 2 * before_clean, 0 < after_n <= 2 * after_clean
    return "both" if before and after else "won" if after else "lost" if before else "none"


def _view(
    task: str,
    group: Group,
    tried: Sequence[tuple[PolicyResult, list[Row]]],
    attempts: tuple[AttemptView, ...],
    inks: Mapping[str, str],
    record: Mapping[str, Any],
) -> TaskView:
    first = tried[0][1][0]
    counts = [(policy, *_count_clean(rows)) for policy, rows in tried]
    scores = tuple((PolicyCount(policy.label, inks[policy.name], clean), n) for policy, clean, n in counts)
    return TaskView(
        id=task,
        repository=str(first["repository"]),
        function=str(first["function"]),
        group=group,
        scores=scores,
        failure=str(record.get("failure", "")),
        reference=tuple(diff_lines(str(record.get("reference", "")))) if attempts else (),
        attempts=attempts,
        outcomes=tuple(
            dict.fromkeys(
                (policy.name, outcome) for policy, rows in tried for row in rows for outcome in _outcomes(row)
            )
        ),
        broken=max(
            (int(row["broken"]) for _, rows in tried for row in rows if not math.isnan(row["broken"])), default=0
        ),
        gain=_mean_reward(tried[1][1]) - _mean_reward(tried[0][1]) if len(tried) > 1 else math.nan,
    )


def _mean_reward(rows: Sequence[Row]) -> float:
    rewards = [row["reward"] for row in rows if not math.isnan(row["reward"])]
    return sum(rewards) / len(rewards) if rewards else math.nan


def _outcomes(row: Row) -> Iterator[str]:
    """The `OUTCOMES` of an attempt, and the severity and the distances of its breakage."""
    if _is_missing(row):
        yield UNKNOWN
        return
    for name, applies in OUTCOMES.items():
        if applies(row):
            yield name
    if row["broke"] == 1:
        yield f"severity {row['severity']}"
    for name in dict.fromkeys(hops_name(distance) for distance in row["broken_hops"] or ()):
        yield f"hops {name}"


def _steps(row: Row) -> Iterator[str]:
    """The processing of an attempt: the answer, the patch, the tests, the reward."""
    yield f"Answer: {temperature(row['temperature'])}" + "".join(
        f", {row[name]:,.{digits}f} {unit}"
        for name, digits, unit in (("tokens", 0, "tokens"), ("generation_seconds", 1, "s"))
        if row[name] > 0
    )
    if not row["well_formed"]:
        yield "The answer is unreadable, which counts as no change"
    elif not row["applied"]:
        yield "The patch does not apply, which counts as no change"
    else:
        yield _changes(row)
    if _is_missing(row):
        yield "The outcome is unknown: the infrastructure failed"
    elif not row["empty"]:
        seconds = "" if math.isnan(row["execution_seconds"]) else f", {row['execution_seconds']:.1f} s"
        yield f"The tests {ENDS.get(row['end'], 'ran')}{seconds}: {_fixed(row)}, {_broken(row)}"
    yield "Unscored" if math.isnan(row["reward"]) else f"Reward {number(row['reward'])}"


def _changes(row: Row) -> str:
    if row["empty"]:
        return "The patch changes nothing"
    known = not math.isnan(row["changed_lines"])
    return f"The patch changes {row['changed_lines']:.0f} lines" if known else "The patch is not known"


def _is_missing(row: Row) -> bool:
    return all(math.isnan(row[name]) for name in MEASURED)


def _fixed(row: Row) -> str:
    if math.isnan(row["fixed"]):
        return "resolved" if row["clean_fix"] == 1 else "fixed" if row["fix"] == 1 else "not resolved"
    return f"fixed {row['fixed']:.0f} of {row['fail_to_pass']:.0f}"


def _broken(row: Row) -> str:
    if math.isnan(row["broke"]):
        return "breakage unmeasured"
    return f"broke {row['broken']:.0f} of {row['guarded']:.0f}" if row["broken"] >= 0 else BROKE[row["broke"] == 1]


def _attempts(
    tried: Sequence[tuple[PolicyResult, list[Row]]],
    inks: Mapping[str, str],
    hunks: Mapping[tuple[str, str], AttributionView],
    trajectory_of: Callable[[Row], TrajectoryView | None],
) -> Iterator[AttemptView]:
    """The distinct answers of all policies to one task, clean fixes first."""
    same: dict[tuple[str, ...], list[Row]] = {}
    for _, rows in tried:
        for row in rows:
            same.setdefault(tuple(str(row[name]) for name in OUTCOME), []).append(row)
    for equal in sorted(same.values(), key=lambda rows: _rank(rows[0])):
        counts = Counter(row["policy"] for row in equal)
        who = tuple(PolicyCount(p.label, inks[p.name], counts[p.name]) for p, _ in tried if p.name in counts)
        own_hunks = hunks.get((equal[0]["task"], equal[0]["patch_digest"]))
        yield _attempt(equal[0], who, own_hunks, trajectory_of(equal[0]))


def _rank(row: Row) -> tuple[bool, bool, float]:
    return (row["clean_fix"] != 1, bool(row["empty"]), 1.0 if math.isnan(row["reward"]) else -row["reward"])


def _attempt(
    row: Row, who: tuple[PolicyCount, ...], hunks: AttributionView | None, trajectory: TrajectoryView | None
) -> AttemptView:
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
        trajectory=trajectory,
    )


def _marks(row: Row) -> Iterator[tuple[str, str]]:
    if _is_missing(row):
        yield "plain", "unknown: the infrastructure failed"
        return
    if not row["well_formed"]:
        yield "plain", "unreadable answer"
    elif not row["applied"]:
        yield "plain", "does not apply"
    elif row["empty"]:
        yield "plain", "no change"
    elif row["fix"] == 1:
        yield "good", "fixed"
    elif math.isnan(row["fixed"]):
        yield ("good", "resolved") if row["clean_fix"] == 1 else ("plain", "not resolved")
    else:
        yield "plain", f"{int(row['fixed'])} of {int(row['fail_to_pass'])} failing tests fixed"
    if row["end"] not in ("", End.COMPLETED, End.NOT_APPLIED):
        yield "bad", ENDS.get(row["end"], str(row["end"]))
    if row["broken"] > 0:
        yield "bad", f"broke {int(row['broken'])} of {int(row['guarded'])} tests"
    elif math.isnan(row["broke"]):
        yield "plain", "breakage unmeasured"
    elif row["broke"] == 1 and math.isnan(row["broken"]):
        yield "bad", "breakage"
    if row["tampering"] > 0:
        yield "bad", "tampered with the evaluation"


def _size(attempt: AttemptView) -> int:
    """Approximate characters in the page, with 60 characters of markup for each line of text."""
    lines = [text for _, text in attempt.lines]
    texts = [*lines, *attempt.broken_tests, attempt.completion, attempt.cause, *attempt.steps]
    if attempt.hunks:
        texts += [text for group in attempt.hunks.groups for hunk in group.hunks for _, text in hunk.lines]
        texts += [attempt.hunks.head, *attempt.hunks.remarks]
    texts += [str(part.get("why", "")) + str(part.get("name", "")) for part in attempt.parts]
    steps = attempt.trajectory.steps if attempt.trajectory else ()
    return sum(len(text) + 60 for text in texts) + sum(len(step.title) + STEP_MARKUP for step in steps)
