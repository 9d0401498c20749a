"""The settings of a cascade: one line of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regrade.datasets.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CascadeSettings:
    """The cascade: when training may stop the execution of an attempt before all tests that its change can reach.

    A clean fix is always executed, and evaluations run no cascade.

    Raises:
        UserError: a number is out of its range.
    """

    charge: float = 0.0
    """The most, in units of what an attempt is paid, that a stop may change the pay; >= 0. Default: 0: only stops
    that change nothing."""
    severity: float | None = None
    """Share of the PASS_TO_PASS tests, in [0, 1], that an attempt is charged to break if it was stopped after it broke
    one. Default: none: such attempts run on."""
    audit: float = 0.1
    """Share of the stopped attempts, in [0, 1], drawn by the seed, that are executed all the same: they are paid by the
    execution, and show how often a stop is wrong. Default: 0.1."""
    tolerance: float = 0.1
    """A stop is wrong if the execution pays more or less by more than this; >= 0. Default: 0.1."""
    max_wrong: float = 0.05
    """Share of wrong stops, in [0, 1], above which everything is executed from then on: as soon as the 99 % interval of
    the audits lies above it. Default: 0.05."""

    def __post_init__(self) -> None:
        for name in ("charge", "tolerance"):
            self._check(name, 0.0, math.inf)
        for name in ("severity", "audit", "max_wrong"):
            self._check(name, 0.0, 1.0)
        if self.charge > 0 and not self.audit:
            raise UserError("CascadeSettings: audit is 0, but stops may change what is paid; give a share above 0")

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name == "severity":
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and low <= value <= high):
            allowed = f"a share between {low:g} and {high:g}" if high == 1.0 else "a finite number of at least 0"
            raise UserError(f"CascadeSettings: {name} is {value!r}; give {allowed}")
