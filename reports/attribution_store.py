"""The store of hunk attributions of a run's attempts: `RUN/hunks.jsonl`, read by the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import msgspec

from regrade.datasets.json_structs import converted
from regrade.evaluators.storage import journal
from regrade.reports.hunks import AttributionView

FILE = "hunks.jsonl"


class _StoredAttribution(msgspec.Struct):
    task: str
    patch_digest: str
    view: AttributionView = msgspec.field(name="told")


def store_attribution(run: Path, task: str, patch_digest: str, view: AttributionView) -> None:
    """Append the attribution of one patch. Raises OSError if the run cannot be written."""
    journal.append(run / FILE, [{"task": task, "patch_digest": patch_digest, "told": asdict(view)}])


def load_attributions(run: Path) -> Mapping[tuple[str, str], AttributionView]:
    """Return (task, digest of the patch) -> its latest attribution.

    Raises:
        UserError: a line is damaged.
    """
    views = {}
    for number, row in enumerate(journal.read(run / FILE), 1):
        advice = "delete that row; `regrade explain RUN TASK_ID --hunks` computes it again"
        stored = converted(row, _StoredAttribution, f"{run / FILE}, row {number}: damaged", advice)
        views[stored.task, stored.patch_digest] = stored.view
    return views
