"""What raises an alarm during training: a judge of the numbers of each step. It changes nothing; `stability` reacts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, Literal

from regrade.policy_training.trainers.settings import StabilitySettings

Reaction = Literal["skip", "roll back", "give up"]
Numbers = Mapping[str, float]

FIRST_STEPS = 3
"""Steps whose mean is the start of a metric."""
NORMS, FEWEST_NORMS = 50, 5
"""Gradient norms in the running scale, and how many it needs."""
CLIPPING = 1.0
"""The gradient norm that every trainer clips to: below it, no step is large."""
WORST_RISE = 0.5
"""Nats per token that SFT's loss must rise by."""
SOLVED = 0.95
"""Share of clean fixes at which equal rewards are a success."""
CRITIC_WARM_UP = 5
"""Batches before the critic is judged."""


@dataclass(frozen=True)
class Alarm:
    """One limit that was exceeded."""

    kind: str
    value: float
    limit: float
    what: str
    """What was seen, with the number and its limit."""
    advice: str
    """What to change if it comes again."""
    reaction: Reaction = "roll back"


@dataclass
class StepJudge:
    """Judges the numbers of one training's steps, before each optimizer step.

    The keys are those of the training log, and `loss` and `grad_norm` of this step. A missing number is not judged.
    """

    settings: StabilitySettings
    is_online: bool = True
    """Does the policy learn from its own attempts? SFT does not."""
    _norms: deque[float] = field(default_factory=lambda: deque(maxlen=NORMS))
    _first: dict[str, list[float]] = field(default_factory=dict)
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _rewards: deque[float] = field(default_factory=lambda: deque(maxlen=FIRST_STEPS))
    _batches_of_critic: int = 0

    def judge(self, numbers: Numbers) -> Alarm | None:
        """The gravest alarm of a step; None: it is healthy, and part of what later steps are compared with."""
        self._count(numbers)
        alarms = [alarm for check in CHECKS for alarm in check(self, numbers)]
        if alarms:
            return max(alarms, key=lambda alarm: ("skip", "roll back", "give up").index(alarm.reaction))
        if (norm := numbers.get("grad_norm", 0.0)) > 0:
            self._norms.append(norm)
        return None

    def forget_the_last_steps(self) -> None:
        """After a rollback: what was seen of the abandoned weights does not count."""
        self._in_a_row.clear()
        self._rewards.clear()

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, as plain values."""
        return {
            "norms": list(self._norms),
            "first": {key: list(values) for key, values in self._first.items()},
            "in_a_row": dict(self._in_a_row),
            "rewards": list(self._rewards),
            "batches_of_critic": self._batches_of_critic,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._norms.extend(state["norms"])
        self._first.update(state["first"])
        self._in_a_row.update(state["in_a_row"])
        self._rewards.extend(state["rewards"])
        self._batches_of_critic = state["batches_of_critic"]

    @property
    def is_suspicious(self) -> bool:
        """Has a limit been exceeded in the latest step, though not yet often enough?"""
        return any(self._in_a_row.values())

    def _count(self, numbers: Numbers) -> None:
        for key in ("loss", "entropy", "reward", "completions/clipped_ratio", "truncated"):
            first = self._first.setdefault(key, [])
            if len(first) < FIRST_STEPS and math.isfinite(numbers.get(key, math.nan)):
                first.append(numbers[key])
        if math.isfinite(numbers.get("reward", math.nan)):
            self._rewards.append(numbers["reward"])
        self._batches_of_critic += "value/explained_variance" in numbers

    def _start(self, key: str) -> float | None:
        """The mean of a metric's first steps; None as long as there are too few."""
        first = self._first.get(key, [])
        return fmean(first) if len(first) == FIRST_STEPS else None

    def _again(self, kind: str, exceeded: bool, times: int) -> bool:
        """Has a limit been exceeded `times` times in a row?"""
        self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1 if exceeded else 0
        return self._in_a_row[kind] >= times

    # ------------------------------------------------------------ single steps

    def _not_finite(self, numbers: Numbers) -> Iterator[Alarm]:
        worst = [key for key in ("loss", "grad_norm") if not math.isfinite(numbers.get(key, 0.0))]
        is_again = self._again("non-finite", bool(worst), self.settings.patience)
        if worst:
            name = "loss" if worst[0] == "loss" else "gradient"
            yield Alarm(
                "non-finite",
                numbers[worst[0]],
                math.inf,
                f"the {name} is not finite ({numbers[worst[0]]})",
                "look at the attempts or examples of that step, and compute in float32",
                "roll back" if is_again else "skip",
            )

    def _gradient(self, numbers: Numbers) -> Iterator[Alarm]:
        norm, factor = numbers.get("grad_norm", 0.0), self.settings.gradient_factor
        if factor is None or not math.isfinite(norm) or len(self._norms) < FEWEST_NORMS:
            return
        limit = max(factor * median(self._norms), CLIPPING)
        is_again = self._again("gradient", norm > limit, self.settings.patience)
        if norm > limit:
            yield Alarm(
                "gradient",
                norm,
                limit,
                f"the gradient norm is {norm:.3g}, above {limit:.3g} ({factor:g} times its median)",
                "lower learning_rate, or give larger batches",
                "roll back" if is_again else "skip",
            )

    # ------------------------------------------------------------ levels

    def _loss(self, numbers: Numbers) -> Iterator[Alarm]:
        factor, start = self.settings.loss_factor, self._start("loss")
        if self.is_online or factor is None or start is None or "loss" not in numbers:
            return
        limit = max(factor * start, start + WORST_RISE)
        if self._again("loss", numbers["loss"] > limit, self.settings.patience):
            yield Alarm(
                "loss",
                numbers["loss"],
                limit,
                f"the loss is {numbers['loss']:.3g}, above {limit:.3g}; it began at {start:.3g}",
                "lower learning_rate",
            )

    def _kl(self, numbers: Numbers) -> Iterator[Alarm]:
        value, beyond = numbers.get("kl", 0.0), self.settings.max_kl
        if not self.is_online or beyond is None:
            return
        first = self._first.get("entropy", [])
        limit = beyond + (fmean(first) if first else 0.0)
        if value > limit:
            yield Alarm(
                "kl",
                value,
                limit,
                f"the KL divergence from the initial policy is {value:.3g} nats per token, above {limit:.3g}",
                "lower learning_rate, or raise kl_coef",
            )

    def _entropy(self, numbers: Numbers) -> Iterator[Alarm]:
        share, start, reward = self.settings.min_entropy_share, self._start("entropy"), self._start("reward")
        if not self.is_online or share is None or not start or "entropy" not in numbers:
            return
        has_learned = reward is not None and bool(self._rewards) and fmean(self._rewards) > reward
        low = numbers["entropy"] < share * start and not has_learned
        if self._again("entropy", low, self.settings.patience):
            yield Alarm(
                "entropy",
                numbers["entropy"],
                share * start,
                f"the entropy collapsed to {numbers['entropy']:.3g}, from {start:.3g}, and the reward has not risen",
                "lower learning_rate, or raise the temperature",
            )

    def _equal_rewards(self, numbers: Numbers) -> Iterator[Alarm]:
        limit = self.settings.max_equal_steps
        if limit is None or "reward" not in numbers:
            return
        unscored = math.isnan(numbers["reward"])
        if self._again("unscored", unscored, limit):
            yield Alarm(
                "unscored",
                1.0,
                1.0,
                f"no attempt of the last {limit} batches could be scored",
                "run `regrade doctor TASKS`, and look at what the reward needs",
                "give up",
            )
        solved = numbers.get("fix_and_clean", 0.0) >= SOLVED
        equal = numbers.get("frac_reward_zero_std", 0.0) >= 1.0 and not unscored and not solved
        if self._again("equal rewards", equal, limit):
            yield Alarm(
                "equal rewards",
                1.0,
                1.0,
                f"in the last {limit} batches, all attempts of each group had the same reward (the last mean is "
                f"{numbers['reward']:.3g}), so nothing can be learned",
                "give a reward that tells attempts apart, more attempts per task, or easier tasks",
                "give up",
            )

    def _truncation(self, numbers: Numbers) -> Iterator[Alarm]:
        limit = self.settings.max_truncation
        for key in ("completions/clipped_ratio", "truncated"):
            start = self._start(key)
            if limit is None or start is None or key not in numbers:
                continue
            if self._again(key, numbers[key] > max(limit, 2 * start), self.settings.patience):
                yield Alarm(
                    "truncation",
                    numbers[key],
                    limit,
                    f"{numbers[key]:.0%} of the attempts run out of tokens or turns, above {limit:.0%}; it began at "
                    f"{start:.0%}",
                    "lower learning_rate, or allow longer attempts",
                )

    def _critic(self, numbers: Numbers) -> Iterator[Alarm]:
        key, limit = "value/explained_variance", self.settings.min_explained_variance
        if limit is None or key not in numbers or self._batches_of_critic <= CRITIC_WARM_UP:
            return
        if self._again("critic", numbers[key] < limit, self.settings.patience):
            yield Alarm(
                "critic",
                numbers[key],
                limit,
                f"the critic's explained variance is {numbers[key]:.3g}, below {limit:g}: it misleads the policy",
                "lower value_learning_rate",
            )

    def _ratio(self, numbers: Numbers) -> Iterator[Alarm]:
        key, limit = "ratio/drift_on_policy", self.settings.max_ratio_drift
        if limit is None or key not in numbers:
            return
        if self._again("ratio", numbers[key] > limit, self.settings.patience):
            yield Alarm(
                "ratio",
                numbers[key],
                limit,
                f"with the same weights, sampler and trainer disagree: the ratio is off 1 by {numbers[key]:.3g} per "
                f"token, above {limit:g}",
                "set REGRADE_PRECISION=float32, and run `regrade train check`",
                "give up",
            )

    def _clipping(self, numbers: Numbers) -> Iterator[Alarm]:
        key, limit = "clip_ratio/region_mean", self.settings.max_clip_share
        if limit is None or key not in numbers:
            return
        if self._again("clipping", numbers[key] > limit, self.settings.patience):
            yield Alarm(
                "clipping",
                numbers[key],
                limit,
                f"{numbers[key]:.0%} of the ratios are clipped, above {limit:.0%}: the attempts are stale",
                "lower learning_rate, or take fewer steps per generation",
            )

    def _tampering(self, numbers: Numbers) -> Iterator[Alarm]:
        value, limit = numbers.get("tampering"), self.settings.max_tampering
        if limit is None or value is None:
            return
        if self._again("tampering", value > limit, self.settings.patience):
            yield Alarm(
                "tampering",
                value,
                limit,
                f"{value:.0%} of the attempts tamper with the evaluation, above {limit:.0%}",
                "put the reward behind the gate `untampered`, or price tampering",
            )

    def _stops(self, numbers: Numbers) -> Iterator[Alarm]:
        """A cascade measures it, and executes everything from then on; what this batch was paid teaches nothing."""
        if numbers.get("cascade/ended", 0.0) > 0:
            wrong, low = numbers.get("cascade/wrong", math.nan), numbers.get("cascade/wrong_low", math.nan)
            yield Alarm(
                "cascade",
                wrong,
                low,
                f"{wrong:.0%} of the stops are wrong, at least {low:.0%}; from now on everything is executed",
                "lower `charge` of the cascade, or give a `severity` nearer to what attempts break",
                "skip",
            )

    def _model_of_reward(self, numbers: Numbers) -> Iterator[Alarm]:
        """A cascade measures it, and asks the model no more; the weights that learned from it are abandoned."""
        if numbers.get("cascade/parted", 0.0) > 0:
            low, high = (numbers.get(f"cascade/overpaid_{end}", math.nan) for end in ("low", "high"))
            yield Alarm(
                "reward model",
                numbers.get("cascade/overpaid", math.nan),
                low,
                f"the reward model pays {numbers.get('cascade/overpaid', math.nan):.3g} more than the execution (95 % "
                f"interval {low:.3g} to {high:.3g}); from here on it is asked no more",
                "train the reward model anew on the attempts of this run, or audit more",
            )


CHECKS = (
    StepJudge._not_finite,
    StepJudge._gradient,
    StepJudge._loss,
    StepJudge._kl,
    StepJudge._entropy,
    StepJudge._equal_rewards,
    StepJudge._truncation,
    StepJudge._critic,
    StepJudge._ratio,
    StepJudge._clipping,
    StepJudge._tampering,
    StepJudge._stops,
    StepJudge._model_of_reward,
)
