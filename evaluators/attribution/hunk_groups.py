"""The smallest groups of a patch's hunks that apply by themselves and leave files that parse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, pairwise

from regrade.datasets.hunks import Hunk, SplitPatch
from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.static.dependencies.facts import facts
from regrade.evaluators.static.files import LARGEST, changed_files, read
from regrade.evaluators.static.languages import language_of
from regrade.evaluators.static.syntax import compile_error

EVERY_SUBSET = 6
"""Up to this many groups, each subset is tried; of more groups, single ones, neighbours, and all but one."""
TOO_MANY = "there are too many groups for the budget"
MANY = 40
"""Of more groups, only single ones are tried: each try takes some hundredths of a second."""
NOT_APPLYING = "the patch does not apply to the task's base: "

Places = frozenset[int]
PatchProblem = Callable[[Places], str]
"""Reason why these hunks alone are no valid patch; empty if they are one."""


@dataclass(frozen=True)
class HunkGroup:
    """Hunks that are removed or retained together."""

    places: Places
    """Indices among the hunks of the patch."""
    why: str = ""
    """Reason for the group; empty for a single hunk."""


def hunk_groups(task: Task, split: SplitPatch, most: int | None = None) -> tuple[list[HunkGroup], list[HunkGroup]]:
    """The groups of a patch's hunks, in its order, and the smaller groups that they consist of.

    Args:
        most: of more groups, neighbours are joined. Otherwise both lists are the same.

    Raises:
        PatchError: the whole patch does not apply.
    """
    whole = prepare(task, split.patch).after
    base = task.base
    paths = {path for file in changed_files(base, whole, task) for path in (file.path, file.old_path)}
    # A file that does not parse before the patch, or after all of it, is no reason to join hunks.
    checked = sorted(path for path in paths if not _flaw(path, read(base, path)) and not _flaw(path, read(whole, path)))

    @cache
    def problem(places: Places) -> str:
        try:
            after = prepare(task, split.subset(places)).after
        except PatchError as error:
            return f"separately they do not apply ({str(error).removeprefix(NOT_APPLYING)})"
        flaws = (_flaw(path, read(after, path)) for path in checked)
        return next((f"separately they leave {flaw}" for flaw in flaws if flaw), "")

    start = [HunkGroup(frozenset({place})) for place in range(len(split.hunks))]
    for entries in split.inseparable:
        start = _joined(start, entries, "the patch has several entries for their file")
    small = sound_groups(start, problem, split.hunks)
    if most is None or len(small) <= most:
        return small, small
    return sound_groups(coarser(small, most, split.hunks), problem, split.hunks), small


def sound_groups(groups: list[HunkGroup], problem: PatchProblem, hunks: Sequence[Hunk]) -> list[HunkGroup]:
    """Join groups until no tried subset of them has a problem.

    Args:
        groups: the smallest possible groups. All together are assumed to have no problem.
        hunks: of the patch; groups of one file are joined first.
    """
    while True:
        invalid = next((subset for subset in _tried_subsets(groups, hunks) if problem(union_of(subset))), None)
        if invalid is None:
            return groups
        smallest = _smallest_invalid(list(invalid), problem)
        groups = _joined(groups, _repair(groups, smallest, problem, hunks), problem(union_of(smallest)))


def coarser(groups: list[HunkGroup], most: int, hunks: Sequence[Hunk]) -> list[HunkGroup]:
    """Join neighbours, those of one file and small ones first, until at most `most` groups are left."""

    def cost(neighbours: Iterable[HunkGroup]) -> tuple[bool, int]:
        places = union_of(neighbours)
        return len(_files(places, hunks)) > 1, sum(hunks[place].changed_lines for place in places)

    while len(groups) > most:
        groups = _joined(groups, union_of(min(pairwise(groups), key=cost)), TOO_MANY)
    return groups


def _flaw(path: str, text: str | None) -> str:
    """The problem of a file, as the object of `they leave`; empty if it parses, or can't be parsed here."""
    if text is None or len(text) > LARGEST:
        return ""
    if path.endswith(".py"):
        error = compile_error(text, path)
        return f"a file that does not parse ({error})" if error else ""
    language = language_of(path)
    return "" if language is None or facts(text, language).is_sound else f"{path}, which then does not parse"


def union_of(groups: Iterable[HunkGroup]) -> Places:
    """The hunks of all the groups."""
    return frozenset().union(*(group.places for group in groups))


def _tried_subsets(groups: list[HunkGroup], hunks: Sequence[Hunk]) -> Iterator[tuple[HunkGroup, ...]]:
    """The subsets to try, small ones first, without the set of all groups."""
    if len(groups) <= EVERY_SUBSET:
        for size in range(1, len(groups)):
            yield from combinations(groups, size)
        return
    yield from ((group,) for group in groups)
    if len(groups) > MANY:
        return
    for one, other in pairwise(groups):
        if _files(one.places, hunks) & _files(other.places, hunks):
            yield one, other
    yield from (tuple(other for other in groups if other is not group) for group in groups)


def _files(places: Places, hunks: Sequence[Hunk]) -> set[str]:
    return {hunks[place].path for place in places}


def _smallest_invalid(groups: list[HunkGroup], problem: PatchProblem) -> list[HunkGroup]:
    """Remove each group without which a problem remains."""
    for group in tuple(groups):
        rest = [other for other in groups if other is not group]
        if rest and problem(union_of(rest)):
            groups = rest
    return groups


def _repair(groups: list[HunkGroup], invalid: list[HunkGroup], problem: PatchProblem, hunks: Sequence[Hunk]) -> Places:
    """The union of the invalid groups and the fewest others, near ones first, that is valid."""
    others = [group for group in groups if group not in invalid]
    near = _files(union_of(invalid), hunks)
    first = min(union_of(invalid))
    others.sort(key=lambda group: (not _files(group.places, hunks) & near, abs(min(group.places) - first)))
    for other in others:
        if not problem(union_of([*invalid, other])):
            return union_of([*invalid, other])
    together = list(invalid)
    for other in others:  # the nearest first; all groups together have no problem
        together.append(other)
        if not problem(union_of(together)):
            break
    return union_of(together)


def _joined(groups: list[HunkGroup], places: Places, why: str) -> list[HunkGroup]:
    """The groups, with all that contain any of the hunks joined to one."""
    joining = [group for group in groups if group.places & places]
    if len(joining) < 2:
        return groups
    reasons = dict.fromkeys(reason for reason in (*(group.why for group in joining), why) if reason)
    joined = replace(joining[0], places=union_of(joining), why="; ".join(reasons))
    unchanged = [group for group in groups if group not in joining]
    return sorted([*unchanged, joined], key=lambda group: min(group.places))
