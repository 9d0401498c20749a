"""Logs of Inspect (`.eval`, and its JSON form), read by the package `inspect-ai` itself: the extra `inspect`.

SWE-bench's scorer in Inspect writes the status of each test into the explanation of its score. Of another scorer the
score of 1 is a fix, and breakage is unmeasured.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import UNREADABLE, Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult, GradedTests
from regrade.datasets.graded.run_logs import FAILING, PASSING

NAME = "inspect"
JSON_SIGNS = frozenset({"version", "status", "eval"})
LARGEST_LOG = 8 << 30
"""Bytes of a log when unpacked."""
LETTERS: Mapping[str, float] = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
LISTS = re.compile(r"PASS_TO_PASS:\s*(?P<guards>\{.*?\})\s*FAIL_TO_PASS:\s*(?P<targets>\{.*\})", re.DOTALL)


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The samples of a log; None if the document is none."""
    return _samples(document, findings) if is_inspect_log(document) else None


def is_inspect_log(document: Document) -> bool:
    """Is the document a log? Raises UserError if it is too large when unpacked."""
    if document.kind == "archive":
        return _is_archived_log(document)
    value = document.value if document.kind == "json" else None
    return isinstance(value, dict) and value.keys() >= JSON_SIGNS and isinstance(value["eval"], dict)


def _is_archived_log(document: Document) -> bool:
    try:
        with zipfile.ZipFile(document.path) as archive:
            names, size = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError):
        document.findings.add(UNREADABLE, f"{document.path} (a damaged archive)")
        return False
    if size > LARGEST_LOG:
        raise UserError(f"{document.path}: a log of {size:,} bytes when unpacked: give a smaller one")
    return "_journal/start.json" in names or "header.json" in names


def inspect_log_reader(document: Document) -> Any:
    """Inspect's own module that reads a log. Raises UserError if its package is not installed."""
    try:
        from inspect_ai import log
    except ImportError as error:
        raise UserError(
            f"{document.path} is a log of Inspect, which needs its package: pip install inspect-ai"
        ) from error
    return log


def _samples(document: Document, findings: Findings) -> Iterator[GradedResult]:
    log = inspect_log_reader(document)
    try:
        header = log.read_eval_log(str(document.path), header_only=True)
        if header.status != "success":
            findings.add(f"logs of Inspect with the status {header.status!r}", str(document.path))
        for sample in log.read_eval_log_samples(str(document.path), all_samples_required=False):
            yield _result(sample, header, document, findings)
    except Exception as error:  # also those of its decompressors and parsers
        findings.add(UNREADABLE, f"{document.path} ({str(error).splitlines()[0][:80] if str(error) else error!r})")


def _result(sample: Any, header: Any, document: Document, findings: Findings) -> GradedResult:
    score = _score(sample, document, findings)
    value = None if score is None else _value(score.value)
    metadata = sample.metadata or {}
    targets, guards = _lists(str(score.explanation or ""), metadata) if score is not None else (None, None)
    is_swe_bench = "PASS_TO_PASS" in metadata or targets is not None
    patch = (score.metadata or {}).get("model_patch") if score is not None else None
    error = sample.error.message.splitlines()[0][:80] if sample.error and sample.error.message else ""
    passed = None if value is None or error else value >= 1
    if value is not None and 0 < value < 1:
        findings.add("scores between 0 and 1, which count as no fix", f"{document.path}: {sample.id}")
    return GradedResult(
        instance=str(sample.id),
        place=document.path,
        depth=Depth.TESTS,
        source=NAME,
        policy=str(header.eval.model),
        model=str(header.eval.model),
        sample=int(sample.epoch) - 1,
        repository=str(metadata.get("repo") or ""),
        fail_to_pass=targets,
        pass_to_pass=guards,
        fix=passed if not is_swe_bench else None,
        resolved=passed if is_swe_bench else None,
        patch=patch if isinstance(patch, str) else None,
        empty=not patch.strip() if isinstance(patch, str) else None,
        why=f"the sample failed: {error}" if error else "" if score is not None else "the sample has no score",
        seconds=sample.total_time,
        tokens=_tokens(sample),
    )


def _score(sample: Any, document: Document, findings: Findings) -> Any:
    scores = sample.scores or {}
    if len(scores) > 1:
        findings.add("samples with several scores, of which the first counts", f"{document.path}: {sample.id}")
    return next(iter(scores.values()), None)


def _value(value: object) -> float | None:
    if isinstance(value, str):
        return LETTERS.get(value.strip().upper())
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def _lists(explanation: str, metadata: Mapping[str, Any]) -> tuple[GradedTests | None, GradedTests | None]:
    match = LISTS.search(explanation)
    if match is None:
        return None, None
    try:
        found = [json.loads(match[name]) for name in ("targets", "guards")]
    except ValueError:
        return None, None
    listed = [_tests(metadata.get(key)) for key in ("FAIL_TO_PASS", "PASS_TO_PASS")]
    targets, guards = (_tally(statuses, tests) for statuses, tests in zip(found, listed, strict=True))
    return targets, guards


def _tally(statuses: Mapping[str, Any], tests: list[str]) -> GradedTests:
    """Older versions write true and false, and leave out tests that did not run."""
    passed = [test for test, status in statuses.items() if status is True or status in PASSING]
    failed = [test for test, status in statuses.items() if status is False or status in FAILING]
    return GradedTests.of(passed, failed, max(0, len(tests) - len(passed) - len(failed)))


def _tests(value: object) -> list[str]:
    try:
        tests = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return []
    return [str(test) for test in tests] if isinstance(tests, list) else []


def _tokens(sample: Any) -> float | None:
    counts = [usage.output_tokens for usage in (sample.model_usage or {}).values()]
    return float(sum(counts)) if counts else None
