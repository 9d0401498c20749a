"""The measured tests of a repository as a file that many tasks share: `suites/NAME.json` of a task set.

    {"format": 1, "requirements": [locked], "limits": {...}, "tests": [every stable test id],
     "suite": fields of `TestSuite` that are not defaults, "reach": {"file::function": indexes into tests},
     "flaky": [ids of tests that passed in some runs only, which no task uses]}

Indexes are written as ranges, such as `"3-5,9"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import Plain, Positive, Seconds, converted
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.mutation.recipe_format import from_ranges, to_ranges
from regrade.datasets.tasks import Limits, TestSuite

FORMAT = 1


class SuiteLimits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Limits of one run, as in a file."""

    wall_seconds: Seconds = Limits.wall_seconds
    memory_mb: Positive = Limits.memory_mb
    processes: Positive = Limits.processes
    file_mb: Positive = Limits.file_mb
    test_seconds: Seconds | None = None


@dataclass(frozen=True)
class MeasuredSuite:
    """The tests of a repository at one state, without any patch."""

    suite: TestSuite
    tests: tuple[str, ...]
    """The tests that passed in every run."""
    requirements: tuple[str, ...]
    limits: Limits
    flaky: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        """The file: equal suites give equal bytes."""
        number = {test: index for index, test in enumerate(self.tests)}
        reach = None
        if self.suite.reach is not None:
            reach = {key: _ranges(ids, number) for key, ids in sorted(self.suite.reach.items())}
        value = {
            "format": FORMAT,
            "requirements": list(self.requirements),
            "limits": {each.name: getattr(self.limits, each.name) for each in fields(Limits)},
            "flaky": sorted(self.flaky),
            "tests": list(self.tests),
            "suite": dict(_changed_fields(self.suite)),
            "reach": reach,
        }
        lines = [f"{json.dumps(key)}: {json.dumps(part, ensure_ascii=True)}" for key, part in value.items()]
        return "{" + ",\n".join(lines) + "}\n"


class _SuiteFile(msgspec.Struct, kw_only=True):
    format: Positive
    requirements: tuple[Plain, ...]
    limits: SuiteLimits
    tests: tuple[Plain, ...]
    suite: dict[str, Any]
    reach: dict[str, str] | None = None
    flaky: tuple[Plain, ...] = ()


def read_measured_suite(path: Path) -> MeasuredSuite:
    """The suite of a file.

    Raises:
        UserError: the file is unreadable, has another format version, or contains a wrong value.
    """
    where = str(path)
    file = converted(parse_json(read_text(path), where), _SuiteFile, where)
    if file.format != FORMAT:
        raise UserError(f"{where}: 'format' is {file.format}, this version reads {FORMAT}: build the task set again")
    suite = converted(file.suite, TestSuite, f"{where}, suite")
    reach = None
    if file.reach is not None:
        try:
            reach = {key: tuple(file.tests[index] for index in from_ranges(text)) for key, text in file.reach.items()}
        except (ValueError, IndexError) as error:
            raise UserError(f"{where}, reach: {error}: build the task set again") from error
    return MeasuredSuite(
        replace(suite, reach=reach),
        file.tests,
        file.requirements,
        Limits(**msgspec.structs.asdict(file.limits)),
        file.flaky,
    )


def _ranges(ids: Iterable[str], number: Mapping[str, int]) -> str:
    return to_ranges(number[test] for test in ids if test in number)


def _changed_fields(suite: TestSuite) -> Iterable[tuple[str, Any]]:
    """The fields that differ from a suite without measurements, as JSON."""
    plain = TestSuite()
    for each in fields(TestSuite):
        value = getattr(suite, each.name)
        if each.name != "reach" and value != getattr(plain, each.name):
            yield each.name, msgspec.to_builtins(value, order="sorted")
