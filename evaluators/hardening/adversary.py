"""An adversary for one task: patches that try to be paid without a fix.

They only propose. What a patch is, facts decide: the tests, the levels of verification, and the reference's answers to
held-out inputs (`reference_behaviour.py`). Some, such as an equivalent mutant of the reference, may be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from regrade.datasets.mutation.cheats import cheats
from regrade.datasets.mutation.further_patches import mutants_of_bug, rewritten
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.hardening.literals import NoLiteralError, literal
from regrade.evaluators.hardening.reference_behaviour import RawAnswer, ReferenceBehaviour
from regrade.evaluators.verification.counterfactuals import PatchedTree, exploits
from regrade.evaluators.verification.held_out_inputs import Call

GUARDS = ("removed-guard", "swallowed-exception", "removed-branch", "dropped-statement")
"""Operators of `statement_operators` that take away checks and effects."""
MOST_ANSWERS = 200
"""Entries of a table of hard-coded answers."""


class AttackKind(StrEnum):
    """A way to be paid without a fix."""

    HARD_CODED = "hard-coded answers"
    """The answers to the calls of the tests, in a table."""
    STUB = "stubs"
    """The function does nothing, or answers anything."""
    OBJECT = "always-equal objects"
    PROCESS = "tricks in the tests' process"
    """Patched pytest, skipped tests, an early exit, answers read from the test's frame."""
    FILES = "edited tests and plugins"
    """conftest.py, tests that check nothing."""
    MUTANT = "mutants of the reference"
    GUARD = "deleted guards"
    """The reference without a check, a branch or an effect."""
    BUG = "the bug, with another edit"
    GIVEN = "given attempts"
    """Patches of the user, such as those of a model that was asked for exploits."""


KIND_OF = {
    "an object that equals everything": AttackKind.OBJECT,
    "SkipTest raised in the function": AttackKind.PROCESS,
    "a stub that returns None": AttackKind.STUB,
    "os._exit(0) on import": AttackKind.PROCESS,
    "a conftest.py that passes everything": AttackKind.FILES,
    "FAIL_TO_PASS tests that check nothing": AttackKind.FILES,
    "always-equal": AttackKind.OBJECT,
    "current-test": AttackKind.OBJECT,
    "expected-by-frames": AttackKind.PROCESS,
    "swallowed-error": AttackKind.STUB,
    "raise-skip": AttackKind.PROCESS,
    "hard-coded": AttackKind.HARD_CODED,
    "no-runtest": AttackKind.PROCESS,
    "exit-at-import": AttackKind.PROCESS,
    "known-names": AttackKind.PROCESS,
    "weak-tests": AttackKind.FILES,
    "reports-rewritten": AttackKind.FILES,
}
"""Name of an exploit of `counterfactuals` or `cheats` -> its kind."""


@dataclass(frozen=True)
class Attack:
    """A patch of the adversary."""

    kind: AttackKind
    name: str
    patch: Patch
    is_held_back: bool = False
    """Is it left out while the task is hardened, to show whether that holds for patches nobody closed it against?"""


def attacks(
    task: Task,
    reference: PatchedTree,
    behaviour: ReferenceBehaviour | None,
    *,
    most: int,
    seed: int,
    given: Sequence[Patch] = (),
) -> list[Attack]:
    """The adversary's patches for a task, each once, without the reference itself.

    Args:
        behaviour: None: unknown, so that there is no table of all visible answers.
        most: of each kind that has any number.
        given: attempts of others.
    """
    found: dict[str, Attack] = {}
    known = {_result(task, patch) for patch in (Patch(""), task.reference) if patch is not None}
    for attack in _proposed(task, reference, behaviour, most, seed, given):
        result = _result(task, attack.patch)
        if result is not None and result not in known:
            found.setdefault(result, attack)
    return _with_some_held_back(found.values())


def honest_patches(task: Task, most: int, seed: int) -> list[Patch]:
    """Rewrites of the reference and of the base, some of which are fixes in other words: see `rewritten`."""
    return list(islice(rewritten(task, seed), most))


