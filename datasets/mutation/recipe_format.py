"""Tasks as recipes: the place and the kind of a planted bug, and the tests that fail. No third-party code is stored.

A recipe file holds one package (`.json`, or `.json.gz`):

    {"format": 1, "package": NAME, "version": VERSION, "sha256": of the source distribution, "seed": of the mutation,
     "tests": [every stable test id],
     "reach": {"file::function": indexes into tests}, "imported": ["file::function", ...],
     "tasks": [{"file", "function", "kind", "place", "line", "digest": of the mutated file, "fail_to_pass": indexes,
                "failure": {"file", "line", "error"},
  and, if an agent is shown one file of the tests,
                "shown": that file,
                "wrong_fix": {"line", "kind", "place": of another bug of the function, which the shown tests do not
                              notice, "breaks": indexes of the tests that do}}, ...]}

Indexes are written as ranges, such as `"3-5,9"`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import Natural, Plain, Positive, converted
from regrade.datasets.json_text import parse_json, read_text, shown
from regrade.datasets.mutation.mutants import SHORT, FunctionSize
from regrade.datasets.mutation.packages import Package, package
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import TestSuite

FORMAT = 1


@dataclass(frozen=True)
class Failure:
    """The failure of one test: its line and its error."""

    file: str
    line: int
    """1-based line in the pristine test file; 0 if unknown."""
    error: str


@dataclass(frozen=True, kw_only=True)
class WrongFix:
    """A wrong repair that the shown tests do not notice: it takes the planted bug back and plants another one in the
    same function. If both lie on one line, it replaces that line alone."""

    line: int
    kind: str
    place: str
    breaks: tuple[int, ...]
    """Indexes of the guarded tests that it breaks, all of them in files that are not shown."""

    def to_json(self) -> dict[str, Any]:
        return {"line": self.line, "kind": self.kind, "place": self.place, "breaks": to_ranges(self.breaks)}


@dataclass(frozen=True, kw_only=True)
class TaskRecipe:
    """One planted bug."""

    file: str
    function: str
    kind: str
    place: str
    line: int
    digest: str
    """Of the mutated file: proves that the rebuilt bug is the validated one."""
    fail_to_pass: tuple[int, ...]
    """Indexes of the tests that fail."""
    failure: Failure
    shown: str | None = None
    """The one file of tests that an agent is shown; None: all tests."""
    wrong_fix: WrongFix | None = None

    def to_json(self) -> dict[str, Any]:
        failure = {"file": self.failure.file, "line": self.failure.line, "error": self.failure.error}
        return {
            "file": self.file,
            "function": self.function,
            "kind": self.kind,
            "place": self.place,
            "line": self.line,
            "digest": self.digest,
            "fail_to_pass": to_ranges(self.fail_to_pass),
            "failure": failure,
            **({} if self.shown is None else {"shown": self.shown}),
            **({} if self.wrong_fix is None else {"wrong_fix": self.wrong_fix.to_json()}),
        }


@dataclass(frozen=True, kw_only=True)
class PackageRecipes:
    """All tasks of one package, and their shared data."""

    package: Package
    seed: int
    tests: tuple[str, ...]
    """Sorted ids of the tests that passed in each of several runs of the pristine package."""
    reach: Mapping[str, tuple[int, ...]]
    """`file::qualified.function` -> indexes of the tests that execute it."""
    imported: tuple[str, ...]
    """Sorted `file::qualified.function` of the functions executed during the collection of tests."""
    tasks: tuple[TaskRecipe, ...]
    suite: TestSuite | None = None
    """The measured suite, where the recipes are for a repository of the user's; None: that of the pinned package. Not
    part of the file."""
    size: FunctionSize = SHORT
    """The largest mutated function. Not part of the file."""

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "package": self.package.name,
            "version": self.package.version,
            "sha256": self.package.sha256,
            "seed": self.seed,
            "tests": list(self.tests),
            "reach": {key: to_ranges(self.reach[key]) for key in sorted(self.reach)},
            "imported": list(self.imported),
            "tasks": [task.to_json() for task in self.tasks],
        }


class _FailureEntry(msgspec.Struct, kw_only=True):
    file: Plain
    line: Natural
    error: Plain


class _WrongFixEntry(msgspec.Struct, kw_only=True):
    line: Positive
    kind: Plain
    place: Plain
    breaks: str


class _RecipeEntry(msgspec.Struct, kw_only=True):
    file: Plain
    function: Plain
    kind: Plain
    place: Plain
    line: Positive
    digest: Plain
    fail_to_pass: str
    failure: _FailureEntry
    shown: Plain | None = None
    wrong_fix: _WrongFixEntry | None = None


class _Head(msgspec.Struct, kw_only=True):
    """The common part of files of any format version."""

    format: Positive


class _Origin(msgspec.Struct, kw_only=True):
    """The release that the recipes are for."""

    package: Plain
    version: Plain
    sha256: Plain


class _RecipeFile(_Origin, kw_only=True):
    seed: Natural
    tests: tuple[Plain, ...]
    reach: dict[str, str] = {}
    imported: tuple[Plain, ...]
    tasks: list[_RecipeEntry]


def write_recipes(recipes: PackageRecipes, folder: Path) -> Path:
    """Write `folder/NAME.json`, one task a line; equal recipes give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    value = recipes.to_json()
    tasks = ",\n".join(_compact(task) for task in value.pop("tasks"))
    shared = ",\n".join(f"{_compact(key)}:{_compact(part)}" for key, part in value.items())
    path = folder / f"{recipes.package.name}.json"
    # Not compressed: other versions of zlib write other bytes.
    path.write_text(f'{{{shared},\n"tasks":[\n{tasks}\n]}}\n', encoding="utf-8", newline="\n")
    return path


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def read_recipes(path: Path) -> PackageRecipes:
    """The recipes of a file.

    Raises:
        UserError: the file is unreadable, has another format version, is for another release than the pinned one, or
            contains a wrong value; with the file and the key.
    """
    where = str(path)
    value = parse_json(read_text(path), where)
    advice = "rebuild the recipes with `regrade tasks build`"
    version = converted(value, _Head, where).format
    if version != FORMAT:
        raise UserError(f"{where}: 'format' is {version}, this version reads {FORMAT}: {advice}")
    origin = converted(value, _Origin, where)
    pinned = package(origin.package)
    if (origin.version, origin.sha256) != (pinned.version, pinned.sha256):
        releases = f"made from {pinned.name} {shown(origin.version)}, but pinned is {pinned.version}"
        raise UserError(f"{where}: {releases}: {advice}")
    file = converted(value, _RecipeFile, where)
    tests = len(file.tests)
    files = frozenset(map(file_of, file.tests))
    for number, task in enumerate(file.tasks):
        if task.shown is not None and task.shown not in files:
            raise UserError(f"{where}, tasks[{number}]: 'shown' is {shown(task.shown)}, which is no file of the tests")
    return PackageRecipes(
        package=pinned,
        seed=file.seed,
        tests=file.tests,
        reach={key: _indexes(ranges, key, f"{where}, reach", tests) for key, ranges in file.reach.items()},
        imported=file.imported,
        tasks=tuple(_recipe(task, f"{where}, tasks[{number}]", tests) for number, task in enumerate(file.tasks)),
    )


