"""OpenHands' `output.jsonl` with the results of its evaluation, and its `output.swebench_eval.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regrade.datasets.graded import run_logs, swe_bench
from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult, GradedTests

NAME = "openhands"
SIGNS = frozenset({"report", "fine_grained_report", "test_result"})


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The results of an output file; None if the document is none."""
    first = document.first_row
    if "instance_id" not in first or not SIGNS & first.keys() or document.kind == "text":
        return None
    return _rows(document, findings)


def _rows(document: Document, findings: Findings) -> Iterator[GradedResult]:
    for number, row in enumerate(document.rows(), 1):
        if isinstance(row.get("instance_id"), str):
            yield _result(row, document, findings)
        else:
            findings.add("results without an instance", f"{document.path}, row {number}")


def _result(row: Mapping[str, Any], document: Document, findings: Findings) -> GradedResult:
    test_result = _mapping(row.get("test_result"))
    fine = _mapping(row.get("fine_grained_report"))
    report = {**fine, **(_mapping(row.get("report")) or _mapping(test_result.get("report")))}
    targets, guards = _lists(report, fine, document, row, findings)
    patch = next((each for each in (test_result.get("git_patch"), row.get("git_patch"), row.get("model_patch")) if (
        isinstance(each, str)
    )), None)  # fmt: skip
    output = test_result.get("test_output")
    statuses = run_logs.outcome_of(output) if isinstance(output, str) else None
    why = _why_not(report, row)
    resolved = report.get("resolved")
    metadata = _mapping(row.get("metadata"))
    has_tests = targets is not None or guards is not None
    depth = Depth.TESTS if has_tests else Depth.LOG if statuses else Depth.RESOLVED if report else Depth.SUBMISSION
    is_empty = report.get("empty_generation") is True or (patch is not None and not patch.strip())
    return GradedResult(
        instance=str(row["instance_id"]),
        place=document.path.parent,
        depth=depth,
        source=NAME,
        model=str(_mapping(metadata.get("llm_config")).get("model") or ""),
        fail_to_pass=targets,
        pass_to_pass=guards,
        statuses=None if has_tests or why else statuses,
        resolved=resolved if isinstance(resolved, bool) and not why else None,
        empty=is_empty if is_empty or patch is not None else None,
        applied=False if report.get("failed_apply_patch") is True else None,
        patch=patch,
        timed_out=report.get("test_timeout") is True,
        why=why,
    )


def _lists(
    report: Mapping[str, Any], fine: Mapping[str, Any], document: Document, row: Mapping[str, Any], findings: Findings
) -> tuple[GradedTests | None, GradedTests | None]:
    lists = _mapping(report.get("tests_status")) or _mapping(fine.get("eval_report"))
    where = f"{document.path}: {row['instance_id']}"
    tallies = [swe_bench.tally(lists.get(key), where, findings) for key in ("FAIL_TO_PASS", "PASS_TO_PASS")]
    return tallies[0], tallies[1]


def _why_not(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The reason why there is no outcome; empty if there is one, or the patch says it."""
    if report.get("test_timeout") is True:
        return "its tests timed out"
    if report.get("error_eval") is True or report.get("test_errored") is True:
        return "its evaluation failed"
    error = row.get("error")
    return "" if report else f"the agent failed: {str(error).strip().splitlines()[0][:80]}" if error else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
