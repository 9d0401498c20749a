"""Logs of test runs: of SWE-bench's old harness, whose result is the log alone, and of the new one (`test_output.txt`).

The outcomes are read by the grammars of pytest, Django's runner and SymPy's at once: a line decides by its form, no
table of repositories does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult

NAME = "run-log"
MARK = ">>>>> "
HEADER = re.compile(r"(?:^|\] )Task Metadata:$", re.MULTILINE)
INSTANCE = re.compile(r"^\s*- Instance ID: (?P<id>\S+)$", re.MULTILINE)
MODEL = re.compile(r"^\s*- Evaluation Model: (?P<name>.+)$", re.MULTILINE)
APPLIED = re.compile(r"^>>>>> Applied Patch \(pred(?:_minimal)?(?: \w+)?\)", re.MULTILINE)
NOT_APPLIED = re.compile(r"^>>>>> Patch Apply Failed; \(pred", re.MULTILINE)
TEST_PATCH_FAILED = re.compile(r"^>>>>> Patch Apply Failed; \(test", re.MULTILINE)
TIMED_OUT = re.compile(r"^>>>>> Tests Timed Out", re.MULTILINE)
BROKEN_OFF = re.compile(r"^>>>>> (?:Tests Errored|Reset Failed|Init Failed|Init Timed Out)", re.MULTILINE)
END = re.compile(r"^>>>>> (?:All Tests Passed|Some Tests Failed)", re.MULTILINE)
OUTPUT = re.compile(r">>>>> Start Test Output'?$(?P<text>.*)^.*>>>>> End Test Output", re.MULTILINE | re.DOTALL)
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\x1b")
WORDS = ("PASSED", "FAILED", "SKIPPED", "ERROR", "XFAIL")
PASSING = frozenset({"PASSED", "XFAIL"})
FAILING = frozenset({"FAILED", "ERROR"})
OK_SUFFIX = re.compile(r" \.\.\.  ?(?:ok|OK)$")
INTERLEAVED = re.compile(
    r"^(.*?)\s\.\.\.\s(?:Testing against Django installed in (?s:.*?) silenced\)\.|Internal Server Error: /.*/"
    r"|System check identified no issues \(0 silenced\))\nok$",
    re.MULTILINE,
)
"""Django tests whose `ok` stands below the output of another program."""
FAILED_HEADER = re.compile(r"^_+ (?P<file>.*)\.py:(?P<test>.*) _+$", re.MULTILINE)


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The result of a log; None if the document is none."""
    if document.kind != "text":
        return None
    head = document.head.decode("utf-8", "replace")
    if HEADER.search(head) and INSTANCE.search(head):
        return iter([_old(document, findings)])
    if document.path.name == "test_output.txt":
        return iter([_new(document, findings)])
    return None


def _old(document: Document, findings: Findings) -> GradedResult:
    text = ESCAPES.sub("", document.text)
    instance, model = INSTANCE.search(text), MODEL.search(text)
    applied = [*APPLIED.finditer(text)]
    run = text[applied[-1].end() :] if applied else ""
    why = _why_not(text, bool(applied))
    if not why and not END.search(run):
        why = "the log has no end"
        findings.add("logs without an end", str(document.path))
    return GradedResult(
        instance=instance["id"] if instance else document.path.name.split(".")[0],
        place=document.path.parent,
        depth=Depth.LOG,
        source=NAME,
        model=model["name"].strip() if model else "",
        statuses=None if why else statuses(run),
        applied=True if applied else False if NOT_APPLIED.search(text) else None,
        timed_out=bool(TIMED_OUT.search(text)),
        why=why,
    )


def _why_not(text: str, is_applied: bool) -> str:
    """The reason why the tests have no outcome; empty if they have one."""
    if TEST_PATCH_FAILED.search(text):
        return "the tests of the instance did not apply over the patch"
    if not is_applied:
        return "the patch did not apply" if NOT_APPLIED.search(text) else "the log does not say that the patch applied"
    if TIMED_OUT.search(text):
        return "its tests timed out"
    return "its tests did not run" if BROKEN_OFF.search(text) else ""


