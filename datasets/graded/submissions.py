"""What was submitted: SWE-bench predictions, and the trajectories and batches of mini-swe-agent.

They hold no outcome; they say which patch was graded, and that none was submitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult

NAME = "predictions"


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The submissions of a file of predictions, a trajectory or a patch of SWE-bench's harness; None if it is none."""
    if document.kind == "text":
        return _patch_file(document)
    value = document.value if document.kind == "json" else None
    if isinstance(value, dict) and isinstance(value.get("info"), dict) and "submission" in value["info"]:
        return iter([_trajectory(document, value)])
    entries = _entries(document, value)
    return None if entries is None else _predictions(document, entries, findings)


def _entries(document: Document, value: Any) -> Iterator[dict[str, Any]] | None:
    if "model_patch" in document.first_row and "instance_id" in document.first_row:
        return document.rows()
    if isinstance(value, dict) and any(isinstance(each, dict) and "model_patch" in each for each in value.values()):
        return ({"instance_id": name, **each} for name, each in value.items() if isinstance(each, dict))
    return None


def _predictions(document: Document, entries: Iterator[dict[str, Any]], findings: Findings) -> Iterator[GradedResult]:
    for entry in entries:
        instance, patch = entry.get("instance_id"), entry.get("model_patch")
        if not isinstance(instance, str) or not isinstance(patch, str | None):
            findings.add("predictions without an instance or a patch", f"{document.path}: {instance}")
            continue
        text = patch or ""
        model = entry.get("model_name_or_path")
        yield GradedResult(
            instance=instance,
            place=document.path,
            depth=Depth.SUBMISSION,
            source=NAME,
            model=model if isinstance(model, str) else "",
            patch=text,
            empty=not text.strip(),
        )


def _trajectory(document: Document, value: dict[str, Any]) -> GradedResult:
    info = value["info"]
    submission, status = info.get("submission"), str(info.get("exit_status") or "")
    text = submission if isinstance(submission, str) else ""
    instance = value.get("instance_id")
    return GradedResult(
        instance=instance if isinstance(instance, str) and instance else document.path.name.split(".")[0],
        place=document.path.parent.parent,
        depth=Depth.SUBMISSION,
        source="mini-swe-agent",
        patch=text,
        empty=None if isinstance(submission, str) and text.strip() else True if status == "Submitted" else None,
        why="" if status in ("", "Submitted") else f"the agent ended with {status}",
    )


def _patch_file(document: Document) -> Iterator[GradedResult] | None:
    """`INSTANCE/patch.diff`, which SWE-bench's harness writes beside its report."""
    if document.path.name != "patch.diff":
        return None
    folder = document.path.parent
    return iter(
        [
            GradedResult(
                instance=folder.name,
                place=folder.parent,
                depth=Depth.SUBMISSION,
                source="swe-bench",
                patch=document.text,
                empty=not document.text.strip(),
            )
        ]
    )
