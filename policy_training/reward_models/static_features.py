"""Features of a patch that need no execution: size, impact, lint, complexity, signs of tampering, and its words.

The words are compared with those of the task: its instruction, its failing test and the function to fix. Nothing is
read of the reference patch, nor of an execution. A feature whose evidence is missing is NaN, which the trees handle.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrade.datasets.node_ids import file_of
from regrade.evaluators.storage.labelled_attempts import ProposedPatch
from regrade.rewards.evidence import (
    ComplexityDelta,
    Diff,
    Impact,
    Integrity,
    LintDelta,
    PatchText,
)

Floats = NDArray[np.float64]

FEATURE_FORMAT = 1
"""Version of the features. It grows with each change of their meaning: a model reads only what it was trained on."""
STATIC_KINDS = frozenset({Diff, Impact, LintDelta, ComplexityDelta, Integrity, PatchText})
"""The evidence that is read, all of it static."""
LONGEST = 400
"""Tokens of a side of the change that are compared one by one; those beyond are only counted."""

_TOKEN = re.compile(r"[A-Za-z_]\w*|\d+(?:\.\d+)?|[=!<>]=|//|\*\*|->|[^\s\w]")
_KINDS: Mapping[str, frozenset[str]] = {
    "comparison": frozenset({"==", "!=", "<", ">", "<=", ">=", "is", "in"}),
    "logic": frozenset({"and", "or", "not"}),
    "arithmetic": frozenset({"+", "-", "*", "/", "//", "%", "**", "&", "|", "^"}),
    "branch": frozenset({"if", "else", "elif", "for", "while", "try", "except", "break", "continue", "with"}),
    "result": frozenset({"return", "yield", "raise"}),
    "value": frozenset({"True", "False", "None"}),
    "bracket": frozenset({"(", ")", "[", "]", "{", "}"}),
    "definition": frozenset({"def", "class", "lambda", "import", "from", "global"}),
    "punctuation": frozenset({",", ":", ".", ";", "=", "@", '"', "'", "#", "\\", "`"}),
}
_SIDES = (*_KINDS, "number", "name")
"""Kinds of tokens."""
_COUNTED = (
    "==", "!=", "<", ">", "<=", ">=", "is", "in", "and", "or", "not", "+", "-", "*", "/", "//", "%", "if", "else",
    "return", "break", "continue", "True", "False", "None", "0", "1", "2", "self", "len", "int", "str", "list",
)  # fmt: skip
"""Tokens of which each is counted: those that decide what usual code does."""


def features(patches: Sequence[ProposedPatch]) -> Floats:
    """(patches, len(FEATURES)); NaN: unknown."""
    rows = [_row(patch) for patch in patches]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))


def _row(patch: ProposedPatch) -> list[float]:
    records = patch.evidence.of(STATIC_KINDS).records
    values = {
        **_size(records.get(Diff), patch),
        **_reach(records.get(Impact), patch),
        **_lint(records.get(LintDelta)),
        **_complexity(records.get(ComplexityDelta)),
        **_signs(records.get(Integrity)),
        **_words(records.get(PatchText), patch),
        **_of_task(patch),
    }
    return [values.get(name, math.nan) for name in FEATURES]


def _size(diff: Diff | None, patch: ProposedPatch) -> dict[str, float]:
    found: dict[str, float] = {"hunks": patch.patch.count("\n@@ "), "is_empty": float(not patch.patch.strip())}
    if diff is not None:
        found |= {"added": diff.added_lines, "removed": diff.removed_lines, "files": len(diff.files)}
        found |= {"changed": diff.changed_lines, "touches_file": float(patch.file in diff.files)}
    return found


def _reach(impact: Impact | None, patch: ProposedPatch) -> dict[str, float]:
    if impact is None:
        return {}
    weights = [module.weight for module in impact.modules]
    failing = set(map(file_of, patch.fail_to_pass))
    reached = {test for module in impact.modules for test in module.tests}
    return {
        "impacted_modules": len(weights),
        "impact": sum(weights),
        "largest_impact": max(weights, default=0.0),
        "hops": max((module.hops for module in impact.modules), default=0),
        "symbols": len(impact.changed_symbols),
        "touches_function": float(patch.function in impact.changed_symbols),
        "reached_test_files": len(reached),
        "reaches_failing_test": float(bool(failing & reached)),
        "dangling": sum(len(module.dangling) for module in impact.modules) + len(impact.dangling_tests),
        "new_cycles": len(impact.new_cycles),
        "unparsable": len(impact.unparsable),
    }


def _lint(lint: LintDelta | None) -> dict[str, float]:
    if lint is None:
        return {}
    letters = Counter(finding.rule[:1] for finding in lint.added)
    return {
        "lint_added": len(lint.added),
        "lint_removed": len(lint.removed),
        "lint_names": letters["F"],
        "lint_bugs": letters["B"],
        "lint_unparsable": len(lint.unparsable),
    }


def _complexity(delta: ComplexityDelta | None) -> dict[str, float]:
    if delta is None:
        return {}
    return {
        "complexity_change": delta.sum_after - delta.sum_before,
        "complexity_growth": delta.growth,
        "complexity_before": delta.max_before,
        "changed_functions": len(delta.functions),
    }


def _signs(integrity: Integrity | None) -> dict[str, float]:
    if integrity is None:
        return {}
    conclusive = sum(sign.conclusive for sign in integrity.signs)
    return {
        "tampering": conclusive,
        "inconclusive_signs": len(integrity.signs) - conclusive,
        "protected_edits": len(integrity.ignored_files),
    }


def _words(text: PatchText | None, patch: ProposedPatch) -> dict[str, float]:
    """The tokens of the removed and of the added lines, and those of the task among them."""
    removed, added = _lines(text, patch.patch)
    before, after = _tokens(removed), _tokens(added)
    gone, new = _differing(before, after)
    counts = {f"{kind}_{side}": 0.0 for kind in _SIDES for side in ("gone", "new")}
    for side, tokens in (("gone", gone), ("new", new)):
        for token in tokens:
            counts[f"{_kind(token)}_{side}"] += 1.0
    surplus = Counter(new)
    surplus.subtract(gone)
    shown = set(_tokens([patch.instruction, patch.failure, *patch.fail_to_pass[:20]]))
    failure = set(_tokens([patch.failure]))
    names = {token for token in new if _kind(token) == "name"}
    known = set(before) | set(_tokens(_context(patch.patch)))
    return {
        **counts,
        **{f"more {token}": float(surplus[token]) for token in _COUNTED},
        "tokens_gone": len(gone),
        "tokens_new": len(new),
        "characters": sum(map(len, added)) - sum(map(len, removed)),
        "likeness": difflib.SequenceMatcher(None, before[:LONGEST], after[:LONGEST], autojunk=False).ratio(),
        "new_in_task": len(names & shown),
        "new_in_failure": len(names & failure),
        "gone_in_failure": len({token for token in gone if _kind(token) == "name"} & failure),
        "new_unknown": len(names - known),
        "replaced_kind": _SIDES.index(_kind(gone[0])) if gone else -1.0,
        "replacing_kind": _SIDES.index(_kind(new[0])) if new else -1.0,
        "only_reordered": float(Counter(gone) == Counter(new) and bool(gone)),
        "numbers_change": _sum_of_numbers(new) - _sum_of_numbers(gone),
    }


def _of_task(patch: ProposedPatch) -> dict[str, float]:
    """What only moves the base rate: the same for all patches of a task."""
    return {
        "failing_tests": len(patch.fail_to_pass),
        "failing_files": len(set(map(file_of, patch.fail_to_pass))),
        "fails_by_assertion": float("AssertionError" in patch.failure or "assert" in patch.failure.partition("\n")[2]),
    }


def _lines(text: PatchText | None, patch: str) -> tuple[list[str], list[str]]:
    """Removed and added lines: of the difference of the trees if it is known, else those of the text."""
    if text is not None:
        removed = [line for file in text.files for _, line in file.removed]
        return removed, [line for file in text.files for _, line in file.added]
    lines = patch.split("\n")
    return (
        [line[1:] for line in lines if line.startswith("-") and not line.startswith("---")],
        [line[1:] for line in lines if line.startswith("+") and not line.startswith("+++")],
    )


def _context(patch: str) -> list[str]:
    return [line[1:] for line in patch.split("\n") if line.startswith(" ")]


def _tokens(lines: Iterable[str]) -> list[str]:
    return [token for line in lines for token in _TOKEN.findall(line)]


def _differing(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    """The tokens that only one side has, in order."""
    old, new = before[:LONGEST], after[:LONGEST]
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changed = [block for block in blocks if block[0] != "equal"]
    gone = [token for _, start, end, _, _ in changed for token in old[start:end]] + before[LONGEST:]
    come = [token for _, _, _, start, end in changed for token in new[start:end]] + after[LONGEST:]
    return gone, come


def _kind(token: str) -> str:
    for kind, tokens in _KINDS.items():
        if token in tokens:
            return kind
    return "number" if token[0].isdigit() else "name" if token[0].isalpha() or token[0] == "_" else "punctuation"


def _sum_of_numbers(tokens: Iterable[str]) -> float:
    """At most 10^6: larger numbers say no more."""
    return min(sum(float(token) for token in tokens if token[0].isdigit()), 1e6)


def _names() -> tuple[str, ...]:
    """The features, in their order, as an empty patch has them."""
    empty: dict[type, Any] = {
        Diff: Diff(0, 0, ()),
        Impact: Impact(changed_symbols=(), modules=()),
        LintDelta: LintDelta((), (), 0),
        ComplexityDelta: ComplexityDelta(functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0),
        Integrity: Integrity(()),
    }
    nothing = ProposedPatch(
        task_id="", repository="", function="", file="", instruction="", failure="", fail_to_pass=(), patch=""
    )
    groups = (
        _size(empty[Diff], nothing), _reach(empty[Impact], nothing), _lint(empty[LintDelta]),
        _complexity(empty[ComplexityDelta]), _signs(empty[Integrity]), _words(None, nothing), _of_task(nothing),
    )  # fmt: skip
    return tuple(name for group in groups for name in group)


FEATURES = _names()
