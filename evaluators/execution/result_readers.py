"""Readers of test results: what a command printed, or wrote as a report, becomes the outcomes of tests.

One row a format. The text comes from a candidate: each reader takes any text, and returns the reason why it is no
complete report beside the cases. A candidate can print forged lines, so

- of several outcomes for one test the worst counts, as everywhere (see `replies.statuses`);
- a report that does not agree with its own totals is void.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

LONGEST_MESSAGE = 500
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONGEST_LINE = 20_000
"""Characters of a line; the names of tests are shorter."""


@dataclass(frozen=True)
class ReportedCase:
    """The outcome of one test."""

    id: str
    status: str
    """A value of `TestStatus`."""
    message: str = ""


@dataclass(frozen=True)
class Report:
    """The outcomes of a command's tests."""

    cases: tuple[ReportedCase, ...] = ()
    problem: str = ""
    """Why it is incomplete or contradicts itself, so that it shows nothing; empty: it is complete."""

    @property
    def has_failure(self) -> bool:
        return any(case.status in ("failed", "error") for case in self.cases)


ReportReader = Callable[[str, str], Report]
"""(what the command printed, its report) -> the outcomes."""


# ---------------------------------------------------------------- JUnit XML


def junit(printed: str, report: str) -> Report:
    """JUnit XML, one document. Ids are `FILE::CLASS::NAME` if the report names the file, as pytest's does with
    `-o junit_family=xunit1`, and otherwise `CLASSNAME::NAME`."""
    del printed
    text = report.strip()
    if not text:
        return Report(problem="the command wrote no report")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return Report(problem="the report declares entities, which no test runner does")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        return Report(problem=f"the report is not one XML document: {error}")
    cases = tuple(_junit_case(element) for element in root.iter("testcase"))
    counted = sum(_number(suite, "tests") for suite in root.iter("testsuite") if suite.find("testsuite") is None)
    # pytest counts a test once more for each failure of its set-up or tear-down.
    if counted < len({case.id for case in cases}):
        return Report(problem=f"the report lists {len(cases)} tests, and counts {counted}")
    return Report(cases)


def _junit_case(element: ET.Element) -> ReportedCase:
    name, group, file = element.get("name", ""), element.get("classname", ""), element.get("file", "")
    if file:
        module = file.removesuffix(".py").replace("/", ".")
        inner = group.removeprefix(module).strip(".") if group.startswith(module) else ""
        test = "::".join(filter(None, (file, *inner.split("."), name)))
    else:
        test = f"{group}::{name}" if group else name
    for tag, status in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")):
        problem = element.find(tag)
        if problem is not None:
            text = problem.get("message") or (problem.text or "").strip().split("\n")[-1]
            return ReportedCase(test, status, text[:LONGEST_MESSAGE])
    return ReportedCase(test, "passed")


def _number(element: ET.Element, name: str) -> int:
    text = element.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


# ---------------------------------------------------------------- pytest's log (-rA)

_PYTEST_LINE = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S.*)$")
_PYTEST_TOTALS = re.compile(r"^([^()]*) in [\d.]+s\b")
_PYTEST_TOTAL = re.compile(r"(\d{1,9}) (\w+)")
_PYTEST_STATUS = {
    "PASSED": "passed", "FAILED": "failed", "ERROR": "error", "SKIPPED": "skipped", "XFAIL": "xfailed",
    "XPASS": "passed",
}  # fmt: skip


def pytest_log(printed: str, report: str) -> Report:
    """The summary that `pytest -rA` prints: `PASSED tests/test_a.py::test_b`, and the line of totals."""
    del report
    cases, totals = [], []
    for line in _lines(printed):
        if (match := _PYTEST_LINE.match(line)) and "::" in match[2]:
            test, message = (match[2], "") if match[1] == "PASSED" else _split_message(match[2])
            cases.append(ReportedCase(test, _PYTEST_STATUS[match[1]], message[:LONGEST_MESSAGE]))
        elif total := _PYTEST_TOTALS.match(line.strip("= ")):
            parts = [_PYTEST_TOTAL.fullmatch(part) for part in total[1].split(", ")]
            if all(parts):
                totals.append({part[2]: int(part[1]) for part in parts if part})
    if len(totals) != 1:
        return Report(
            problem=f"the log has {len(totals)} lines of totals, and must have one (run pytest once, with -rA)"
        )
    return _agreeing(cases, totals[0].get("passed", 0) + totals[0].get("xpassed", 0))


