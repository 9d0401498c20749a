"""How far a verdict can be trusted."""

from __future__ import annotations

from enum import StrEnum


class AssuranceLevel(StrEnum):
    """How far a verdict can be trusted, from the weakest level to the strongest; `<` compares by strength."""

    UNCONFINED = "unconfined"
    """The candidate's code ran in a plain process, which isolates nothing."""
    IN_PROCESS = "in-process"
    """It ran in a sandbox, in the process of the tests, and can forge their outcomes."""
    TRIPWIRED = "tripwired"
    """Copies of the tests that it cannot predict had the outcomes that they must have."""
    OUT_OF_PROCESS = "out-of-process"
    """The tests pass in a process that holds none of its code."""
    HELD_OUT = "held-out"
    """Its functions also give the reference patch's answers to inputs that no test holds."""

    @property
    def strength(self) -> int:
        return list(AssuranceLevel).index(self)

    def __lt__(self, other: str) -> bool:
        return self.strength < AssuranceLevel(other).strength

    def __le__(self, other: str) -> bool:
        return self.strength <= AssuranceLevel(other).strength

    def __gt__(self, other: str) -> bool:
        return self.strength > AssuranceLevel(other).strength

    def __ge__(self, other: str) -> bool:
        return self.strength >= AssuranceLevel(other).strength
