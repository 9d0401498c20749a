"""Levels of assurance of a verdict."""

from __future__ import annotations

from enum import StrEnum


class AssuranceLevel(StrEnum):
    """The levels of assurance of a verdict, weakest first; `<` compares by strength."""

    UNCONFINED = "unconfined"
    """The candidate's code ran in a plain process without isolation."""
    UNSEALED = "unsealed"
    """It ran in a sandbox, and the outcomes are read from what the tests print; the candidate's code can print too."""
    IN_PROCESS = "in-process"
    """It ran in a sandbox, in the process of the tests, and can forge their outcomes."""
    TRIPWIRED = "tripwired"
    """Copies of the tests, which it cannot predict, had their expected outcomes."""
    OUT_OF_PROCESS = "out-of-process"
    """The tests pass in a process without the candidate's code."""
    HELD_OUT = "held-out"
    """Its functions also return the reference patch's results for inputs that no test contains."""

    @property
    def strength(self) -> int:
        return list(AssuranceLevel).index(self)

    @property
    def not_excluded(self) -> str:
        """What a verdict of this level alone does not exclude, in one line; empty: see docs/security.md in any case."""
        return NOT_EXCLUDED.get(self, "")

    def __lt__(self, other: str) -> bool:
        return self.strength < AssuranceLevel(other).strength

    def __le__(self, other: str) -> bool:
        return self.strength <= AssuranceLevel(other).strength

    def __gt__(self, other: str) -> bool:
        return self.strength > AssuranceLevel(other).strength

    def __ge__(self, other: str) -> bool:
        return self.strength >= AssuranceLevel(other).strength


NOT_EXCLUDED = {
    AssuranceLevel.UNCONFINED: "unconfined: does not exclude any tampering, with the tests or with this machine "
    "(docs/security.md)",
    AssuranceLevel.UNSEALED: "unsealed: does not exclude outcomes that the patch printed itself (docs/containers.md)",
    AssuranceLevel.IN_PROCESS: "in-process: does not exclude answers made for the tests, nor tampering in the tests' "
    "process that leaves no sign (docs/security.md)",
}
