"""Splits of the ready-made tasks.

Held-out packages are never trained on. Within the training packages the split is by *function*: all bugs of one
function are in the same split, so that a policy cannot copy a demonstration into a validation task.
"""

from __future__ import annotations

import hashlib

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.packages import Package

SPLITS = ("demonstrations", "tests_only", "validation", "held_out")
"""`demonstrations`: training may use references (few tasks). `tests_only`: training may use only tests (many tasks).
`validation`: for choosing settings. `held_out`: for the verdict."""
_DEMONSTRATIONS = 0.24
_VALIDATION = 0.06


def split_of(package: Package, function: str) -> str:
    """The split of a function (`file::qualified.name`), which depends on names only: new tasks never move old ones."""
    if package.group == "held_out":
        return "held_out"
    digest = hashlib.sha256(f"{package.name}/{function}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < _DEMONSTRATIONS:
        return "demonstrations"
    return "validation" if share < _DEMONSTRATIONS + _VALIDATION else "tests_only"


def check_split(split: str | None) -> None:
    """Raises UserError for an unknown split (None stands for all)."""
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose from: {', '.join(SPLITS)}")
