"""The tidy table of an evaluation: one row a rollout, the same columns on disk (JSON lines) and in memory (pandas).

| column | type | meaning |
|-|-|-|
| policy, task, repository, function, file | text | policy, task, target; `function`: `file::qualified.name`, or empty |
| temperature, sample, seed | number | the attempt |
| task_digest, patch_digest, reward_name | text | inputs of the score |
| patch, completion | text | the proposed patch, and the answer word for word |
| empty | bool | no change: no patch, an unreadable answer, or a patch that does not apply; null: unknown |
| well_formed | bool | the answer could be read; null: unknown |
| applied | bool | the patch applied to the base (true for an empty patch); null: unknown |
| status, cause | text | `scored` or `unscored` (the reward), and the cause |
| end | text | end of the execution, see `regrade.rewards.evidence.End`; empty if unknown |
| reward | number | missing if unscored |
| fix | 0, 1 | all FAIL_TO_PASS tests pass, and the verdict reaches the required assurance level |
| fail_to_pass, fixed | number | FAIL_TO_PASS tests, those that pass |
| guarded, broken, newly_skipped | number | PASS_TO_PASS tests, those broken, those broken by a skip |
| broke | 0, 1 | `broken` > 0, or the execution crashed, timed out or ran out of memory |
| broken_tests | list | their ids |
| clean_fix | 0, 1 | `fix` and not `broke` |
| tampering | number | conclusive signs of tampering; missing if not checked |
| tokens, generation_seconds, execution_seconds, changed_lines | number | cost and size |
| parts | list | the reward's breakdown: name, value, weight, contribution, why |

Optional columns, which older rows lack:

| column | type | meaning |
|-|-|-|
| broken_hops | list | distance of each broken test from the patched modules (`evaluation.footprint.hops_of`) |
| broken_places | list | place of each broken test beside the change (`evaluation.broken_places.places_of`) |
| touches_file, touches_function | 0, 1 | a changed line lies in a file, a function, that the reference changes |
| off_file, off_function | number | share of the changed lines outside these files, these functions |
| lint_added, lint_removed | number | lint findings |
| complexity_change | number | sum of the cyclomatic complexity, after minus before |
| built | 0, 1 | the patched files compile and import |
| tampering_kinds | list | kinds of the signs of tampering, each once |
| protected_edits | number | files of tests and configuration that the patch edits |
| verification_seconds | number | cost of the assurance of the verdict |
| log_probability | number | of the answer under its policy, the mean over its tokens |

Columns of agents, which the rows of policies that answer once lack (the episodes: `storage.episode_file`):

| column | type | meaning |
|-|-|-|
| turns, test_runs, mistakes | number | steps, runs of tests, wrong uses of a tool |
| tested_at_end | 0, 1 | it ran tests on the tree that it hands in |
| taken_back | number | changes that it undid after a red test run |
| episode_end | text | how the episode ended, see `datasets.episodes.EpisodeEnd` |
| breaking_edits | number | changes that broke a test, by the full suite (`evaluation.step_measurement`) |
| breaking_edits_kept | number | of these, those of which something is broken at the end |

An unknown value is null on disk and NaN in memory, never 0. An attempt without any outcome (`fix`, `broke` and
`clean_fix`) is missing: the infrastructure failed. An attempt that was lost before there was an answer has the
`patch_digest` LOST. A single outcome can be unmeasured: graded results of other programs may state `clean_fix` alone,
and a task without PASS_TO_PASS tests has no `broke`.
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
    "verification_seconds",
    "log_probability",
    "turns",
    "test_runs",
    "mistakes",
    "tested_at_end",
    "taken_back",
    "breaking_edits",
    "breaking_edits_kept",
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
"""Texts that regrade wrote. Texts of a policy or a test may contain lone surrogates."""
LISTS = ("broken_tests", "parts")
OPTIONAL_LISTS = ("broken_hops", "broken_places", "tampering_kinds")
OPTIONAL_TEXTS = ("episode_end",)
COLUMNS = (*TEXTS, *INTEGERS, *FLAGS, *NUMBERS, *LISTS)
"""Columns of every row."""
OPTIONAL = (*OPTIONAL_NUMBERS, *OPTIONAL_LISTS, *OPTIONAL_TEXTS)
"""Columns that rows of older versions and other programs may lack."""

OUTCOMES = ("fix", "broke", "clean_fix")
"""The outcomes of an attempt; a missing attempt has none."""

LOST = "lost"
"""The `patch_digest` of a lost attempt. (An empty patch has the digest of the empty text.)"""

ATTEMPT = ("policy", "task", "temperature", "sample", "seed")
"""The columns that identify an attempt; a later row of the same attempt replaces an earlier one."""

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
    **dict.fromkeys(TEXTS, str | None), **dict.fromkeys(INTEGERS, Integer), **dict.fromkeys(FLAGS, bool | None),
    **dict.fromkeys(NUMBERS, Count | None), **dict.fromkeys(("fix", "broke", "clean_fix"), Outcome | None),
    "reward": Finite | None, "broken_tests": list[str] | None, "parts": list[_StoredPart] | None,
    "policy": str, "task": str, "temperature": Count,
}  # fmt: skip
_OPTIONAL_TYPES: dict[str, Any] = {
    **dict.fromkeys(OPTIONAL_NUMBERS, Count | None), "complexity_change": Finite | None,
    "log_probability": Finite | None,
    **dict.fromkeys(("touches_file", "touches_function", "off_file", "off_function", "built"), Outcome | None),
    "tested_at_end": Outcome | None,
    "broken_hops": list[Integer | None] | None,
    "broken_places": list[str] | None,
    "tampering_kinds": list[str] | None, "episode_end": str | None,
}  # fmt: skip
_StoredRow = msgspec.defstruct(
    "_Row", [*((name, _TYPES[name]) for name in COLUMNS), *((name, _OPTIONAL_TYPES[name], None) for name in OPTIONAL)]
)


def table(rows: Iterable[Mapping[str, Any]], source: str = "rows") -> pd.DataFrame:
    """Rows as a table with exactly `COLUMNS` and `OPTIONAL` and their types; the last row of an attempt counts.

    Raises:
        UserError: a row lacks a column or has a value of the wrong type.
    """
    return _table(checked(rows, source))


def _table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    values = list({attempt(row): row for row in rows}.values())
    return pd.DataFrame({name: _column(name, values) for name in (*COLUMNS, *OPTIONAL)})


def checked(rows: Iterable[AnyRow], source: str = "rows") -> Iterator[AnyRow]:
    """The rows, unchanged, each after a check of its columns and their types.

    Raises:
        UserError: a row fails the check; the message names the row and the column.
    """
    for number, row in enumerate(rows, 1):
        plain = {name: None if _is_nan(value) else value for name, value in row.items()}
        converted(plain, _StoredRow, f"{source}, row {number}: not a row of an evaluation", WRITTEN_BY)
        for name in NAMES:
            if not is_text(row[name]):
                raise UserError(
                    f"{source}, row {number}: {name!r} contains a lone surrogate, which is not text: delete that row"
                )
        if (row["clean_fix"] or 0) > min(_known(row["fix"], 1), 1 - _known(row["broke"], 0)):
            raise UserError(
                f"{source}, row {number}: 'clean_fix' is {row['clean_fix']:g}, but 'fix' is {_shown(row['fix'])} and "
                f"'broke' {_shown(row['broke'])}: {WRITTEN_BY}"
            )
        yield row


def _shown(value: float | None) -> str:
    return "null" if value is None or _is_nan(value) else f"{value:g}"


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or _is_nan(value) else value


def _is_nan(value: object) -> bool:
    """NaN stands for null in memory."""
    return isinstance(value, float) and math.isnan(value)


def load_rows(path: Path) -> pd.DataFrame:
    """The table of a file, or of all `.jsonl` files of a folder.

    Raises:
        UserError: there is no such file, it has no rows, or a row is invalid.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; give a .jsonl file that `regrade evaluate` wrote, or its folder")
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    by_file = {file: list(checked(journal.read(file), str(file))) for file in files}
    rows = [row for of_file in by_file.values() for row in of_file]
    if not rows:
        raise UserError(f"{path}: no rows; give a .jsonl file that `regrade evaluate` wrote, or its folder")
    _check_distinct(by_file)
    return _table(rows)


