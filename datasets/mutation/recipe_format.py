"""Tasks as recipes: where a bug is planted, of which kind, and which tests notice. No third-party code is stored.

A recipe file holds one package (`.json`, or `.json.gz`):

    {"format": 1, "package": NAME, "version": VERSION, "sha256": of the source distribution, "seed": of the mutation,
     "tests": [every stable test id],
     "reach": {"file::function": indexes into tests}, "imported": ["file::function", ...],
     "tasks": [{"file", "function", "kind", "place", "line", "digest": of the mutated file, "fail_to_pass": indexes,
                "failure": {"file", "line", "error"}}, ...]}

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
from regrade.datasets.mutation.packages import Package, package

FORMAT = 1


@dataclass(frozen=True)
class Failure:
    """What one failing test shows: where its line stands, and its error."""

    file: str
    line: int
    """1-based line in the pristine test file; 0 where no line is known."""
    error: str


@dataclass(frozen=True, kw_only=True)
class TaskRecipe:
    """One planted bug."""

    file: str
    function: str
    kind: str
    place: str
    line: int
    digest: str
    """Of the mutated file: proves that the bug rebuilt is the bug validated."""
    fail_to_pass: tuple[int, ...]
    """Indexes of the tests that notice it."""
    failure: Failure

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
        }


@dataclass(frozen=True, kw_only=True)
class PackageRecipes:
    """All tasks of one package, and what they share."""

    package: Package
    seed: int
    tests: tuple[str, ...]
    """Ids of the tests that passed in every one of several runs of the pristine package, sorted."""
    reach: Mapping[str, tuple[int, ...]]
    """`file::qualified.function` -> indexes of the tests that execute it."""
    imported: tuple[str, ...]
    """`file::qualified.function` of functions that are executed when tests are collected, sorted."""
    tasks: tuple[TaskRecipe, ...]

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


class _RecipeEntry(msgspec.Struct, kw_only=True):
    file: Plain
    function: Plain
    kind: Plain
    place: Plain
    line: Positive
    digest: Plain
    fail_to_pass: str
    failure: _FailureEntry


class _Head(msgspec.Struct, kw_only=True):
    """What is read of a file of any format."""

    format: Positive


class _Origin(msgspec.Struct, kw_only=True):
    """Which release the recipes are for."""

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
    """Write `folder/NAME.json`, a task a line: the same recipes always make the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    value = recipes.to_json()
    tasks = ",\n".join(_compact(task) for task in value.pop("tasks"))
    shared = ",\n".join(f"{_compact(key)}:{_compact(part)}" for key, part in value.items())
    path = folder / f"{recipes.package.name}.json"
    # Not compressed: packers of other versions would make other bytes.
    path.write_text(f'{{{shared},\n"tasks":[\n{tasks}\n]}}\n', encoding="utf-8", newline="\n")
    return path


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def read_recipes(path: Path) -> PackageRecipes:
    """The recipes of a file.

    Raises:
        UserError: the file is unreadable, of another format or another release than the pinned one, or a value is
            wrong; names the file and the key.
    """
    where = str(path)
    value = parse_json(read_text(path), where)
    again = "rebuild the recipes with `regrade tasks build`"
    version = converted(value, _Head, where).format
    if version != FORMAT:
        raise UserError(f"{where}: 'format' is {version}, this version reads {FORMAT}: {again}")
    origin = converted(value, _Origin, where)
    pinned = package(origin.package)
    if (origin.version, origin.sha256) != (pinned.version, pinned.sha256):
        made = f"made from {pinned.name} {shown(origin.version)}, but pinned is {pinned.version}"
        raise UserError(f"{where}: {made}: {again}")
    file = converted(value, _RecipeFile, where)
    tests = len(file.tests)
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
    return TaskRecipe(**fields)


def recipe_files(folder: Path) -> list[Path]:
    """The recipe files of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.name.endswith((".json", ".json.gz")))


def to_ranges(indexes: Iterable[int]) -> str:
    """`[3, 4, 5, 9]` -> `"3-5,9"` (sorted, once each)."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def from_ranges(text: str) -> tuple[int, ...]:
    """The reverse of `to_ranges`. Raises ValueError."""
    found: list[int] = []
    for run in text.split(",") if text else []:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", run)
        if match is None:
            raise ValueError(f"{run!r} is no range")
        first, last = match.groups()
        indexes = range(int(first), int(last or first) + 1)
        if len(indexes) > 1_000_000:
            raise ValueError(f"{run} is no range of tests")
        found.extend(indexes)
    return tuple(found)


def _indexes(ranges: str, key: str, where: str, tests: int) -> tuple[int, ...]:
    try:
        found = from_ranges(ranges)
    except ValueError:
        raise UserError(f"{where}: {key!r} must be ranges such as '3-5,9'; found {ranges[:60]!r}") from None
    if found and max(found) >= tests:
        raise UserError(f"{where}: {key!r} names test {max(found)}, but there are only {tests} tests")
    return found
