"""The stability guard: watches a training in flight, stops a step that would ruin it, and returns to the best weights.

`alarms` judges the numbers of each step before the optimizer takes it. On an alarm, the step is stopped (its gradients
are dropped), what was seen is written to disk, weights and optimizer become those of the best checkpoint, the learning
rate is lowered, and training goes on; after `max_rollbacks` it is given up. The best checkpoint is that of the held-out
probe, and it is what the model has at the end. Without a probe, it is the latest that was healthy.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from regrade.datasets.errors import UnstableTrainingError
from regrade.policy_training.trainers.alarms import Alarm, StepJudge
from regrade.policy_training.trainers.callbacks import StepLog
from regrade.policy_training.trainers.drift import kl_from
from regrade.policy_training.trainers.probes import Probe, ProbeResult
from regrade.policy_training.trainers.processes import from_main, is_main, mean_of_all
from regrade.policy_training.trainers.settings import StabilitySettings
from regrade.policy_training.trainers.snapshots import (
    LearnedState,
    is_finite,
    learned_weights,
    remove_alarms,
    write_alarm,
)

logger = logging.getLogger(__name__)

ROUNDING = 1e-6
"""Standard deviation of equal rewards, at most."""
STEPS_IN_RECORD = 50
"""Steps before an alarm in its record."""


class GuardedSteps:
    """Mixin for trainers: remembers the loss and the gradient norm of a step until the guard has read them."""

    step_loss = 0.0
    gradient_norm: float | None = None
    """Before clipping."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.step_loss += float(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        self.gradient_norm = float(norm)
        return norm