def _check_distinct(by_file: Mapping[Path, Sequence[Mapping[str, Any]]]) -> None:
    """Raises UserError if two files have rows of the same attempt: they may be two policies of one name."""
    file_of: dict[tuple[Any, ...], Path] = {}
    for file, rows in by_file.items():
        for row in rows:
            other = file_of.setdefault(attempt(row), file)
            if other != file:
                raise UserError(
                    f"{other} and {file} both have a row of policy {row['policy']!r} at task {row['task']!r}, sample "
                    f"{row['sample']}: give one of the two files"
                )


def attempt(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The key of a row's attempt (see `ATTEMPT`)."""
    return tuple(float(row[name]) if name == "temperature" else row[name] for name in ATTEMPT)


def is_lost(row: Mapping[str, Any]) -> bool:
    """Did the infrastructure lose the attempt before there was an answer? Its outcome is then unknown."""
    return bool(row["patch_digest"] == LOST)


def without_outcome(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which attempts have no outcome at all, in contrast to a single outcome that was not measured."""
    return rows[list(OUTCOMES)].isna().all(axis="columns")


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> pd.Series[Any]:
    values = [row.get(name) for row in rows] if name in OPTIONAL else [row[name] for row in rows]
    if name in (*NUMBERS, *OPTIONAL_NUMBERS):
        return pd.Series(values, dtype="float64")
    if name in INTEGERS:
        return pd.Series(values, dtype="int64")
    if name in FLAGS:
        return pd.Series(values, dtype="boolean" if None in values else "bool")
    return pd.Series(
        ["" if value is None and name in (*TEXTS, *OPTIONAL_TEXTS) else value for value in values], dtype="object"
    )
