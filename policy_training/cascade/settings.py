"""The settings of a cascade: one line of a recipe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from regrade.datasets.errors import UserError
from regrade.rewards.reward_model_folders import read_record

ModelAnswers = Literal["rest", "failures", "all"]


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

    model: Path | None = None
    """The folder of a reward model, which answers for attempts of which it is sure. Default: none."""
    model_answers: ModelAnswers = "rest"
    """`rest`: the model is asked after the tests of the files, whether the rest breaks. `failures`: it is asked first,
    and attempts that surely fix nothing run no test at all. `all`: it is asked first, and pays every attempt its
    expected value, whatever its doubt; only audits are executed, so such a run certifies nothing. Default: `rest`."""
    unsure: float = 0.1
    """The model is sure of an event if its interval lies within this of 0 or of 1; in [0, 1/2). Default: 0.1."""

    def __post_init__(self) -> None:
        for name in ("charge", "tolerance"):
            self._check(name, 0.0, math.inf)
        for name in ("severity", "audit", "max_wrong", "unsure"):
            self._check(name, 0.0, 1.0)
        if self.unsure >= 0.5:
            raise UserError(f"CascadeSettings: unsure is {self.unsure!r}; give a share below 1/2")
        if (self.charge > 0 or self.model is not None) and not self.audit:
            raise UserError("CascadeSettings: audit is 0, but stops may change what is paid; give a share above 0")
        if self.model_answers not in get_args(ModelAnswers):
            allowed = ", ".join(get_args(ModelAnswers))
            raise UserError(f"CascadeSettings: model_answers is {self.model_answers!r}; give one of {allowed}")
        if self.model is None and self.model_answers != "rest":
            raise UserError(
                f"CascadeSettings: model_answers is {self.model_answers!r}, and no model is given: give `model`"
            )
        if self.model is not None and self.severity is None:
            raise UserError(
                "CascadeSettings: severity is None, but a model predicts whether an attempt breaks, not how much; "
                "give a share"
            )

    def to_json(self) -> dict[str, Any]:
        """All settings, and the digest of the model's files, for the record of a run."""
        values = asdict(self)
        if self.model is None:
            return values
        return {**values, "model": str(self.model), "model_digest": read_record(self.model).digest}

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name == "severity":
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and low <= value <= high):
            allowed = f"a share between {low:g} and {high:g}" if high == 1.0 else "a finite number of at least 0"
            raise UserError(f"CascadeSettings: {name} is {value!r}; give {allowed}")
