"""Test runners and compile checks of other languages: one table row per command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

Write = Callable[[str], None]
Case = tuple[str, str, str]
"""(test id, status, message)"""
LONGEST_MESSAGE = 500
LONGEST_OUTPUT = 200_000
WHOLE_FILE = "(the file)"
"""Name of the test that represents a test file which fails as a whole."""


@dataclass(frozen=True)
class Runner:
    """The command that runs one test file, and the parser of its report."""

    command: Callable[[str, Path], list[str]]
    """(test file, path of the report) -> the command."""
    read: Callable[[Path, str, str], Iterator[Case]]
    """(report, test file, printed output) -> the cases. Raises OSError or ET.ParseError: there is no report.
    Printed output supplies messages only: a candidate can print that a test passed."""


@dataclass(frozen=True)
class CompileCheck:
    """The command that checks whether source compiles."""

    command: tuple[str, ...]
    """`{file}` is replaced by the file; a command without it checks the whole project."""
    error: re.Pattern[str]
    """Matches an error in its output, with the groups `location` and `message`."""


def run_tests(runner: str, files: list[str], select: list[str] | None, write: Write) -> int:
    """Run the test files one by one, and record each test as pytest's recorder does. Returns pytest's exit status."""
    selected = None if select is None else set(select)
    row = RUNNERS[runner]
    failed = False
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report")
            code, printed = _run(row.command(file, report))
            try:
                cases = list(row.read(report, file, printed))
            except (OSError, ET.ParseError) as error:
                reason = _missing_report_reason(error, printed, runner)
                write(json.dumps(["collect", file, reason[:LONGEST_MESSAGE]]))
                failed = True
                continue
        if code and (code < 0 or all(status in ("passed", "skipped") for _, status, _ in cases)):
            # A report without failures contradicts a runner that failed or was killed.
            reason = f"the runner exited with status {code}, but its report contains no failure"
            write(json.dumps(["collect", file, reason]))
            failed = True
            continue
        failed = failed or code != 0
        for test, status, message in cases:
            if test == f"{file}::{WHOLE_FILE}" and status != "passed":  # its tests are missing: record the reason
                write(json.dumps(["collect", file, message[:LONGEST_MESSAGE]]))
            if selected is None or test in selected:
                write(json.dumps(["test", test, status, 0.0, message[:LONGEST_MESSAGE]]))
    return int(failed)


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status, and the end of the output, which is also printed by this process."""
    with tempfile.TemporaryFile() as output:  # a pipe would wait for processes that the tests leave running
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode
        except OSError as error:
            return 127, str(error)
        output.seek(max(0, output.seek(0, os.SEEK_END) - LONGEST_OUTPUT))
        printed = output.read().decode("utf-8", "replace")
    print(printed, flush=True)
    return status, printed


def check(files: list[str], write: Write) -> int:
    """Record whether each file compiles by its language's own command; files without such a command are skipped."""
    errors: dict[tuple[str, ...], str] = {}
    for file in files:
        row = CHECKS.get(PurePosixPath(file).suffix)
        if row is None or shutil.which(row.command[0]) is None:
            continue
        command = tuple(part.format(file=file) for part in row.command)
        if command not in errors:
            result = subprocess.run(command, capture_output=True, check=False)
            printed = result.stderr.decode("utf-8", "replace").replace(f"{Path.cwd()}/", "")
            errors[command] = "" if result.returncode == 0 else _first_error(printed, row.error)
        write(json.dumps(["checked", file, errors[command]]))
    return 0


def _missing_report_reason(error: Exception, printed: str, runner: str) -> str:
    """Why there is no report: a compiler error is in the printed output."""
    if runner == "cargo" and "error" in printed:
        return _first_error(printed.replace(f"{Path.cwd()}/", ""), _CARGO_TEST_ERROR)
    return f"{type(error).__name__}: {error}"


def _first_error(printed: str, pattern: re.Pattern[str], *, otherwise: str = "") -> str:
    """`FILE:LINE: message`; without a match `otherwise`, or else the last line printed."""
    match = pattern.search(printed)
    if match is None:
        if otherwise:
            return otherwise
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        return (lines[-1] if lines else "it does not compile")[:LONGEST_MESSAGE]
    return f"{match['location']}: {match['message']}"[:LONGEST_MESSAGE]


# ---------------------------------------------------------------- Node


