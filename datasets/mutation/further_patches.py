"""Further patches for a task whose function and reference are known: nearly right ones, and wrong ones.

All change the function of the task alone, half of them the line of the bug alone, as a policy would that looks in the
right place. They only propose: what each fixes and breaks, the tests show.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import lru_cache

from regrade.datasets.applying import changed_files
from regrade.datasets.mutation.cheats import cheats
from regrade.datasets.mutation.mutants import Mutant, Mutations, shuffled
from regrade.datasets.mutation.operators import OPERATORS, Operator
from regrade.datasets.mutation.rewrites import REWRITES
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task

SLOW_KINDS = frozenset({"default-argument"})
"""Kinds of edits that change a signature: such a patch needs the whole suite."""


def mutants_of_bug(task: Task, seed: int) -> Iterator[Patch]:
    """The bug stays, and one more edit is made in the function; distinct patches, in an order that the seed decides."""
    text = _buggy(task)
    if text is not None:
        yield from _mutated(task, text, OPERATORS, seed)


def near_misses(task: Task, seed: int) -> Iterator[Patch]:
    """The bug is taken back as by the reference, and one other edit is made in the function, likewise."""
    text = _fixed(task)
    if text is not None:
        yield from _mutated(task, text, OPERATORS, seed)


def rewritten(task: Task, seed: int) -> Iterator[Patch]:
    """The function in other words, alternately of the fixed and of the buggy code."""
    fixed, buggy = _fixed(task), _buggy(task)
    if fixed is None or buggy is None:
        return
    both = [_mutated(task, text, REWRITES, seed) for text in (fixed, buggy)]
    while both:
        source = both.pop(0)
        patch = next(source, None)
        if patch is not None:
            yield patch
            both.append(source)


def cheating(task: Task, seed: int) -> Iterator[Patch]:
    """The cheats that fit the task, in an order that the seed and the task decide."""
    found = list(cheats(task))
    random.Random(f"{seed}/{task.id}").shuffle(found)
    yield from (patch for _, patch in found)


def _buggy(task: Task) -> str | None:
    is_python = task.target is not None and task.target.file.endswith(".py")
    return task.base.read_or_none(task.target.file) if task.target is not None and is_python else None


def _fixed(task: Task) -> str | None:
    """The file of the function after the reference; None if the reference does not change it alone."""
    if task.reference is None or _buggy(task) is None:
        return None
    try:
        changed = changed_files(task.base, task.reference)
    except (PatchError, OSError):
        return None
    assert task.target is not None
    return changed.get(task.target.file) if len(changed) == 1 else None


def _mutated(task: Task, text: str, operators: Mapping[str, Operator], seed: int) -> Iterator[Patch]:
    """Patches from the base to each mutant of `text`, without those that lead to the base or to the reference."""
    assert task.target is not None
    file, base = task.target.file, _buggy(task)
    assert base is not None
    lines = _changed_lines(base, _fixed(task) or base)
    try:
        mutations = _mutations(text, file, "rewrites" if operators is REWRITES else "mutants")
    except SyntaxError:
        return
    functions = [function for function in mutations.functions if function.name == task.target.function]
    if len(functions) != 1:
        return
    found = [mutant for mutant in shuffled(mutations.of(functions[0]), seed) if mutant.kind not in SLOW_KINDS]
    on_line = [mutant for mutant in found if mutant.line in lines]
    elsewhere = [mutant for mutant in found if mutant.line not in lines]
    known = {base, _fixed(task)}
    for mutant in _alternating(on_line, elsewhere):
        source = mutant.source
        if source not in known and mutations.differs(mutant):
            known.add(source)
            yield Patch.between({file: base}, {file: source})


def _alternating(*groups: list[Mutant]) -> Iterator[Mutant]:
    for index in range(max(map(len, groups))):
        yield from (group[index] for group in groups if index < len(group))


def _changed_lines(before: str, after: str) -> frozenset[int]:
    """The lines, 1-based, between the equal starts and the equal ends of two texts."""
    old, new = before.split("\n"), after.split("\n")
    start = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = range(min(len(old), len(new)) - start)
    end = next((n for n in rest if old[-1 - n] != new[-1 - n]), len(rest))
    return frozenset(range(start + 1, len(new) - end + 1))


@lru_cache(maxsize=8)
def _mutations(text: str, file: str, kind: str) -> Mutations:
    """A file is parsed once for the many tasks in it."""
    return Mutations(text, file, operators=REWRITES if kind == "rewrites" else OPERATORS)