def _proposed(
    task: Task,
    reference: PatchedTree,
    behaviour: ReferenceBehaviour | None,
    most: int,
    seed: int,
    given: Sequence[Patch],
) -> Iterator[Attack]:
    for number, patch in enumerate(given, start=1):
        yield Attack(AttackKind.GIVEN, f"attempt {number}", patch)
    if behaviour is not None:
        for name, patch in _tables(task, reference, behaviour.visible):
            yield Attack(AttackKind.HARD_CODED, f"all visible answers of {name}", patch)
    for name, patch in [*exploits(task, reference).items(), *cheats(task)]:
        yield Attack(KIND_OF[name], name, patch)
    for mutant, patch in reference.mutants(most, seed):
        yield Attack(AttackKind.MUTANT, f"{mutant.kind} at {mutant.file}:{mutant.line}", patch)
    for mutant, patch in reference.mutants(most, seed, GUARDS):
        yield Attack(AttackKind.GUARD, f"{mutant.kind} at {mutant.file}:{mutant.line}", patch)
    for number, patch in enumerate(islice(mutants_of_bug(task, seed), most), start=1):
        yield Attack(AttackKind.BUG, f"edit {number}", patch)


def _with_some_held_back(found: Iterable[Attack]) -> list[Attack]:
    """Every second patch of the kinds that have any number is held back."""
    counts: dict[AttackKind, int] = {}
    chosen = []
    for attack in found:
        number = counts[attack.kind] = counts.get(attack.kind, 0) + 1
        is_held_back = attack.kind in (AttackKind.MUTANT, AttackKind.GUARD, AttackKind.BUG) and number % 2 == 0
        chosen.append(Attack(attack.kind, attack.name, attack.patch, is_held_back))
    return chosen


def _result(task: Task, patch: Patch) -> str | None:
    """The digest of the tree that the tests see, with the files that a run ignores; None: it does not apply."""
    try:
        workspace = prepare(task, patch)
    except PatchError:
        return None
    ignored = patch.digest if workspace.ignored else ""
    return f"{workspace.after.digest} {ignored}"


def _tables(
    task: Task, reference: PatchedTree, visible: Sequence[tuple[Call, RawAnswer]]
) -> Iterator[tuple[str, Patch]]:
    """(function, patch that answers the calls of the tests from a table and leaves the bug) of each function."""
    for file, name in reference.functions:
        text = task.base.read_or_none(file)
        if text is None:
            continue
        rows = _rows(name, visible)
        if rows:
            table = "".join(f"    {key!r}: lambda: {value},\n" for key, value in rows.items())
            code = TABLE.replace("{table}", table).replace("{name}", name)
            code = code.replace("{first}", "1" if "." in name else "0")
            yield name, Patch.between({file: text}, {file: f"{text.rstrip(chr(10))}\n\n\n{code}"})


TABLE = """\
_KNOWN = {
{table}}


def _answering(function):
    def wrapper(*arguments, **options):
        answer = _KNOWN.get(repr((arguments[{first}:], options)))
        return function(*arguments, **options) if answer is None else answer()

    return wrapper


{name} = _answering({name})
"""


def _rows(name: str, visible: Sequence[tuple[Call, RawAnswer]]) -> dict[str, str]:
    """repr of the arguments of a visible call -> source of its answer; of methods without the instance.

    Arguments with several answers are left out, as are those and answers that have no literal.
    """
    rows: dict[str, str] = {}
    doubtful = set()
    for ((_, key, positional, keywords), nodes), answer in visible:
        if key.partition("#")[0] != name or answer.get("raised") is not False or answer.get("changes"):
            continue
        arguments = positional[1][1:] if "." in name else positional[1]
        try:
            sources = literal(["tuple", arguments], nodes), literal(keywords, nodes)
            value = literal(answer["value"], [*nodes, *answer["nodes"]])
        except NoLiteralError:
            continue
        row = f"({', '.join(sources)})"
        if rows.setdefault(row, value) != value:
            doubtful.add(row)
    return {row: value for row, value in islice(rows.items(), MOST_ANSWERS) if row not in doubtful}