def _split_message(text: str) -> tuple[str, str]:
    """The id and the message of a line: parameters in brackets may contain the separator."""
    function, bracket, rest = text.partition("[")
    if bracket and " - " not in function:
        parameters, end, message = rest.partition("] - ")
        return (f"{function}[{parameters}]", message) if end else (text, "")
    test, _, message = text.partition(" - ")
    return test, message


# ---------------------------------------------------------------- unittest's log (-v), also Django's

_UNITTEST_NAME = re.compile(r"^\w+ \([\w.]+\)$")
_UNITTEST_STATUS = {
    "ok": "passed", "FAIL": "failed", "ERROR": "error", "skipped": "skipped", "expected failure": "xfailed",
    "unexpected success": "failed",
}  # fmt: skip


def unittest_log(printed: str, report: str) -> Report:
    """What unittest and Django's runner print with `-v` (`--verbosity 2`): `test_a (module.Class) ... ok`.

    A test with a docstring prints its name and the first line of that on two lines: both are ids.
    """
    del report
    cases: list[ReportedCase] = []
    named, ran = "", []
    for line in _lines(printed):
        name, _, rest = line.partition(" ... ")
        word = next((word for word in _UNITTEST_STATUS if rest.startswith(word) or rest.endswith(word)), "")
        if word:
            names = [name] if _UNITTEST_NAME.match(name) or not named else [named, name]
            cases += [
                ReportedCase(each, _UNITTEST_STATUS[word], rest.removeprefix(word).strip()[:LONGEST_MESSAGE])
                for each in names
            ]
        elif problem := re.match(r"^(FAIL|ERROR): (\w+ \([\w.]+\))", line):
            cases.append(ReportedCase(problem[2], _UNITTEST_STATUS[problem[1]]))
        elif count := re.match(r"^Ran (\d{1,9}) tests? in ", line):
            ran.append(int(count[1]))
        named = line if _UNITTEST_NAME.match(line) else ""
    if len(ran) != 1:
        return Report(problem=f"the log has {len(ran)} lines `Ran N tests`, and must have one")
    passed = {case.id for case in cases if case.status == "passed" and _UNITTEST_NAME.match(case.id)}
    if len(passed) > ran[0]:
        return Report(problem=f"the log lists {len(passed)} passed tests, and counts {ran[0]} tests")
    return Report(tuple(cases))


# ---------------------------------------------------------------- go test -json

_GO_STATUS = {"pass": "passed", "fail": "failed", "skip": "skipped"}


def go(printed: str, report: str) -> Report:
    """The events of `go test -json`. Ids are `PACKAGE::TEST`, with subtests as `TEST/SUBTEST`."""
    del report
    cases: list[ReportedCase] = []
    finished: dict[str, str] = {}
    started: set[str] = set()
    said: dict[tuple[str, str], list[str]] = {}
    for line in printed.split("\n"):
        event = _event(line)
        package, test, action = (str(event.get(name, "")) for name in ("Package", "Test", "Action"))
        if not package:
            continue
        started.add(package)
        if not test:
            finished |= {package: action} if action in _GO_STATUS else {}
        elif action == "output":
            said.setdefault((package, test), []).append(str(event.get("Output", "")))
        elif action in _GO_STATUS:
            text = [part.strip() for part in said.get((package, test), []) if not part.startswith(("===", "---"))]
            message = " ".join(text)[:LONGEST_MESSAGE] if action == "fail" else ""
            cases.append(ReportedCase(f"{package}::{test}", _GO_STATUS[action], message))
    if not started:
        return Report(problem="the command printed no event of `go test -json`")
    if open_ := sorted(started - finished.keys()):
        return Report(problem=f"the tests of the package {open_[0]} did not end")
    return Report(tuple(cases))


