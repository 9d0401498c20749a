"""SWE-bench's `report.json`, and that of SWE-smith: per-test results of one instance, or of several keyed by instance.

The inner object may stand without the outer key; the folder then names the instance. `patch_successfully_applied` is
false both for a patch that did not apply and for tests that did not end, so it decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult, GradedTests

NAME = "swe-bench"
KEYS = frozenset({"patch_is_None", "patch_exists", "patch_successfully_applied", "tests_status", "infra_failure"})
MALFORMED = "reports with holes"
OF_SWE_SMITH = re.compile(r"[^.]+__[^.]+\.\w+\..+")


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The results of a report; None if the document is none."""
    if document.kind != "json":
        return None
    value = document.value
    if not isinstance(value, dict):
        return None
    if KEYS & value.keys():
        return iter([_result(document.path.parent.name, document.path.parent.parent, value, document.path, findings)])
    inner = {str(key): each for key, each in value.items() if isinstance(each, dict) and KEYS & each.keys()}
    if not inner:
        return None
    for key in value.keys() - inner.keys():
        findings.add(MALFORMED, f"{document.path}: {key}")
    place = _place(document.path, [*inner])
    return (_result(name, place, each, document.path, findings) for name, each in inner.items())


def _place(path: Path, instances: Sequence[str]) -> Path:
    """Where the other reports of the same policy lie: a report of one instance may have a folder of its own."""
    if len(instances) > 1:
        return path
    instance, folder = instances[0].casefold(), path.parent
    return folder.parent if instance in folder.name.casefold() else folder


def _result(name: str, place: Path, report: Mapping[str, Any], path: Path, findings: Findings) -> GradedResult:
    lists = report.get("tests_status")
    has_tests = isinstance(lists, dict)
    keys = ("FAIL_TO_PASS", "PASS_TO_PASS")
    tallies = [tally(lists.get(key), f"{path}: {key}", findings) if isinstance(lists, dict) else None for key in keys]
    exists, lost = report.get("patch_exists"), report.get("infra_failure") is True
    why = "" if has_tests else "the report has no tests"
    if has_tests and None in tallies:
        findings.add(MALFORMED, str(path))
        why = "the report lacks a list of tests"
    if lost:
        why = str(report.get("infra_failure_reason") or "the report says that the infrastructure failed")
    if has_tests and OF_SWE_SMITH.fullmatch(name):
        findings.add("instances of SWE-smith, whose grader counts a test that did not run as passed", name)
    resolved = report.get("resolved")
    return GradedResult(
        instance=name,
        place=place,
        depth=Depth.TESTS,
        source=NAME,
        fail_to_pass=tallies[0],
        pass_to_pass=tallies[1],
        resolved=resolved if isinstance(resolved, bool) else None,
        empty=True if report.get("patch_is_None") is True or exists is False else None,
        lost=lost,
        why=why,
    )


def tally(value: object, where: str, findings: Findings) -> GradedTests | None:
    """The tally of `{"success": [], "failure": []}`; None if it is no such object."""
    if not isinstance(value, dict):
        return None
    passed, failed = _names(value.get("success")), _names(value.get("failure"))
    if passed is None or failed is None:
        return None
    both = set(passed) & set(failed)
    for test in sorted(both):
        findings.add("tests both passed and failed, counted as failed", f"{where}: {test}")
    skipped = value.get("skipped")
    return GradedTests.of(passed, failed, len(skipped) if isinstance(skipped, list) else 0)


def _names(value: object) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else None
