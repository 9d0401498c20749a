"""The tidy table of an evaluation: one row a rollout, the same columns on disk (JSON lines) and in memory (pandas).

| column | type | meaning |
|-|-|-|
| policy, task, repository, function, file | text | who tried what; `function` is `file::qualified.name`, or empty |
| temperature, sample, seed | number | which attempt |
| task_digest, patch_digest, reward_name | text | what the verdict depends on |
| patch, completion | text | what the policy proposed, and its answer word for word |
| empty | bool | nothing was changed: no patch, an unreadable answer, or a patch that does not apply |
| well_formed | bool | the answer could be read |
| applied | bool | the patch applied to the base (true for one that changes nothing) |
| status, cause | text | `scored` or `unscored` (the reward), and why |
| end | text | how the execution ended, see `regrade.rewards.evidence.End`; empty if unknown |
| reward | number | missing if unscored |
| fix | 0, 1 | all FAIL_TO_PASS pass |
| fail_to_pass, fixed | number | how many there are, how many of them pass |
| guarded, broken, newly_skipped | number | PASS_TO_PASS tests; those that no longer pass; those of them skipped |
| broke | 0, 1 | `broken` > 0, or the patch crashed, ran out of time or out of memory |
| broken_tests | list | ids |
| clean_fix | 0, 1 | `fix` and not `broke` |
| tampering | number | conclusive signs of reaching for the verdict; missing if nobody looked |
| tokens, generation_seconds, execution_seconds, changed_lines | number | cost and size |
| parts | list | the reward's breakdown: name, value, weight, contribution, why |

Those that follow may be left out on disk, as older rows do:

| column | type | meaning |
|-|-|-|
| broken_hops | list | distance of each of `broken_tests` from the patched modules, see
`regrade.evaluators.evaluation.footprint` | | touches_file, touches_function | 0, 1 | is a line changed in a file, a
function, that the reference changes? | | off_file, off_function | number | share of the changed lines outside those
files, those functions | | lint_added, lint_removed, complexity_change | number | findings; sum of the cyclomatic
complexity, after less before | | built | 0, 1 | what is patched still compiles and imports |
| tampering_kinds | list | the kinds of those signs, each once |
| protected_edits | number | files of tests and configuration that the patch tried to change |

What is not known, because the infrastructure failed, is null on disk and NaN in memory. It is never 0. An attempt that
was lost before there was an answer has the `patch_digest` LOST.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import pandas as pd

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import is_text
from regrade.evaluators.storage import journal

NUMBERS = (
    "temperature",
    "reward",
    "fix",
    "fail_to_pass",
    "fixed",
    "guarded",
    "broken",
    "newly_skipped",
    "broke",
    "clean_fix",
    "tampering",
    "tokens",
    "generation_seconds",
    "execution_seconds",
    "changed_lines",
)
OPTIONAL_NUMBERS = (
    "touches_file",
    "touches_function",
    "off_file",
    "off_function",
    "lint_added",
    "lint_removed",
    "complexity_change",
    "built",
    "protected_edits",
)
INTEGERS = ("sample", "seed")
FLAGS = ("empty", "well_formed", "applied")
TEXTS = (
    "policy",
    "task",
    "repository",
    "function",
    "file",
    "task_digest",
    "patch_digest",
    "reward_name",
    "patch",
    "completion",
    "status",
    "cause",
    "end",
)
NAMES = ("policy", "task", "repository", "function", "file", "reward_name")
"""Those of the texts that regrade wrote itself. What a policy wrote, or a test printed, may be no text at all."""
LISTS = ("broken_tests", "parts")
OPTIONAL_LISTS = ("broken_hops", "tampering_kinds")
COLUMNS = (*TEXTS, *INTEGERS, *FLAGS, *NUMBERS, *LISTS)
"""What every row has."""
OPTIONAL = (*OPTIONAL_NUMBERS, *OPTIONAL_LISTS)
"""What rows of older versions, and of other programs, may lack."""

LOST = "lost"
"""Stands for the digest of a patch that nobody knows. (That of an answer which changes nothing is the empty text's.)"""

ATTEMPT = ("policy", "task", "temperature", "sample", "seed")
"""The columns that name one attempt; a later row of the same attempt replaces an earlier one."""


WRITTEN_BY = "give a file that `regrade evaluate` wrote"

AnyRow = TypeVar("AnyRow", bound=Mapping[str, Any])


Outcome = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[float, msgspec.Meta(ge=0, le=1e300)]
"""Of tests, lines, tokens, findings or seconds."""
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _StoredPart(msgspec.Struct):
    """A part of a reward's breakdown."""

    name: str
    value: Finite | None
    weight: Finite
    contribution: Finite
    why: str
    parts: list[_StoredPart] = []


_TYPES: dict[str, Any] = {
    **dict.fromkeys(TEXTS, str | None), **dict.fromkeys(INTEGERS, Integer), **dict.fromkeys(FLAGS, bool),
    **dict.fromkeys(NUMBERS, Count | None), **dict.fromkeys(("fix", "broke", "clean_fix"), Outcome | None),
    "reward": Finite | None, "broken_tests": list[str] | None, "parts": list[_StoredPart] | None,
    "policy": str, "task": str, "temperature": Count,
}  # fmt: skip
_OPTIONAL_TYPES: dict[str, Any] = {
    **dict.fromkeys(OPTIONAL_NUMBERS, Count | None), "complexity_change": Finite | None,
    **dict.fromkeys(("touches_file", "touches_function", "off_file", "off_function", "built"), Outcome | None),
    "broken_hops": list[Integer | None] | None,
    "tampering_kinds": list[str] | None,
}  # fmt: skip
_StoredRow = msgspec.defstruct(
    "_Row",
    [*((name, _TYPES[name]) for name in COLUMNS), *((name, _OPTIONAL_TYPES[name], None) for name in OPTIONAL)],
)


def table(rows: Iterable[Mapping[str, Any]], source: str = "rows") -> pd.DataFrame:
    """Rows as a table with exactly `COLUMNS` and `OPTIONAL` and their types; of rows of one attempt the last counts.

    Raises:
        UserError: a row lacks a column or holds something of another type.
    """
    latest = {attempt(row): row for row in checked(rows, source)}
    values = list(latest.values())
    return pd.DataFrame({name: _column(name, values) for name in (*COLUMNS, *OPTIONAL)})


def checked(rows: Iterable[AnyRow], source: str = "rows") -> Iterator[AnyRow]:
    """The rows, as they are, once each is seen to have every column with a value of its type.

    Raises:
        UserError: one has not; names the row and the column.
    """
    for number, row in enumerate(rows, 1):
        plain = {name: None if _is_nan(value) else value for name, value in row.items()}
        converted(plain, _StoredRow, f"{source}, row {number}: not a row of an evaluation", WRITTEN_BY)
        for name in NAMES:
            if not is_text(row[name]):
                raise UserError(
                    f"{source}, row {number}: {name!r} holds half a surrogate pair, which is no text: delete that row"
                )
        if (row["clean_fix"] or 0) > min(row["fix"] or 0, 1 - (row["broke"] or 0)):
            raise UserError(
                f"{source}, row {number}: 'clean_fix' is {row['clean_fix']:g}, but 'fix' is {_said(row['fix'])} and "
                f"'broke' {_said(row['broke'])}: {WRITTEN_BY}"
            )
        yield row


def _said(value: float | None) -> str:
    return "null" if value is None or _is_nan(value) else f"{value:g}"


def _is_nan(value: object) -> bool:
    """NaN stands for null in memory."""
    return isinstance(value, float) and math.isnan(value)


def load_rows(path: Path) -> pd.DataFrame:
    """The table of a file, or of all `.jsonl` files of a folder.

    Raises:
        UserError: there is no such file, it has no rows, or a row is wrong.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; give a .jsonl file that `regrade evaluate` wrote, or its folder")
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    rows = [row for file in files for row in journal.read(file)]
    if not rows:
        raise UserError(f"{path}: no rows; give a .jsonl file that `regrade evaluate` wrote, or its folder")
    return table(rows, str(path))


def attempt(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names the attempt of a row (see `ATTEMPT`)."""
    return tuple(float(row[name]) if name == "temperature" else row[name] for name in ATTEMPT)


def is_lost(row: Mapping[str, Any]) -> bool:
    """Did the infrastructure lose the attempt before there was an answer? Nothing is then known of the policy's."""
    return bool(row["patch_digest"] == LOST)


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> pd.Series[Any]:
    values = [row.get(name) for row in rows] if name in OPTIONAL else [row[name] for row in rows]
    if name in (*NUMBERS, *OPTIONAL_NUMBERS):
        return pd.Series(values, dtype="float64")
    if name in INTEGERS:
        return pd.Series(values, dtype="int64")
    if name in FLAGS:
        return pd.Series(values, dtype="bool")
    return pd.Series(["" if value is None and name in TEXTS else value for value in values], dtype="object")
