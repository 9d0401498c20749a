"""Tests and checks of other languages: by their own commands, a test file at a time, read from JUnit reports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

Write = Callable[[str], None]
RUNNERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"node": ("node", "--test", "--test-reporter=junit", "--test-reporter-destination={report}", "{file}")}
)
"""Runner -> the command that tests one file and writes a JUnit report."""
CHECKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys((".js", ".mjs", ".cjs"), ("node", "--check", "{file}"))
)
"""Suffix -> the command that says whether a file can be compiled."""
LONGEST_MESSAGE = 500


def run_tests(runner: str, files: list[str], select: list[str] | None, write: Write) -> int:
    """Test the files one by one, and report each test as pytest's recorder does; pytest's exit status for the whole."""
    wanted = None if select is None else set(select)
    failed = False
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.xml")
            command = [part.format(report=report, file=file) for part in RUNNERS[runner]]
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
                found = list(_cases(report, file))
            except (OSError, ET.ParseError) as error:
                write(json.dumps(["collect", file, f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]]))
                failed = True
                continue
        if not found and done.returncode:
            write(json.dumps(["collect", file, f"{command[0]} left with status {done.returncode} and no report"]))
        failed = failed or done.returncode != 0
        for test, status, message in found:
            if wanted is None or test in wanted:
                write(json.dumps(["test", test, status, 0.0, message]))
    return int(failed)


def _cases(report: Path, file: str) -> Iterator[tuple[str, str, str]]:
    """(test id, status, message) of each test case; the id is `FILE::SUITE > TEST`."""
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
                yield f"{file}::(the file)", *_outcome(child)


def _stands_for_the_file(name: str, file: str) -> bool:
    """node reports a file that fails as a whole, or that holds no test, as a case with the path as its name."""
    return name in (file, os.path.abspath(file))  # noqa: PTH100 (links stay as they are)


def _outcome(case: ET.Element) -> tuple[str, str]:
    for tag, status in (("failure", "failed"), ("error", "error")):
        found = case.find(tag)
        if found is not None:
            said = [found.get("message") or "", *(line.strip() for line in (found.text or "").splitlines())]
            places = [line for line in said[1:] if str(Path.cwd()) in line and "node_modules" not in line]
            return status, "\n".join(filter(None, (said[0], *places[:1])))[:LONGEST_MESSAGE]
    return ("skipped", "") if case.find("skipped") is not None else ("passed", "")


def check(files: list[str], write: Write) -> int:
    """Report the files that their language's own command refuses; those of a language without one are left out."""
    for file in files:
        command = CHECKS.get(Path(file).suffix)
        if command is None or shutil.which(command[0]) is None:
            continue
        done = subprocess.run([part.format(file=file) for part in command], capture_output=True, check=False)
        error = done.stderr.decode("utf-8", "replace").strip().replace(f"{Path.cwd()}/", "")
        write(json.dumps(["checked", file, "" if done.returncode == 0 else _first_error(error)]))
    return 0


def _first_error(text: str) -> str:
    """`FILE:LINE: SyntaxError: ...` out of what node prints."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if "Error" in line), "it cannot be compiled")
    return f"{lines[0]}: {said}"[:LONGEST_MESSAGE] if lines else said
