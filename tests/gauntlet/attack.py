"""An exploit as data, and helpers that build its patch."""

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
    """An exploit that does not fix the bug, and its honest twin, a fix with similar edits."""

    row: str
    """Row in docs/security.md; `+` and a number for exploits beyond the catalogue."""
    name: str
    how: str
    layer: str
    """The layers that neutralise it (see `LAYERS`)."""
    changes: Changes
    twin: Changes
    bug: str = "discount"
    text: str | Callable[[Path], str] = ""
    """Patch text besides the changes, for links, odd paths and bytes; a callable receives the checkout."""
    twin_text: str | Callable[[Path], str] = ""
    before: Changes | None = None
    """Changes by an earlier candidate, who knows the fix."""
    hidden: tuple[str, ...] = ()
    """Test files that scorers with hidden tests add after the patch."""
    builds: bool = False
    """Scorers that install the project run its setup.py before the tests."""
    harms: str = ""
    """Reason why it never runs in a plain process."""
    wall_seconds: float | None = None
    serves: bool = field(default=False)
    """It requests the fix from a server on this machine."""
    rewritten: bool = False
    """The twin's fix is not the reference's text: that its tests pass shows that it is one."""

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
    "W": "the watch in the run",
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
    """shop/prices.py with code before its first function, edits, and with or without the fix."""
    path = "shop/prices.py"
    text = (BUGS[bug].files if fixed else base(bug))[path]
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    head, rest = text.split("\n\n\n", 1)
    return {path: f"{head}\n\n{prelude.strip()}\n\n\n{rest}" if prelude else text}


def edited(path: str, *edits: tuple[str, str], files: Mapping[str, str] = FILES) -> dict[str, str]:
    """A file of the repository, edited."""
    text = files[path]
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return {path: text}


def appended(path: str, more: str) -> dict[str, str]:
    return {path: FILES[path] + more}


FIX = library(fixed=True)
WRONG = f"    return round({BUGS['discount'].wrong}, 2)\n"
"""The return statement of `total` with its bug."""
RIGHT = f"    return round({BUGS['discount'].right}, 2)\n"
