"""What a cheat is, as data, and how its text is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gauntlet.target import BUGS, FILES, base
from regrade.datasets.patches import Patch

Changes = Mapping[str, str | None]
"""Path -> text after the patch; None: deleted."""


@dataclass(frozen=True)
class Attack:
    """A cheat that does not mend the bug, and an honest fix that looks alike."""

    row: str
    """Of the catalogue in docs/security.md; `+` and a number for what was found beyond it."""
    name: str
    how: str
    layer: str
    """The layers that neutralise it: see `LAYERS`."""
    changes: Changes
    twin: Changes
    bug: str = "discount"
    text: str | Callable[[Path], str] = ""
    """Patch text beyond the changes, for what no change of text can say: links, odd paths, bytes. Of the checkout."""
    twin_text: str | Callable[[Path], str] = ""
    before: Changes | None = None
    """What an earlier candidate, who could know the fix, brought along."""
    hidden: tuple[str, ...] = ()
    """Files of tests that scorers which hide tests add after the patch."""
    builds: bool = False
    """Scorers that install the project run its setup.py before the tests."""
    harms: str = ""
    """Why it is never let loose in a plain process."""
    wall_seconds: float | None = None
    serves: bool = field(default=False)
    """It asks a server on this machine for the fix."""

    @property
    def id(self) -> str:
        return f"{self.row} {self.name}"

    def patch(self, checkout: Path) -> Patch:
        return _patch(self.bug, self.changes, self.text, checkout)

    def honest(self, checkout: Path) -> Patch:
        return _patch(self.bug, self.twin, self.twin_text, checkout)


LAYERS: Mapping[str, str] = {
    "S": "signs in the diff",
    "R": "pristine tests and configuration",
    "C": "exact ids, canaries",
    "X": "the candidate's code in another process",
    "H": "held-out inputs",
    "B": "the sandbox",
    "T": "the trusted side",
    "L": "isolated lint",
}


def _patch(bug: str, changes: Changes, text: str | Callable[[Path], str], checkout: Path) -> Patch:
    before = base(bug)
    after = {path: new for path, new in {**before, **changes}.items() if new is not None}
    return Patch(Patch.between(before, after).text + (text(checkout) if callable(text) else text))


def library(prelude: str = "", *edits: tuple[str, str], bug: str = "discount", fixed: bool = False) -> dict[str, str]:
    """shop/prices.py with code before its first function, edited, and mended or not."""
    path = "shop/prices.py"
    text = (FILES if fixed else base(bug))[path]
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    head, rest = text.split("\n\n\n", 1)
    return {path: f"{head}\n\n{prelude.strip()}\n\n\n{rest}" if prelude else text}


def edited(path: str, *edits: tuple[str, str]) -> dict[str, str]:
    """A file of the repository, edited."""
    text = FILES[path]
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return {path: text}


def appended(path: str, more: str) -> dict[str, str]:
    return {path: FILES[path] + more}


FIX = library(fixed=True)
WRONG = f"    return round({BUGS['discount'].wrong}, 2)\n"
"""What `total` returns while it has its bug."""
RIGHT = f"    return round({BUGS['discount'].right}, 2)\n"
