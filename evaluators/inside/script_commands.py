"""Vitest and Jest: one process for all test files, whose main process writes the report.

The code under test runs in that process's children or in their contexts; a report of a main process that was killed, or
that failed without a failed test, is void (see `commands.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from regrade.evaluators.inside.command_rows import REPORT, WHOLE_FILE, Case, NoReportError, Runner

MODULES = "node_modules"
_STATUSES = {"passed": "passed", "failed": "failed"}
"""All others (pending, skipped, todo, disabled) are skipped."""


def _vitest(files: Sequence[str], folder: Path) -> list[str]:
    options = ("run", "--reporter=json", f"--outputFile={folder / REPORT}", "--no-file-parallelism", "--watch=false")
    return ["node", _program("vitest"), *options, *files]


def _jest(files: Sequence[str], folder: Path) -> list[str]:
    options = ("--ci", "--json", f"--outputFile={folder / REPORT}", "--runInBand", "--watchman=false")
    return ["node", _program("jest"), *options, f"--cacheDirectory={folder / 'cache'}", "--runTestsByPath", *files]


def _program(name: str) -> str:
    """The file that a package's `bin` names, in the tree or above it."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        package = folder / MODULES / name
        if (package / "package.json").is_file():
            programs = json.loads((package / "package.json").read_text("utf-8"))["bin"]
            return str(package / (programs if isinstance(programs, str) else programs[name]))
    return name  # node reports that there is no such file


def _cases(folder: Path, files: Sequence[str], printed: str) -> Iterator[Case]:
    """The report that Jest defined and Vitest writes too. Ids are `FILE::SUITE > TEST`."""
    del files
    if not (folder / REPORT).is_file():
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        raise NoReportError(next((line for line in lines if "rror" in line), lines[-1] if lines else "no report"))
    report = json.loads((folder / REPORT).read_text("utf-8", "replace"))
    for result in report["testResults"]:
        file = str(result["name"]).removeprefix(f"{Path.cwd()}/")
        tests = result.get("assertionResults", [])
        for test in tests:
            name = " > ".join([*test.get("ancestorTitles", ()), test["title"]])
            yield f"{file}::{name}", _STATUSES.get(test["status"], "skipped"), _message(test)
        if result.get("status") == "failed" and not any(test["status"] == "failed" for test in tests):
            yield f"{file}::{WHOLE_FILE}", "failed", _relative(str(result.get("message") or "it does not load"))


def _message(test: Any) -> str:
    """The error without the stack, whose lines name packages of the runner."""
    lines = [line.strip() for line in _relative("\n".join(test.get("failureMessages") or ())).splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("at "))


def _relative(text: str) -> str:
    return text.replace(f"{Path.cwd()}/", "")


VITEST = Runner(command=_vitest, read=_cases, group=lambda _: "all")
JEST = Runner(command=_jest, read=_cases, group=lambda _: "all")
