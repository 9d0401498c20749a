"""Test runners and compile checks of other languages: one table row per command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from regrade.evaluators.inside.command_rows import (
    LONGEST_MESSAGE,
    REPORT,
    WHOLE_FILE,
    Case,
    CompileCheck,
    Runner,
    first_error,
    remove_signature,
)
from regrade.evaluators.inside.go_command import GO, GO_CHECK
from regrade.evaluators.inside.script_commands import REPORTER, SIGNING_JUNIT, VITEST

Write = Callable[[str], None]
LONGEST_OUTPUT = 200_000


def run_tests(runner: str, files: list[str], select: list[str] | None, write: Write) -> int:
    """Run the test files, and record each test as pytest's recorder does. Returns pytest's exit status."""
    selected = None if select is None else set(select)
    row = RUNNERS[runner]
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(row.group(file), []).append(file)
    failed = [_run_group(row, group, selected, write) for group in groups.values()]
    return int(any(failed))


def _run_group(row: Runner, files: Sequence[str], selected: set[str] | None, write: Write) -> bool:
    """Run files in one process, and record their tests. Returns: did anything fail?"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = folder / REPORT if row.prints_report else None
        key = secrets.token_bytes(32) if row.signs_report else b""
        printed = ""
        try:
            code, printed = _run(row.command(files, folder), row.environment(), report, key)
            if key and (folder / REPORT).is_file():
                remove_signature(folder / REPORT, key)
            cases = list(row.read(folder, files, printed))
        except (OSError, ValueError, KeyError, TypeError, ET.ParseError) as error:
            reason = (
                f"{error}" if isinstance(error, OSError) and error.errno is None else f"{type(error).__name__}: {error}"
            )
            if row.error is not None and row.error.search(printed):
                reason = first_error(printed, row.error)
            return _not_collected(files, reason, write)
    if code and (code < 0 or all(status in ("passed", "skipped") for _, status, _ in cases)):
        # A report without failures contradicts a runner that failed or was killed.
        reason = f"the runner exited with status {code}, but its report contains no failure"
        return _not_collected(files, reason, write)
    for test, status, message in cases:
        if test.endswith(f"::{WHOLE_FILE}") and status != "passed":  # its tests are missing: record the reason
            write(json.dumps(["collect", test.partition("::")[0], message[:LONGEST_MESSAGE]]))
        if selected is None or test in selected:
            write(json.dumps(["test", test, status, 0.0, message[:LONGEST_MESSAGE]]))
    return code != 0


def _not_collected(files: Sequence[str], reason: str, write: Write) -> bool:
    for file in files:
        write(json.dumps(["collect", file, reason[:LONGEST_MESSAGE]]))
    return True


def _run(command: list[str], environment: Mapping[str, str], report: Path | None, key: bytes) -> tuple[int, str]:
    """Exit status, and the end of the output, which is also printed by this process; standard output goes to the
    report if there is one, and standard input is the key."""
    with tempfile.TemporaryFile() as output:  # a pipe would wait for processes that the tests leave running
        try:
            with report.open("wb") if report is not None else contextlib.nullcontext(output) as printed:
                status = subprocess.run(
                    command,
                    input=key,
                    stdout=printed,
                    stderr=output if report is not None else subprocess.STDOUT,
                    env={**os.environ, **environment},
                    check=False,
                ).returncode
        except OSError as error:
            return 127, str(error)
        output.seek(max(0, output.seek(0, os.SEEK_END) - LONGEST_OUTPUT))
        text = output.read().decode("utf-8", "replace")
    print(text, flush=True)
    return status, text


def check(files: list[str], write: Write) -> int:
    """Record whether each file compiles by its language's own command; files without such a command are skipped."""
    errors: dict[tuple[str, ...], str] = {}
    for file in files:
        row = CHECKS.get(PurePosixPath(file).suffix)
        if row is None or shutil.which(row.command[0]) is None:
            continue
        command = tuple(part.format(file=file) for part in row.command)
        if command not in errors:
            result = subprocess.run(command, capture_output=True, env={**os.environ, **row.environment()}, check=False)
            printed = result.stderr.decode("utf-8", "replace")
            errors[command] = "" if result.returncode == 0 else first_error(printed, row.error)
        write(json.dumps(["checked", file, errors[command]]))
    return 0


# ---------------------------------------------------------------- Node


def _node(files: Sequence[str], folder: Path) -> list[str]:
    """Only the `spec` reporter shows the standard error of a file."""
    reporter = folder / REPORTER
    reporter.write_text(SIGNING_JUNIT)
    reports = (reporter, folder / REPORT), ("spec", "stdout")
    options = [f"--test-reporter{what}" for name, to in reports for what in (f"={name}", f"-destination={to}")]
    return ["node", "--test", *options, *files]


def _junit(folder: Path, files: Sequence[str], printed: str) -> Iterator[Case]:
    """Ids are `FILE::SUITE > TEST`."""
    (file,) = files
    waiting = [(ET.parse(folder / REPORT).getroot(), "")]
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
                reason = first_error(printed, _NODE_CHECK.error, otherwise=generic)
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


def _cargo(files: Sequence[str], folder: Path) -> list[str]:
    """Runs the tests of a library or program, or one file of `tests/`. libtest itself writes the log file."""
    (file,) = files
    path = PurePosixPath(file)
    target = {"src/lib.rs": ["--lib"], "src/main.rs": ["--bins"]}.get(file, ["--test", path.stem])
    return ["cargo", "test", "--offline", "--quiet", *target, "--", "--test-threads=1", f"--logfile={folder / REPORT}"]


def _libtest(folder: Path, files: Sequence[str], printed: str) -> Iterator[Case]:
    """Lines of `ok NAME`, `failed NAME`, `ignored NAME`; ids are `FILE::NAME`."""
    (file,) = files
    statuses = {"ok": "passed", "failed": "failed", "ignored": "skipped"}
    for line in (folder / REPORT).read_text("utf-8", "replace").splitlines():
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
_NODE_CHECK = CompileCheck(
    command=("node", "--check", "{file}"),
    error=re.compile(r"^(?:file://)?(?P<location>\S+:\d+)\n(?:.*\n)*?(?P<message>\w*Error: .*)", re.MULTILINE),
)
_CARGO_CHECK = CompileCheck(
    command=("cargo", "check", "--offline", "--quiet", "--message-format=short"),
    error=re.compile(r"^(?P<location>[^:\s]+:\d+):\d+: (?P<message>error.*)", re.MULTILINE),
)
RUNNERS: Mapping[str, Runner] = MappingProxyType(
    {
        "node": Runner(command=_node, read=_junit, signs_report=True),
        "cargo": Runner(command=_cargo, read=_libtest, error=_CARGO_TEST_ERROR),
        "go": GO,
        "vitest": VITEST,
    }
)
CHECKS: Mapping[str, CompileCheck] = MappingProxyType(
    {**dict.fromkeys((".js", ".mjs", ".cjs"), _NODE_CHECK), ".rs": _CARGO_CHECK, ".go": GO_CHECK}
)
"""File suffix -> compile check of its language."""
