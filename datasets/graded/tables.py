"""Plain tables, CSV or JSON lines: one row an attempt, with a task and its outcome.

| column (other names) | meaning |
|-|-|
| task (instance_id, instance) | the task |
| policy (agent, model, model_name_or_path) | the policy; else the file's name |
| sample (attempt, epoch) | number of the attempt; else its place among those of the task in the run |
| run (seed) | number of the whole pass over the tasks |
| repository (repo) | else from the task's id |
| fixed (fix) | 0 or 1; with n_fail_to_pass: FAIL_TO_PASS tests that pass |
| broken (broke) | 0 or 1 or a count, or a list of test ids; empty: unmeasured |
| resolved | fixed and nothing broken |
| n_fail_to_pass, n_pass_to_pass, not_fixed, empty_patch, applied, error | optional |
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult, GradedTests

NAME = "table"
TASK = ("task", "instance_id", "instance")
POLICY = ("policy", "agent", "model", "model_name_or_path")
SAMPLE = ("sample", "attempt", "epoch")
RUN = ("run", "seed")
FIXED = ("fixed", "fix")
BROKEN = ("broken", "broke")
OUTCOMES = frozenset({*FIXED, *BROKEN, "resolved"})
YES, NO = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no"})
UNKNOWN = frozenset({"", "none", "null", "nan", "na", "n/a"})
WRONG = "rows of a table with a value that cannot be read"


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The rows of a table; None if the document is none."""
    columns = document.columns if document.kind == "text" else frozenset(map(str, document.first_row))
    if not columns & {*TASK} or not columns & OUTCOMES or "tests_status" in columns or "test_result" in columns:
        return None
    rows = document.table() if document.kind == "text" else document.rows()
    return _results(document, rows, findings)


def _results(document: Document, rows: Iterator[dict[str, Any]], findings: Findings) -> Iterator[GradedResult]:
    seen: Counter[tuple[str, str, int | None]] = Counter()
    for number, row in enumerate(rows, 1):
        task, policy = str(_first(row, TASK) or ""), str(_first(row, POLICY) or "")
        where = f"{document.path}, row {number}"
        if not task:
            findings.add(WRONG, f"{where}: no task")
            continue
        sample = _count(_first(row, SAMPLE), where, findings)
        run = _count(_first(row, RUN), where, findings)
        place = seen[policy, task, run]
        seen[policy, task, run] += 1
        result = _result(row, task, policy, place if sample is None else sample, document, where, findings)
        yield replace(result, run=run)


def _result(
    row: Mapping[str, Any], task: str, policy: str, sample: int, document: Document, where: str, findings: Findings
) -> GradedResult:
    fixed, broken = _first(row, FIXED), _first(row, BROKEN)
    targets = _count(row.get("n_fail_to_pass"), where, findings)
    guarded = _count(row.get("n_pass_to_pass"), where, findings)
    error = row.get("error")
    known = not error or fixed not in (None, "")
    is_summary = not policy and fixed is None and broken is None
    fail_to_pass = _target_tally(targets, fixed, where, findings) if targets is not None else None
    pass_to_pass = _guard_tally(guarded, broken, where, findings) if guarded is not None else None
    fix = _flag(fixed, where, findings) if known and targets is None else None
    broke = _some(broken, where, findings) if known and guarded is None else None
    if known and broke is None and pass_to_pass is None and str(broken or "").strip().lower() not in UNKNOWN:
        return GradedResult(  # not unmeasured but unknown: a fix must not count as clean
            instance=task, place=document.path, depth=Depth.TESTS, source=NAME, policy=policy, sample=sample,
            lost=True, why="its breakage cannot be read",
        )  # fmt: skip
    return GradedResult(
        instance=task,
        place=document.path,
        depth=Depth.RESOLVED if is_summary else Depth.TESTS,
        source=NAME,
        policy=policy,
        sample=None if is_summary else sample,
        repository=str(_first(row, ("repository", "repo")) or ""),
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        fix=fix,
        broke=broke,
        resolved=_flag(row.get("resolved"), where, findings),
        empty=_flag(row.get("empty_patch"), where, findings),
        applied=_flag(row.get("applied"), where, findings) if error else None,
        why=str(error or ""),
    )


def _target_tally(total: int, fixed: Any, where: str, findings: Findings) -> GradedTests | None:
    count = _count(fixed, where, findings)
    return None if count is None else GradedTests(total=total, failed=max(0, total - count))


def _guard_tally(total: int, broken: Any, where: str, findings: Findings) -> GradedTests | None:
    ids = _list(broken)
    if ids is not None:
        return GradedTests(total=total, failed=len(ids), failed_ids=ids)
    count = _count(broken, where, findings)
    return None if count is None else GradedTests(total=total, failed=min(count, total))


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)


def _list(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return tuple(map(str, value)) if isinstance(value, list) else None


def _flag(value: Any, where: str, findings: Findings) -> bool | None:
    text = str(value).strip().lower() if value is not None else ""
    if text in YES or text in NO:
        return text in YES
    if text not in UNKNOWN:
        findings.add(WRONG, f"{where}: {value!r} is neither 0 nor 1")
    return None


def _some(value: Any, where: str, findings: Findings) -> bool | None:
    """Is it more than nothing: a count, a list, or yes?"""
    ids = _list(value)
    if ids is not None:
        return bool(ids)
    text = str(value).strip().lower() if value is not None else ""
    if text in YES or text in NO or text in UNKNOWN:
        return None if text in UNKNOWN else text in YES
    count = _count(value, where, findings)
    return None if count is None else count > 0


def _count(value: Any, where: str, findings: Findings) -> int | None:
    text = str(value).strip() if value is not None else ""
    if text.lower() in UNKNOWN:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0 and number == int(number)):
        findings.add(WRONG, f"{where}: {text[:40]!r} is no count")
        return None
    return int(number)
