"""Which hunks of a patch can be told apart: the smallest groups that apply by themselves and leave files that parse."""

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
from regrade.evaluators.static.files import LARGEST, read
from regrade.evaluators.static.languages import language_of
from regrade.evaluators.static.syntax import compile_error

EVERY_SUBSET = 6
"""Up to this many groups each subset of them is tried; of more, single ones, neighbours, and all but one."""
TOO_MANY = "there are too many hunks to tell each apart"
MANY = 40
"""Beyond it single ones alone are tried: each try takes some hundredths of a second."""
NOT_APPLYING = "the patch does not apply to the task's base: "

Places = frozenset[int]
PatchProblem = Callable[[Places], str]
"""Why the patch of these hunks alone is no patch of its own; empty where it is one."""


@dataclass(frozen=True)
class HunkGroup:
    """Hunks that are left out or kept together."""

    places: Places
    """Among the hunks of the patch."""
    why: str = ""
    """Why they are together; empty for a single hunk."""


def hunk_groups(task: Task, split: SplitPatch, most: int | None = None) -> tuple[list[HunkGroup], list[HunkGroup]]:
    """The groups of a patch's hunks, in its order, and the smaller ones that they are made of.

    Args:
        most: where there are more groups, neighbours are joined. Else the two are the same.

    Raises:
        PatchError: the whole patch does not apply.
    """
    whole = prepare(task, split.patch).after
    base = task.base
    paths = {path for file in split.patch.files for path in (file.path, file.old_path) if path}
    # What does not parse anyway, before the patch or after all of it, is no reason to keep hunks together.
    judged = sorted(path for path in paths if not _flaw(path, read(base, path)) and not _flaw(path, read(whole, path)))

    @cache
    def problem(places: Places) -> str:
        try:
            after = prepare(task, split.subset(places)).after
        except PatchError as error:
            return f"apart they do not apply ({str(error).removeprefix(NOT_APPLYING)})"
        flaws = (_flaw(path, read(after, path)) for path in judged)
        return next((f"apart they leave {flaw}" for flaw in flaws if flaw), "")

    start = [HunkGroup(frozenset({place})) for place in range(len(split.hunks))]
    for entries in split.inseparable:
        start = _joined(start, entries, "they are several entries about one file")
    small = sound_groups(start, problem, split.hunks)
    if most is None or len(small) <= most:
        return small, small
    return sound_groups(coarser(small, most, split.hunks), problem, split.hunks), small


def sound_groups(groups: list[HunkGroup], problem: PatchProblem, hunks: Sequence[Hunk]) -> list[HunkGroup]:
    """Join groups until what is left of any of them alone has no problem, as far as subsets are tried.

    Args:
        groups: the smallest that there could be. All of them together are taken to have no problem.
        hunks: of the patch; those of one file are tried together first.
    """
    while True:
        found = next(((subset, why) for subset in _suspects(groups, hunks) if (why := problem(_union(subset)))), None)
        if found is None:
            return groups
        smallest = _smallest_bad(list(found[0]), problem)
        groups = _joined(groups, _repaired(groups, smallest, problem, hunks), problem(_union(smallest)))


def coarser(groups: list[HunkGroup], most: int, hunks: Sequence[Hunk]) -> list[HunkGroup]:
    """Join neighbours, those of one file and small ones first, until there are at most so many."""

    def cost(neighbours: Iterable[HunkGroup]) -> tuple[bool, int]:
        places = _union(neighbours)
        return len(_files(places, hunks)) > 1, sum(hunks[place].changed_lines for place in places)

    while len(groups) > most:
        groups = _joined(groups, _union(min(pairwise(groups), key=cost)), TOO_MANY)
    return groups


def _flaw(path: str, text: str | None) -> str:
    """What is wrong with a file, to stand behind `they leave`; empty where it parses or nobody can tell."""
    if text is None or len(text) > LARGEST:
        return ""
    if path.endswith(".py"):
        error = compile_error(text, path)
        return f"a file that does not parse ({error})" if error else ""
    language = language_of(path)
    return "" if language is None or facts(text, language).is_sound else f"{path}, which then does not parse"


def _union(groups: Iterable[HunkGroup]) -> Places:
    return frozenset().union(*(group.places for group in groups))


def _suspects(groups: list[HunkGroup], hunks: Sequence[Hunk]) -> Iterator[tuple[HunkGroup, ...]]:
    """Subsets that are tried, small ones first; all of the groups together are not among them."""
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


def _smallest_bad(groups: list[HunkGroup], problem: PatchProblem) -> list[HunkGroup]:
    """The groups that are left when each is dropped without which the problem stays."""
    for group in tuple(groups):
        rest = [other for other in groups if other is not group]
        if rest and problem(_union(rest)):
            groups = rest
    return groups


def _repaired(groups: list[HunkGroup], bad: list[HunkGroup], problem: PatchProblem, hunks: Sequence[Hunk]) -> Places:
    """The groups to join: the fewest others, near ones first, that take the problem away."""
    others = [group for group in groups if group not in bad]
    near = _files(_union(bad), hunks)
    first = min(_union(bad))
    others.sort(key=lambda group: (not _files(group.places, hunks) & near, abs(min(group.places) - first)))
    for other in others:
        if not problem(_union([*bad, other])):
            return _union([*bad, other])
    together = list(bad)
    for other in others:  # the nearest ones, more and more of them: at the latest all of them do
        together.append(other)
        if not problem(_union(together)):
            break
    return _union(together)


def _joined(groups: list[HunkGroup], places: Places, why: str) -> list[HunkGroup]:
    """The groups with those that share any of the places made one."""
    meeting = [group for group in groups if group.places & places]
    if len(meeting) < 2:
        return groups
    reasons = dict.fromkeys(reason for reason in (*(group.why for group in meeting), why) if reason)
    made = replace(meeting[0], places=_union(meeting), why="; ".join(reasons))
    kept = [group for group in groups if group not in meeting]
    return sorted([*kept, made], key=lambda group: min(group.places))
