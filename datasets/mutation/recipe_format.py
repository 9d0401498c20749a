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

from regrade.datasets.errors import UserError
from regrade.datasets.json_fields import Fields, parse_json, read_text
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

    @classmethod
    def from_json(cls, fields: Fields, tests: int) -> TaskRecipe:
        """Raises UserError, naming the place, for anything that cannot be a recipe over so many tests."""
        failure = fields.object("failure")
        if failure is None:
            raise UserError(f"{fields.where}: the key 'failure' is missing")
        shown = Failure(failure.text("file"), failure.integer("line", least=0), failure.text("error"))
        return cls(
            file=fields.text("file"),
            function=fields.text("function"),
            kind=fields.text("kind"),
            place=fields.text("place"),
            line=fields.integer("line"),
            digest=fields.text("digest"),
            fail_to_pass=_indexes(fields, "fail_to_pass", tests),
            failure=shown,
        )


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

    @classmethod
    def from_json(cls, fields: Fields) -> PackageRecipes:
        """Raises UserError for another format, another release than the pinned one, or a wrong or missing value."""
        if fields.integer("format") != FORMAT:
            raise UserError(
                f"{fields.where}: 'format' is {fields.values['format']}, this version reads {FORMAT}: "
                "rebuild the recipes with `regrade tasks build`"
            )
        pinned = package(fields.text("package"))
        if (fields.text("version"), fields.text("sha256")) != (pinned.version, pinned.sha256):
            raise UserError(
                f"{fields.where}: made from {pinned.name} {fields.text('version')}, but pinned is "
                f"{pinned.version}: rebuild the recipes with `regrade tasks build`"
            )
        tests = fields.texts("tests")
        reach = fields.object("reach") or Fields({}, fields.where)
        return cls(
            package=pinned,
            seed=fields.integer("seed", least=0),
            tests=tests,
            reach={key: _indexes(reach, key, len(tests)) for key in reach.values},
            imported=fields.texts("imported"),
            tasks=tuple(TaskRecipe.from_json(part, len(tests)) for part in fields.objects("tasks")),
        )


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
    """Raises UserError, naming file and key, if the file is unreadable or wrong."""
    return PackageRecipes.from_json(Fields(parse_json(read_text(path), str(path)), str(path)))


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


def _indexes(fields: Fields, key: str, tests: int) -> tuple[int, ...]:
    text = fields.text(key)
    try:
        found = from_ranges(text)
    except ValueError:
        raise UserError(f"{fields.where}: {key!r} must be ranges such as '3-5,9'; found {text[:60]!r}") from None
    if found and max(found) >= tests:
        raise UserError(f"{fields.where}: {key!r} names test {max(found)}, but there are only {tests} tests")
    return found