def _node(file: str, report: Path) -> list[str]:
    """Only the `spec` reporter shows the standard error of a file."""
    reports = ("junit", report), ("spec", "stdout")
    options = [f"--test-reporter{what}" for name, to in reports for what in (f"={name}", f"-destination={to}")]
    return ["node", "--test", *options, file]


def _junit(report: Path, file: str, printed: str) -> Iterator[Case]:
    """Ids are `FILE::SUITE > TEST`."""
    waiting = [(ET.parse(report).getroot(), "")]
    while waiting:
        node, prefix = waiting.pop()
        for child in node:
            name = child.get("name", "")
            if child.tag == "testsuite":
                waiting.append((child, f"{prefix}{name} > " if name else prefix))
            elif child.tag == "testcase" and not _is_file_case(name, file):
                yield f"{file}::{prefix}{name}", *_outcome(child)
            elif child.tag == "testcase" and child.find("failure") is not None:
                status, generic = _outcome(child)  # "test failed": only the file's output has the reason
                reason = _first_error(printed.replace(f"{Path.cwd()}/", ""), _NODE_CHECK.error, otherwise=generic)
                yield f"{file}::{WHOLE_FILE}", status, reason


def _is_file_case(name: str, file: str) -> bool:
    """Node reports a file that fails as a whole, or contains no test, as a case named by its path."""
    return name in (file, os.path.abspath(file))  # noqa: PTH100 (does not resolve links)


def _outcome(case: ET.Element) -> tuple[str, str]:
    for tag, status in (("failure", "failed"), ("error", "error")):
        problem = case.find(tag)
        if problem is not None:
            trace = [line.strip() for line in (problem.text or "").splitlines()]
            locations = [line for line in trace if str(Path.cwd()) in line and "node_modules" not in line]
            return status, "\n".join(filter(None, (problem.get("message") or "", *locations[:1])))
    return ("skipped", "") if case.find("skipped") is not None else ("passed", "")


# ---------------------------------------------------------------- cargo


def _cargo(file: str, report: Path) -> list[str]:
    """Runs the tests of a library or program, or one file of `tests/`. libtest itself writes the log file."""
    path = PurePosixPath(file)
    target = {"src/lib.rs": ["--lib"], "src/main.rs": ["--bins"]}.get(file, ["--test", path.stem])
    return ["cargo", "test", "--offline", "--quiet", *target, "--", "--test-threads=1", f"--logfile={report}"]


def _libtest(report: Path, file: str, printed: str) -> Iterator[Case]:
    """Lines of `ok NAME`, `failed NAME`, `ignored NAME`; ids are `FILE::NAME`."""
    statuses = {"ok": "passed", "failed": "failed", "ignored": "skipped"}
    for line in report.read_text("utf-8", "replace").splitlines():
        word, _, name = line.partition(" ")
        if word in statuses:
            section = re.search(
                rf"^---- {re.escape(name)} stdout ----\n(.*?)(?=^----|\Z)", printed, re.MULTILINE | re.DOTALL
            )
            lines = [
                _THREAD.sub("", text.strip()) for text in (section[1] if section else "").splitlines() if text.strip()
            ]
            yield f"{file}::{name}", statuses[word], "\n".join(lines[:4])


_THREAD = re.compile(r"(?<=') \(\d+\)(?= panicked)")
"""Thread number, which differs between runs."""
_CARGO_TEST_ERROR = re.compile(r"^error(?:\[\w+\])?: (?P<message>.*)\n\s*--> (?P<location>\S+?:\d+)", re.MULTILINE)
RUNNERS: Mapping[str, Runner] = MappingProxyType({"node": Runner(_node, _junit), "cargo": Runner(_cargo, _libtest)})
_NODE_CHECK = CompileCheck(
    ("node", "--check", "{file}"),
    re.compile(r"^(?:file://)?(?P<location>\S+:\d+)\n(?:.*\n)*?(?P<message>\w*Error: .*)", re.MULTILINE),
)
_CARGO_CHECK = CompileCheck(
    ("cargo", "check", "--offline", "--quiet", "--message-format=short"),
    re.compile(r"^(?P<location>[^:\s]+:\d+):\d+: (?P<message>error.*)", re.MULTILINE),
)
CHECKS: Mapping[str, CompileCheck] = MappingProxyType(
    {**dict.fromkeys((".js", ".mjs", ".cjs"), _NODE_CHECK), ".rs": _CARGO_CHECK}
)
"""File suffix -> compile check of its language."""
