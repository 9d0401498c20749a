"""Audits of a cascade: stopped attempts that are executed all the same, and how far their stops were wrong.

Two rules end what is wrong. Of stops by tests or by a model that is sure, the share that pays otherwise than the
execution must stay below a limit. Of all answers of a model, the mean pay must not exceed that of the execution: a
policy that optimises a model finds what the model overpays (Gao et al. 2210.10760).
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from regrade.policy_training.environments.stops import CascadeStage, Ground

logger = logging.getLogger(__name__)
WINDOW = 300
"""The latest audits, which alone count: the policy changes."""
ALPHA = 0.01
"""Of the two-sided intervals that end a stage: looked at after each batch, they are wider than the usual ones."""
FEWEST = 5
"""Audits before anything is ended: a single wrong stop is no rate."""


@dataclass(frozen=True)
class StopAudit:
    """One stop beside the execution."""

    stage: CascadeStage
    ground: Ground
    paid: float
    """What the stopped attempt would have been paid."""
    executed: float
    """What the execution pays."""
    attempts: int = 1
    """Attempts of the batch with this patch."""

    @property
    def overpaid(self) -> float:
        return self.paid - self.executed


def effective_number(audits: Sequence[StopAudit]) -> float:
    """Of independent observations (Kish): equal patches of a batch have one result, and count as often as they are."""
    squares = sum(audit.attempts**2 for audit in audits)
    return sum(audit.attempts for audit in audits) ** 2 / squares if squares else 0.0


def weighted_mean(audits: Sequence[StopAudit], value: Callable[[StopAudit], float]) -> float:
    """Over the attempts of the audits."""
    total = sum(audit.attempts for audit in audits)
    return sum(audit.attempts * value(audit) for audit in audits) / total if total else math.nan


class StopAudits:
    """The latest audits of a training. Safe for several threads."""

    def __init__(self, max_wrong: float, tolerance: float) -> None:
        """
        Args:
            max_wrong: share of wrong stops above which everything is executed.
            tolerance: a stop is wrong if it pays more or less by more than this. A model that overpays by more, in the
                mean, is asked no more.
        """
        self.max_wrong = max_wrong
        self.tolerance = tolerance
        self.are_too_wrong = False
        """Was the share of wrong stops too high? It stays so: nothing is stopped any more."""
        self.have_parted = False
        """Did the model overpay? It stays so: it is asked no more."""
        self._latest: deque[StopAudit] = deque(maxlen=WINDOW)
        self._new: list[StopAudit] = []
        self._now: set[str] = set()
        """What ended since the numbers were last taken, as keys of the log."""
        self._lock = threading.Lock()

    def add(self, audit: StopAudit) -> None:
        with self._lock:
            self._latest.append(audit)
            self._new.append(audit)
            enough = effective_number(self._decided) >= FEWEST
            if not self.are_too_wrong and enough and self.wrong_interval(ALPHA)[0] > self.max_wrong:
                self.are_too_wrong = True
                self._now.add("cascade/ended")
                logger.warning(
                    "cascade: %.0f %% of the stops are wrong, above %.0f %%: everything is executed from here on",
                    100 * self.wrong_share,
                    100 * self.max_wrong,
                )
            if not self.have_parted and self.overpay_interval(ALPHA)[0] > self.tolerance:
                self.have_parted = True
                self._now.add("cascade/parted")
                logger.warning(
                    "cascade: the reward model pays %.3g more than the execution: it is asked no more",
                    weighted_mean(self._predicted, lambda audit: audit.overpaid),
                )

    def is_wrong(self, audit: StopAudit) -> bool:
        return abs(audit.overpaid) > self.tolerance

    @property
    def _decided(self) -> list[StopAudit]:
        """Those whose stop named one outcome."""
        return [audit for audit in self._latest if audit.ground is not Ground.EXPECTED]

    @property
    def _predicted(self) -> list[StopAudit]:
        return [audit for audit in self._latest if audit.stage is CascadeStage.MODEL]

    def wrong_interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The Wilson interval of the share of attempts with a wrong stop; (0, 1) without an audit."""
        from statsmodels.stats.proportion import proportion_confint

        audits = self._decided
        if not audits:
            return 0.0, 1.0
        count = effective_number(audits)
        low, high = proportion_confint(self.wrong_share * count, count, alpha=alpha, method="wilson")
        return float(low), float(high)

    @property
    def wrong_share(self) -> float:
        """Of the attempts with a stop that named one outcome."""
        return weighted_mean(self._decided, lambda audit: float(self.is_wrong(audit)))

    def overpay_interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The t interval of what the model pays too much per attempt; unbounded with fewer than `FEWEST` audits."""
        from scipy.stats import t

        audits = self._predicted
        count = effective_number(audits)
        if count < FEWEST:
            return -math.inf, math.inf
        mean = weighted_mean(audits, lambda audit: audit.overpaid)
        variance = weighted_mean(audits, lambda audit: (audit.overpaid - mean) ** 2) * count / (count - 1)
        half = float(t.ppf(1 - alpha / 2, count - 1)) * math.sqrt(variance / count)
        return mean - half, mean + half

    def take_numbers(self) -> dict[str, float]:
        """For the training log. Of the latest audits: the share of wrong stops with its 95 % interval, the mean error
        of pay, what the model overpays. Of the audits since the last call: what the model and what the execution pays,
        side by side."""
        with self._lock:
            new, self._new = self._new, []
            now, self._now = self._now, set()
            numbers = {
                "cascade/audits": float(len(self._latest)),
                "cascade/fell_back": float(self.are_too_wrong),
                **self._of_stops(),
                **self._of_model([audit for audit in new if audit.stage is CascadeStage.MODEL]),
            }
            return {**numbers, **dict.fromkeys(sorted(now), 1.0)}

    def _of_stops(self) -> dict[str, float]:
        audits = self._decided
        if not audits:
            return {}
        low, high = self.wrong_interval()
        return {
            "cascade/wrong": self.wrong_share,
            "cascade/wrong_low": low,
            "cascade/wrong_high": high,
            "cascade/pay_error": weighted_mean(audits, lambda audit: abs(audit.overpaid)),
        }

    def _of_model(self, new: Sequence[StopAudit]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        if new:
            numbers["cascade/model_pays"] = weighted_mean(new, lambda audit: audit.paid)
            numbers["cascade/execution_pays"] = weighted_mean(new, lambda audit: audit.executed)
        low, high = self.overpay_interval()
        if math.isfinite(low):
            numbers["cascade/overpaid"] = weighted_mean(self._predicted, lambda audit: audit.overpaid)
            numbers |= {"cascade/overpaid_low": low, "cascade/overpaid_high": high}
        if self._predicted:
            numbers["cascade/model_fell_back"] = float(self.have_parted)
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        with self._lock:
            return {
                "latest": [asdict(audit) for audit in self._latest],
                "are_too_wrong": self.are_too_wrong,
                "have_parted": self.have_parted,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self._latest.clear()
            for values in state["latest"]:
                kinds = {"stage": CascadeStage(values["stage"]), "ground": Ground(values["ground"])}
                self._latest.append(StopAudit(**{**values, **kinds}))
            self.are_too_wrong, self.have_parted = state["are_too_wrong"], state["have_parted"]
