"""Vitest, and the signed reports of Vitest and of Node's own test runner.

The code under test runs in children of the runner's main process, which may write any file of the run. So the main
process reads a key from its standard input before it starts them, and signs the report with it: one that a candidate
wrote is void.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrade.evaluators.inside.command_rows import REPORT, WHOLE_FILE, Case, NoReportError, Runner

PACKAGES = "node_modules"
REPORTER = "reporter.mjs"
_STATUSES = {"passed": "passed", "failed": "failed"}
"""All others (pending, skipped, todo, disabled) are skipped."""
_SIGNING_REPORTER = """\
import { createHmac } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { JsonReporter } from %(reporters)s;

const key = readFileSync(0);

export default class extends JsonReporter {
  writeReport(report) {
    const signature = createHmac('sha256', key).update(report).digest('hex');
    writeFileSync(%(report)s, `${signature}\\n${report}`);
  }
}
"""
SIGNING_JUNIT = """\
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { junit } from 'node:test/reporters';

const key = readFileSync(0);

export default async function* (events) {
  let report = '';
  for await (const part of junit(events)) report += part;
  yield `${createHmac('sha256', key).update(report).digest('hex')}\\n${report}`;
}
"""
"""A reporter of Node's test runner, which loads it before the first test file starts."""


def _vitest(files: Sequence[str], folder: Path) -> list[str]:
    package = _package("vitest")
    if package is None:
        raise NoReportError("the package vitest is not installed")
    manifest = json.loads((package / "package.json").read_text("utf-8"))
    reporters = manifest["exports"]["./reporters"]["default"]
    texts = {"reporters": (package / reporters).as_uri(), "report": str(folder / REPORT)}
    reporter = folder / REPORTER
    reporter.write_text(_SIGNING_REPORTER % {name: json.dumps(text) for name, text in texts.items()})
    # Vite writes temporary files to the nearest folder of packages; the one above the tree is read-only.
    Path(PACKAGES).mkdir(exist_ok=True)
    return [
        *("node", str(package / _program(manifest["bin"])), "run", f"--reporter={reporter}"),
        *("--no-file-parallelism", "--watch=false"),
        # Without a server, which no run needs.
        *("--api.host=127.0.0.1", "--api.middlewareMode"),
        *files,
    ]


def _program(programs: str | Mapping[str, str]) -> str:
    return programs if isinstance(programs, str) else programs["vitest"]


def _package(name: str) -> Path | None:
    """The folder of a package in the tree or above it."""
    folders = (folder / PACKAGES / name for folder in (Path.cwd(), *Path.cwd().parents))
    return next((folder for folder in folders if (folder / "package.json").is_file()), None)


def _cases(folder: Path, files: Sequence[str], printed: str) -> Iterator[Case]:
    """The report that Jest defined and Vitest writes too. Ids are `FILE::SUITE > TEST`."""
    del files
    path = folder / REPORT
    if not path.is_file():
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        raise NoReportError(next((line for line in lines if "Error:" in line), lines[-1] if lines else "no report"))
    report = json.loads(path.read_text("utf-8"))
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


VITEST = Runner(command=_vitest, read=_cases, signs_report=True, group=lambda _: "all")
