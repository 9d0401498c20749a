"""Tests and checks of other languages, by their own commands: one row of a table each."""

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
"""Stands for a test file that fails as a whole."""


@dataclass(frozen=True)
class Runner:
    """How one file of tests is run."""

    command: Callable[[str, Path], list[str]]
    """(test file, where the report goes) -> the command."""
    read: Callable[[Path, str, str], Iterator[Case]]
    """(report, test file, what was printed) -> the cases. Raises OSError or ET.ParseError where there is no report.
    What is printed gives messages only: anybody can print that a test passed."""


@dataclass(frozen=True)
class CompileCheck:
    """How it is found out whether source still compiles."""

    command: tuple[str, ...]
    """`{file}` stands for the file; a command without it looks at the whole project."""
    error: re.Pattern[str]
    """Finds `place` and `said` in what it prints."""


def run_tests(runner: str, files: list[str], select: list[str] | None, write: Write) -> int:
    """Test the files one by one, and report each test as pytest's recorder does; pytest's exit status for the whole."""
    wanted = None if select is None else set(select)
    row = RUNNERS[runner]
    failed = False
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report")
            code, printed = _run(row.command(file, report))
            try:
                found = list(row.read(report, file, printed))
            except (OSError, ET.ParseError) as error:
                said = _said(error, printed, runner)
                write(json.dumps(["collect", file, said[:LONGEST_MESSAGE]]))
                failed = True
                continue
        if code and (code < 0 or all(status in ("passed", "skipped") for _, status, _ in found)):
            # A report in which all is well is not that of a runner that failed or was killed.
            said = f"the runner ended with status {code}, and its report says that nothing failed"
            write(json.dumps(["collect", file, said]))
            failed = True
            continue
        failed = failed or code != 0
        for test, status, message in found:
            if test == f"{file}::{WHOLE_FILE}" and status != "passed":  # the tests in it are missing: say why
                write(json.dumps(["collect", file, message[:LONGEST_MESSAGE]]))
            if wanted is None or test in wanted:
                write(json.dumps(["test", test, status, 0.0, message[:LONGEST_MESSAGE]]))
    return int(failed)


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and the end of what it prints, which goes to the output of this process as well."""
    with tempfile.TemporaryFile() as output:  # a pipe would wait for whatever the tests leave running
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
    """Report the files that their language's own command refuses; those of a language without one are left out."""
    done: dict[tuple[str, ...], str] = {}
    for file in files:
        row = CHECKS.get(PurePosixPath(file).suffix)
        if row is None or shutil.which(row.command[0]) is None:
            continue
        command = tuple(part.format(file=file) for part in row.command)
        if command not in done:
            ran = subprocess.run(command, capture_output=True, check=False)
            printed = ran.stderr.decode("utf-8", "replace").replace(f"{Path.cwd()}/", "")
            done[command] = "" if ran.returncode == 0 else _first_error(printed, row.error)
        write(json.dumps(["checked", file, done[command]]))
    return 0


def _said(error: Exception, printed: str, runner: str) -> str:
    """Why there is no report: a compiler says it in what it prints."""
    if runner == "cargo" and "error" in printed:
        return _first_error(printed.replace(f"{Path.cwd()}/", ""), _CARGO_TEST_ERROR)
    return f"{type(error).__name__}: {error}"


def _first_error(printed: str, pattern: re.Pattern[str], *, otherwise: str = "") -> str:
    """`FILE:LINE: what is wrong`; where the pattern finds nothing, `otherwise` or else the last line printed."""
    found = pattern.search(printed)
    if found is None:
        if otherwise:
            return otherwise
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        return (lines[-1] if lines else "it cannot be compiled")[:LONGEST_MESSAGE]
    return f"{found['place']}: {found['said']}"[:LONGEST_MESSAGE]


# ---------------------------------------------------------------- Node