def _new(document: Document, findings: Findings) -> GradedResult:
    text = ESCAPES.sub("", document.text)
    folder, output = document.path.parent, OUTPUT.search(text)
    timed_out = bool(TIMED_OUT.search(text)) or "Timeout error: " in text
    why = "its tests timed out" if timed_out else "its tests did not run" if BROKEN_OFF.search(text) else ""
    if not why and not output:
        why = "the log has no end"
        findings.add("logs without an end", str(document.path))
    return GradedResult(
        instance=folder.name,
        place=folder.parent,
        depth=Depth.LOG,
        source=NAME,
        statuses=statuses(output["text"]) if output and not why else None,
        timed_out=timed_out,
        why=why,
    )


def outcome_of(output: str) -> dict[str, str] | None:
    """Test id -> status of the output of the new harness; None if it has no end."""
    text = ESCAPES.sub("", output)
    match = OUTPUT.search(text)
    return statuses(match["text"]) if match and not TIMED_OUT.search(text) else None


def statuses(text: str) -> dict[str, str]:
    """Test id -> status, as far as the lines of a run of tests say; of several lines the last counts."""
    found: dict[str, str] = {}
    for match in FAILED_HEADER.finditer(text):
        found[f"{match['file']}.py:{match['test']}"] = "FAILED"
    before: str | None = None
    for line in text.split("\n"):
        _pytest(line, found)
        stripped = line.strip()
        before = _django(stripped, before, found)
        _sympy(stripped, found)
    for match in INTERLEAVED.finditer(text):
        found[match.group(1)] = "PASSED"
    return found


def _pytest(line: str, found: dict[str, str]) -> None:
    if line.startswith(WORDS):
        words = (line.replace(" - ", " ") if line.startswith("FAILED") else line).split()
        if len(words) > 1:
            found[words[1]] = words[0]
    elif line.endswith(WORDS) or " PASSED " in line:
        words = line.split()
        if len(words) > 1 and words[1] in WORDS:
            found[words[0]] = words[1]


def _django(line: str, before: str | None, found: dict[str, str]) -> str | None:
    """Adds the outcome of a line of Django's runner. Returns the last test that was begun."""
    if "--version is equivalent to version" in line:
        found["--version is equivalent to version"] = "PASSED"
    if " ... " in line:
        before = line.split(" ... ")[0]
    if OK_SUFFIX.search(line):
        name = line
        if name.startswith("Applying sites.0002_alter_domain_unique...test_no_migrations"):
            name = name.split("...", 1)[-1].strip()
        found[OK_SUFFIX.sub("", name)] = "PASSED"
    elif " ... skipped" in line:
        found[line.split(" ... skipped")[0]] = "SKIPPED"
    elif line.endswith(" ... FAIL"):
        found[line.removesuffix(" ... FAIL")] = "FAILED"
    elif line.endswith(" ... ERROR"):
        found[line.removesuffix(" ... ERROR")] = "ERROR"
    elif line.startswith(("FAIL:", "ERROR:")):
        words = line.split()
        if len(words) > 1:
            found[words[1]] = "FAILED" if line.startswith("FAIL") else "ERROR"
    elif line.startswith("ok") and before is not None:
        found[before] = "PASSED"
    return before


def _sympy(line: str, found: dict[str, str]) -> None:
    if not line.startswith("test_") or " ... " in line:  # the latter is Django's
        return
    if line.endswith(("[FAIL]", "[OK]")):
        line = line[: line.rfind("[")].strip()
    for suffix, status in ((" E", "ERROR"), (" F", "FAILED"), (" ok", "PASSED")):
        if line.endswith(suffix):
            found[line.split()[0]] = status


def same_form(test: str) -> str:
    """A test id without what differs between machines: a path among its parameters, a member of an enumeration."""
    main, bracket, option = test.partition("[")
    if (
        bracket
        and option.startswith("/")
        and not option.startswith("//")
        and "*" not in option
        and option.endswith("]")
    ):
        test = f"{main}[/{option[:-1].split('/')[-1]}]"
    return test.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3")
