"""Summaries of a whole run, with lists of instances: sb-cli, SWE-bench's harness (old and new), the leaderboard.

They say whether an instance was resolved, and no more: neither a fix nor a breakage alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult

NAME = "summary"
RESOLVED = ("resolved_ids", "resolved")
UNRESOLVED = ("unresolved_ids", "unresolved")
EMPTY = ("empty_patch_ids", "no_generation")
NOT_APPLIED = ("no_apply",)
LOST: Mapping[str, str] = {
    "error_ids": "the summary lists it as an error",
    "failed_ids": "the summary lists it as failed",
    "pending_ids": "the summary lists it as pending",
    "incomplete_ids": "the summary lists it as incomplete",
    "test_timeout": "its tests timed out",
    "test_errored": "its tests did not run",
    "install_fail": "its installation failed",
    "reset_failed": "its tree could not be reset",
    "no_logs": "it has no log",
}
GRADED = ("completed_ids", "applied", "with_logs")
"""Lists of all instances with an outcome."""
SIGNS = (frozenset({"resolved_ids"}), frozenset({"resolved", "no_generation"}), frozenset({"resolved", "applied"}))


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The claims of a summary; None if the document is none."""
    value = document.value if document.kind == "json" else None
    if not isinstance(value, dict) or not any(signs <= value.keys() for signs in SIGNS):
        return None
    if not any(isinstance(value.get(key), list) for key in RESOLVED):
        findings.add("summaries with counts but without lists of instances", str(document.path))
        return iter(())
    return _claims(value, document, findings)


def _claims(value: Mapping[str, Any], document: Document, findings: Findings) -> Iterator[GradedResult]:
    resolved, unresolved, empty = (_ids(value, keys) for keys in (RESOLVED, UNRESOLVED, EMPTY))
    lost = {instance: why for key, why in LOST.items() for instance in _ids(value, (key,))}
    unapplied, graded = _ids(value, NOT_APPLIED), _ids(value, GRADED)
    named = {**resolved, **unresolved, **empty, **lost, **unapplied, **graded}
    total = value.get("total_instances")
    if isinstance(total, int) and len(named) < total:
        findings.add("summaries that name fewer instances than they count", f"{document.path}: {len(named)} of {total}")
    for instance in sorted(named):
        is_resolved = instance in resolved
        if is_resolved and (instance in unresolved or instance in lost):
            findings.add("instances under two headings of a summary", f"{document.path}: {instance}")
        outcome = True if is_resolved else False if instance in unresolved or instance in graded else None
        yield GradedResult(
            instance=instance,
            place=document.path,
            depth=Depth.RESOLVED,
            source=NAME,
            resolved=None if instance in lost and not is_resolved else outcome,
            empty=True if instance in empty and not is_resolved else None,
            applied=False if instance in unapplied else None,
            timed_out=instance in _ids(value, ("test_timeout",)),
            why=lost.get(instance, ""),
        )


def _ids(value: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, None]:
    lists = (value.get(key) for key in keys)
    return {each: None for listed in lists if isinstance(listed, list) for each in listed if isinstance(each, str)}
