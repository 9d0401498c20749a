"""Audits of a cascade: stopped attempts that are executed all the same, and how often their stops were wrong."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from regrade.policy_training.environments.stops import Ground, Stage

WINDOW = 300
"""The latest audits, which alone count: the policy changes."""
ALPHA = 0.01
"""Of the two-sided interval that ends a cascade: looked at after each batch, it is wider than the usual one."""
FEWEST = 5
"""Audits before a cascade can be ended: a single wrong stop is no rate."""


@dataclass(frozen=True)
class Audit:
    """One stop beside the execution."""

    stage: Stage
    ground: Ground
    paid: float
    """What the stopped attempt would have been paid."""
    executed: float
    """What the execution pays."""
    is_wrong: bool
    """Do they differ by more than the tolerance?"""


class Audits:
    """The latest audits of a training."""

    def __init__(self, max_wrong: float) -> None:
        """
        Args:
            max_wrong: share of wrong stops above which the cascade ends.
        """
        self.max_wrong = max_wrong
        self.are_too_wrong = False
        """Was the share of wrong stops too high? It stays so: nothing is audited any more."""
        self._latest: deque[Audit] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def add(self, audit: Audit) -> None:
        with self._lock:
            self._latest.append(audit)
            if len(self._latest) >= FEWEST and self.interval(ALPHA)[0] > self.max_wrong:
                self.are_too_wrong = True

    @property
    def wrong(self) -> int:
        return sum(audit.is_wrong for audit in self._latest)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The Wilson interval of the share of wrong stops; (0, 1) without an audit."""
        from statsmodels.stats.proportion import proportion_confint

        if not self._latest:
            return 0.0, 1.0
        low, high = proportion_confint(self.wrong, len(self._latest), alpha=alpha, method="wilson")
        return float(low), float(high)

    def numbers(self) -> dict[str, float]:
        """For the training log: the latest audits, their wrong share with its 95 % interval, the mean error of pay."""
        with self._lock:
            numbers = {"cascade/audits": float(len(self._latest)), "cascade/fell_back": float(self.are_too_wrong)}
            if not self._latest:
                return numbers
            low, high = self.interval()
            errors = [abs(audit.paid - audit.executed) for audit in self._latest]
            return {
                **numbers,
                "cascade/wrong": self.wrong / len(self._latest),
                "cascade/wrong_low": low,
                "cascade/wrong_high": high,
                "cascade/pay_error": sum(errors) / len(errors),
            }

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        with self._lock:
            return {"latest": [asdict(audit) for audit in self._latest], "are_too_wrong": self.are_too_wrong}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self._latest.clear()
            for values in state["latest"]:
                kinds = {"stage": Stage(values["stage"]), "ground": Ground(values["ground"])}
                self._latest.append(Audit(**{**values, **kinds}))
            self.are_too_wrong = state["are_too_wrong"]
