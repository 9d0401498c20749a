"""What the hunks of a run's attempts were found to be worth, kept in `RUN/hunks.jsonl` for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import msgspec

from regrade.datasets.json_structs import converted
from regrade.evaluators.storage import journal
from regrade.reports.hunks import AttributionView

FILE = "hunks.jsonl"


class _Kept(msgspec.Struct):
    task: str
    patch_digest: str
    told: AttributionView


def keep(run: Path, task: str, patch_digest: str, told: AttributionView) -> None:
    """Add what is told of one patch. Raises OSError if the run can't be written."""
    journal.append(run / FILE, [{"task": task, "patch_digest": patch_digest, "told": asdict(told)}])


def kept(run: Path) -> Mapping[tuple[str, str], AttributionView]:
    """(task, digest of the patch) -> what was last told of it.

    Raises:
        UserError: a line is damaged.
    """
    found = {}
    for number, row in enumerate(journal.read(run / FILE), 1):
        advice = "delete that row; `regrade explain RUN TASK_ID --hunks` finds it out again"
        line = converted(row, _Kept, f"{run / FILE}, row {number}: damaged", advice)
        found[line.task, line.patch_digest] = line.told
    return found