@dataclass
class StabilityGuard(TrainerCallback):  # type: ignore[misc]
    """Guards one training. Give it to a trainer as `guard`."""

    settings: StabilitySettings
    folder: Path
    """For the records of alarms: `alarms/step-NUMBER/`. Of this training alone: others there are removed."""
    probe: Probe | None = None
    """The held-out probe. Default: None: the last weights are kept, if nothing went wrong."""
    tell: Callable[[str], None] = logger.warning
    """Called with one line per alarm. Default: the log."""
    log: StepLog | None = None
    """The training log, for the probe before the first step."""
    verdict: str = ""
    """Why the training was given up; empty: it was not."""
    alarms: list[tuple[int, Alarm]] = field(default_factory=list)
    """(step that was stopped, alarm)."""
    probes: list[tuple[int, ProbeResult]] = field(default_factory=list)
    """(steps taken, result)."""
    rollbacks: int = 0
    trainer: Any = None
    is_alike: ClassVar[bool] = True
    """All processes judge the same numbers, so each remembers the same."""

    def watch(self, trainer: Any, *, is_online: bool) -> None:
        """Guard this trainer, before it trains."""
        self.trainer = trainer
        self.judge = StepJudge(self.settings, is_online)
        self.start: LearnedState
        """What the training began with."""
        self.best: LearnedState
        """What the guard returns to."""
        self._goes_on = False
        self.steps: deque[dict[str, float]] = deque(maxlen=STEPS_IN_RECORD)
        self._to_log: dict[str, float] = {}
        self._returned_to: int | None = None
        self._next_kl = self.settings.kl_every

    def state_dict(self) -> dict[str, Any]:
        """All that the guard of a training that goes on after a kill must know."""
        return {
            "start": vars(self.start),
            "best": None if self.best is self.start else vars(self.best),
            "judge": self.judge.state_dict(),
            "alarms": [[step, asdict(alarm)] for step, alarm in self.alarms],
            "probes": [[step, dict(result.values), dict(result.numbers)] for step, result in self.probes],
            "rollbacks": self.rollbacks,
            "returned_to": self._returned_to,
            "next_kl": self._next_kl,
            "kl_coef": getattr(self.trainer.args, "kl_coef", None),
            "verdict": self.verdict,
            "steps": list(self.steps),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._goes_on = True
        self.start = LearnedState(**state["start"])
        self.best = self.start if state["best"] is None else LearnedState(**state["best"])
        self.judge.load_state_dict(state["judge"])
        self.alarms = [(step, Alarm(**alarm)) for step, alarm in state["alarms"]]
        self.probes = [(step, ProbeResult(values, numbers)) for step, values, numbers in state["probes"]]
        self.rollbacks, self._returned_to, self._next_kl = state["rollbacks"], state["returned_to"], state["next_kl"]
        self.verdict = state["verdict"]
        self.steps.extend(state["steps"])
        if state["kl_coef"] is not None:
            self.trainer.args.kl_coef = state["kl_coef"]

    # ------------------------------------------------------------ called by the trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, control
        if is_main():
            remove_alarms(self.folder / "alarms", [step for step, _ in self.alarms])
        if self._goes_on:
            device = learned_weights(self.trainer.optimizer)[0].device
            self.start, self.best = self.start.on(device), self.best.on(device)
            return
        self.start = self.best = LearnedState.of(self.trainer.optimizer, state.global_step)
        if self.probe is not None:
            self._measure(state.global_step)
            if self.log is not None:
                self.log(state.global_step, 0.0, self._take_log())

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Judge the step, and let it pass or react."""
        del args
        step = state.global_step + 1
        numbers = self._numbers(step)
        self.steps.append({"step": step, **numbers})
        alarm = self.judge.judge(numbers)
        if alarm is not None:
            self._react(alarm, step, control)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Probe, or copy healthy weights, every so many steps."""
        step = state.global_step
        is_last = control.should_training_stop or step == args.max_steps
        if self.verdict:
            return control
        if self.probe is None:
            is_due = step % self.settings.checkpoint_every == 0
            if is_due and not self.judge.is_suspicious and is_finite(self.trainer.optimizer):
                self.best = LearnedState.of(self.trainer.optimizer, step)
        elif step % self.settings.probe_every == 0 or is_last:
            alarm = self._measure(step)
            if alarm is not None and not is_last:
                self._react(alarm, step, control)
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        del args, state, control
        if logs is not None and "train_runtime" not in logs:
            logs.update(self._take_log())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The model has the best weights by the probe, and never ones that the last step ruined."""
        del args, control
        if not is_finite(self.trainer.optimizer):
            self.best.restore(self.trainer.optimizer)
            self.tell(f"stability: the last weights are not finite; those of step {self.best.step} are kept")
            return
        if self.probe is None:
            return
        if self.probes[-1][0] != state.global_step and not self.verdict:  # a limit of time, found after our last call
            self._measure(state.global_step)
            if self.log is not None:
                self.log(state.global_step, 0.0, self._take_log())
        if self.best.step != state.global_step:
            self.best.restore(self.trainer.optimizer)
            best = self._result_of(self.best.step)
            score = math.nan if best is None else best.score
            self.tell(f"stability: the weights of step {self.best.step} are kept, the best by the probe ({score:.3g})")

    def check(self) -> None:
        """After the training. Raises UnstableTrainingError if it was given up."""
        if self.verdict:
            raise UnstableTrainingError(self.verdict)

    # ------------------------------------------------------------ what is seen

    def _numbers(self, step: int) -> dict[str, float]:
        """All that is known of the present step, and the loss and gradient norm in the trainer start anew."""
        trainer, settings = self.trainer, self.settings
        numbers = _means(getattr(trainer, "_metrics", {}).get("train", {}))
        numbers["loss"], trainer.step_loss = trainer.step_loss, 0.0
        norm, trainer.gradient_norm = trainer.gradient_norm, None
        numbers["grad_norm"] = norm if norm is not None and not math.isfinite(norm) else self._norm(norm)
        if "reward_std" in numbers:
            # TRL takes the rounding error of a mean for variance; and without groups, every group has none.
            has_groups = getattr(trainer, "num_generations", 2) > 1
            among_groups = numbers.get("frac_reward_zero_std", 0.0) if has_groups else 0.0
            numbers["frac_reward_zero_std"] = 1.0 if numbers["reward_std"] < ROUNDING else among_groups
        measures_kl = self.judge.is_online and settings.max_kl is not None and step >= self._next_kl
        measures_kl = measures_kl and "kl" not in numbers
        if measures_kl and (kl := kl_from(self.start, trainer)) is not None:
            numbers["kl"] = kl
        numbers = mean_of_all(numbers)  # all processes must judge alike
        if measures_kl and "kl" in numbers:
            self._to_log["kl"] = numbers["kl"]
            self._next_kl = step + settings.kl_every
        return numbers

    def _norm(self, before_clipping: float | None) -> float:
        """The gradient norm, of all that the optimizer learns: a trainer may clip a part of it by itself."""
        gradients = [weight.grad for weight in learned_weights(self.trainer.optimizer) if weight.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        return norm if before_clipping is None or not math.isfinite(norm) else before_clipping

    def _measure(self, step: int) -> Alarm | None:
        """Probe the present weights; they are the best if none was better."""
        assert self.probe is not None
        result = from_main(self._probe_now() if is_main() else ProbeResult({}))
        self.probes.append((step, result))
        self._to_log |= {"probe/score": result.score, **result.numbers}
        if math.isnan(result.score):
            return None
        best = self._result_of(self.best.step) or result
        drop, error = result.drop_from(best)
        if drop <= 0 and is_finite(self.trainer.optimizer):
            self.best = LearnedState.of(self.trainer.optimizer, step)
        if drop <= max(self.settings.probe_drop, 2 * error):
            return None
        return Alarm(
            "probe",
            drop,
            self.settings.probe_drop,
            f"the held-out probe has fallen to {result.score:.3g}, from {best.score:.3g} at step {self.best.step}",
            "lower learning_rate, and see with `regrade rewards audit` what the reward pays for",
        )

    def _result_of(self, step: int) -> ProbeResult | None:
        return next((result for at, result in reversed(self.probes) if at == step), None)

    def _doubt_the_best(self) -> None:
        """After a fall of the probe: weights on the way to it that the probe could not tell from the first ones may
        have begun to fall, since it sees their likeliest answers alone. The first ones are then the best."""
        best, start = self._result_of(self.best.step), self._result_of(self.start.step)
        if best is not None and start is not None and best.drop_from(start)[0] >= 0:
            self.best = self.start

    def _probe_now(self) -> ProbeResult:
        assert self.probe is not None
        model = self.trainer.model
        model.eval()
        with torch.random.fork_rng():
            result = self.probe()
        model.train()
        return result

    # ------------------------------------------------------------ what follows

    def _react(self, alarm: Alarm, step: int, control: TrainerControl) -> None:
        gives_up = alarm.reaction == "give up" or (
            alarm.reaction == "roll back" and self.rollbacks >= self.settings.max_rollbacks
        )
        self.alarms.append((step, alarm))
        if alarm.kind == "probe":
            self._doubt_the_best()
        self._to_log |= {f"alarm/{alarm.kind}": alarm.value, "alarms": float(len(self.alarms))}
        where = self.folder / "alarms" / f"step-{step}"
        if is_main():
            record = {**asdict(alarm), "step": step, "best_step": self.best.step, "rollbacks": self.rollbacks}
            write_alarm(where, record, list(self.steps), self.trainer.model)
        for weight in learned_weights(self.trainer.optimizer):
            weight.grad = None  # the optimizer leaves such weights, and what it knows of them, as they are
        if gives_up:
            done = self._give_up(alarm, step, control)
        elif alarm.reaction == "skip":
            done = "the step was left out"
        else:
            done = self._roll_back()
        self.tell(f"stability: step {step}: {alarm.what}; {done} (see {where})")

    def _roll_back(self) -> str:
        """To the best weights; again to those without a step in between, and they are in doubt: to the first ones."""
        if self.probe is None and self._returned_to == self.best.step:
            self.best = self.start
        self._returned_to = self.best.step
        self.rollbacks += 1
        self._restore()
        settings = self.settings
        scheduler = getattr(self.trainer.lr_scheduler, "scheduler", self.trainer.lr_scheduler)
        scheduler.base_lrs = [rate * settings.rate_factor for rate in scheduler.base_lrs]
        changes = f"the learning rate is now {settings.rate_factor**self.rollbacks:.3g} of what it was"
        if getattr(self.trainer.args, "kl_coef", 0.0):
            self.trainer.args.kl_coef *= settings.kl_factor
            changes += f", and kl_coef is {self.trainer.args.kl_coef:.3g}"
        self._to_log |= {"rollbacks": float(self.rollbacks), "rolled_back_to": float(self.best.step)}
        return f"back to step {self.best.step} ({self.rollbacks} of {settings.max_rollbacks}); {changes}"

    def _restore(self) -> None:
        self.best.restore(self.trainer.optimizer)
        if hasattr(self.trainer, "_buffered_inputs"):
            self.trainer._buffered_inputs = None  # the attempts of the abandoned policy teach nothing more
        self.judge.forget_the_last_steps()

    def _give_up(self, alarm: Alarm, step: int, control: TrainerControl) -> str:
        self._restore()
        control.should_training_stop = True
        again = f" after {self.rollbacks} rollbacks" if self.rollbacks else ""
        self.verdict = (
            f"training was given up at step {step}{again}: {alarm.what}. The weights are those of step "
            f"{self.best.step}. To go on, {alarm.advice}"
        )
        return f"given up{again}, with the weights of step {self.best.step}"

    def _take_log(self) -> dict[str, float]:
        taken, self._to_log = self._to_log, {}
        return taken


def _means(metrics: Mapping[str, list[float]]) -> dict[str, float]:
    """The mean of the finite values of each metric; NaN if it has values and none is finite."""
    means = {}
    for key, values in metrics.items():
        finite = [value for value in values if math.isfinite(value)]
        if values:
            means[key] = fmean(finite) if finite else math.nan
    return means