def _node(file: str, report: Path) -> list[str]:
    """What a file prints to its error stream comes only through the `spec` reporter."""
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
            elif child.tag == "testcase" and not _stands_for_the_file(name, file):
                yield f"{file}::{prefix}{name}", *_outcome(child)
            elif child.tag == "testcase" and child.find("failure") is not None:
                status, said = _outcome(child)  # "test failed": why, the file itself prints
                why = _first_error(printed.replace(f"{Path.cwd()}/", ""), _NODE_CHECK.error, otherwise=said)
                yield f"{file}::{WHOLE_FILE}", status, why


def _stands_for_the_file(name: str, file: str) -> bool:
    """Node reports a file that fails as a whole, or that holds no test, as a case with the path as its name."""
    return name in (file, os.path.abspath(file))  # noqa: PTH100 (links stay as they are)


def _outcome(case: ET.Element) -> tuple[str, str]:
    for tag, status in (("failure", "failed"), ("error", "error")):
        found = case.find(tag)
        if found is not None:
            said = [found.get("message") or "", *(line.strip() for line in (found.text or "").splitlines())]
            places = [line for line in said[1:] if str(Path.cwd()) in line and "node_modules" not in line]
            return status, "\n".join(filter(None, (said[0], *places[:1])))
    return ("skipped", "") if case.find("skipped") is not None else ("passed", "")


# ---------------------------------------------------------------- cargo


def _cargo(file: str, report: Path) -> list[str]:
    """The tests in a library or program, or one file of `tests/`. The log file is what libtest itself writes."""
    path = PurePosixPath(file)
    target = {"src/lib.rs": ["--lib"], "src/main.rs": ["--bins"]}.get(file, ["--test", path.stem])
    return ["cargo", "test", "--offline", "--quiet", *target, "--", "--test-threads=1", f"--logfile={report}"]


def _libtest(report: Path, file: str, printed: str) -> Iterator[Case]:
    """Lines of `ok NAME`, `failed NAME`, `ignored NAME`; ids are `FILE::NAME`."""
    statuses = {"ok": "passed", "failed": "failed", "ignored": "skipped"}
    for line in report.read_text("utf-8", "replace").splitlines():
        word, _, name = line.partition(" ")
        if word in statuses:
            said = re.search(
                rf"^---- {re.escape(name)} stdout ----\n(.*?)(?=^----|\Z)", printed, re.MULTILINE | re.DOTALL
            )
            lines = [_THREAD.sub("", each.strip()) for each in (said[1] if said else "").splitlines() if each.strip()]
            yield f"{file}::{name}", statuses[word], "\n".join(lines[:4])


_THREAD = re.compile(r"(?<=') \(\d+\)(?= panicked)")
"""The number of a thread, which differs from run to run."""
_CARGO_TEST_ERROR = re.compile(r"^error(?:\[\w+\])?: (?P<said>.*)\n\s*--> (?P<place>\S+?:\d+)", re.MULTILINE)
RUNNERS: Mapping[str, Runner] = MappingProxyType({"node": Runner(_node, _junit), "cargo": Runner(_cargo, _libtest)})
_NODE_CHECK = CompileCheck(
    ("node", "--check", "{file}"),
    re.compile(r"^(?:file://)?(?P<place>\S+:\d+)\n(?:.*\n)*?(?P<said>\w*Error: .*)", re.MULTILINE),
)
_CARGO_CHECK = CompileCheck(
    ("cargo", "check", "--offline", "--quiet", "--message-format=short"),
    re.compile(r"^(?P<place>[^:\s]+:\d+):\d+: (?P<said>error.*)", re.MULTILINE),
)
CHECKS: Mapping[str, CompileCheck] = MappingProxyType(
    {**dict.fromkeys((".js", ".mjs", ".cjs"), _NODE_CHECK), ".rs": _CARGO_CHECK}
)
"""Suffix -> how it is found out whether a file of the language compiles."""