def _recipe(task: _RecipeEntry, where: str, tests: int) -> TaskRecipe:
    fields = msgspec.structs.asdict(task)
    fields["fail_to_pass"] = _indexes(task.fail_to_pass, "fail_to_pass", where, tests)
    fields["failure"] = Failure(**msgspec.structs.asdict(task.failure))
    if task.wrong_fix is not None:
        breaks = _indexes(task.wrong_fix.breaks, "breaks", f"{where}, wrong_fix", tests)
        fields["wrong_fix"] = WrongFix(**{**msgspec.structs.asdict(task.wrong_fix), "breaks": breaks})
    return TaskRecipe(**fields)


def recipe_files(folder: Path) -> list[Path]:
    """The recipe files of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.name.endswith((".json", ".json.gz")))


def to_ranges(indexes: Iterable[int]) -> str:
    """`[3, 4, 5, 9]` -> `"3-5,9"` (sorted, without duplicates)."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def from_ranges(text: str) -> tuple[int, ...]:
    """The inverse of `to_ranges`. Raises ValueError."""
    indexes: list[int] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ValueError(f"{part!r} is not a range")
        first, last = match.groups()
        run = range(int(first), int(last or first) + 1)
        if not 1 <= len(run) <= 1_000_000:
            raise ValueError(f"{part} is an empty range of tests, or too long")
        indexes.extend(run)
    return tuple(indexes)


def _indexes(ranges: str, key: str, where: str, tests: int) -> tuple[int, ...]:
    try:
        indexes = from_ranges(ranges)
    except ValueError:
        raise UserError(f"{where}: {key!r} must be ranges such as '3-5,9'; found {ranges[:60]!r}") from None
    if indexes and max(indexes) >= tests:
        raise UserError(f"{where}: {key!r} names test {max(indexes)}, but there are only {tests} tests")
    return indexes