def _event(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# ---------------------------------------------------------------- TAP

_TAP_LINE = re.compile(r"^( *)(not )?ok\b(?: \d+)?(?: -)?(.*)$")
_TAP_PLAN = re.compile(r"^1\.\.(\d{1,9})\b")


def tap(printed: str, report: str) -> Report:
    """The Test Anything Protocol. Ids are the descriptions; a subtest, four spaces to the right, is `PARENT > TEST`."""
    del report
    waiting: dict[int, list[ReportedCase]] = {}
    plans: list[int] = []
    count = 0
    for line in _lines(printed):
        if plan := _TAP_PLAN.match(line):
            plans.append(int(plan[1]))
        elif line.startswith("Bail out!"):
            return Report(problem=line[:LONGEST_MESSAGE])
        elif match := _TAP_LINE.match(line):
            text, _, comment = match[3].partition(" # ")
            directive, _, why = comment.strip().partition(" ")
            depth, name, directive = len(match[1]) // 4, text.strip(), directive.upper()
            status = "failed" if match[2] else "passed"
            if directive in ("SKIP", "TODO"):
                status = "skipped" if directive == "SKIP" else "xfailed" if match[2] else "passed"
            below = [ReportedCase(f"{name} > {case.id}", case.status) for case in waiting.pop(depth + 1, [])]
            waiting.setdefault(depth, []).extend((*below, ReportedCase(name, status, why[:LONGEST_MESSAGE])))
            count += depth == 0
    if plans != [count]:
        return Report(problem=f"the plan announces {plans or 'nothing'}, and {count} tests ended")
    return Report(tuple(waiting.get(0, ())))


# ---------------------------------------------------------------- cargo test

_CARGO_TARGET = re.compile(r"^\s*(?:Running (?:unittests )?(\S+) \(|Doc-tests (\S+))")
_CARGO_TOTALS = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
_CARGO_STATUS = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}


def cargo(printed: str, report: str) -> Report:
    """What `cargo test` prints. Ids are `FILE::NAME`, as of Regrade's own runner; doc-tests are `CRATE::NAME`."""
    del report
    cases: list[ReportedCase] = []
    target, passed, totals = "", 0, 0
    for line in _lines(printed):
        if match := _CARGO_TARGET.match(line):
            target = match[1] or match[2]
        elif line.startswith("test ") and " ... " in line:
            name, _, rest = line.removeprefix("test ").partition(" ... ")
            name = name.removesuffix(" - should panic")
            word = next((word for word in _CARGO_STATUS if rest.startswith(word) or rest.endswith(word)), "")
            if word:
                cases.append(ReportedCase(f"{target}::{name}" if target else name, _CARGO_STATUS[word]))
        elif match := _CARGO_TOTALS.match(line):
            passed, totals = passed + int(match[1]), totals + 1
    if not totals:
        return Report(problem="the command printed no `test result:`")
    return _agreeing(cases, passed)


# ---------------------------------------------------------------- all


def _lines(printed: str) -> list[str]:
    """Only a newline ends a line: other separators may be part of a test's name or of what it prints."""
    return [line.rstrip("\r")[:LONGEST_LINE] for line in ANSI.sub("", printed).split("\n")]


def _agreeing(cases: Iterable[ReportedCase], passed: int) -> Report:
    """The cases, unless more tests are listed as passed than the totals count."""
    listed = tuple(cases)
    count = len({case.id for case in listed if case.status == "passed"})
    if count > passed:
        return Report(problem=f"the log lists {count} passed tests, and its totals count {passed}")
    return Report(listed)


LOG_READERS: Mapping[str, ReportReader] = MappingProxyType(
    {
        "junit": junit,
        "pytest-log": pytest_log,
        "unittest-log": unittest_log,
        "go": go,
        "tap": tap,
        "cargo": cargo,
    }
)
"""Reader -> its function. `pytest` and `unittest` write sealed records instead: see `inside/cold/`."""
