"""Common parts of the trainers: the budget, the log of steps, defaults for TRL, and frozen layers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from regrade.policy_training.policies.adapters import has_adapters
from regrade.policy_training.policies.precision import uses_bfloat16
from regrade.policy_training.policies.threads import FreeCores
from regrade.policy_training.trainers.processes import from_main
from regrade.policy_training.trainers.tracking import PROJECT, Tracker

StepLog = Callable[[int, float, Mapping[str, float]], None]
"""Called with (step, seconds since the start, metrics of the step)."""


@dataclass(frozen=True)
class Budget:
    """The end of training: a number of optimizer steps or of seconds, whichever comes first."""

    steps: int | None = None
    """Optimizer steps. Default: None: no limit."""
    seconds: float | Callable[[], float] | None = None
    """Wall time; or what returns it, such as that of another training that still runs: infinite at first, then an
    estimate, and exact when that one has ended. Default: None: no limit."""

    def time_limit(self) -> float | None:
        """The seconds, as far as they are known now."""
        return self.seconds() if callable(self.seconds) else self.seconds

    def progress(self, step: int, seconds: float) -> tuple[int, int]:
        """(done, total; 0: unknown) of a training after so many steps and seconds, for a display."""
        if self.steps is not None:
            return step, max(step, self.steps)
        limit = self.time_limit()
        if limit is None or math.isinf(limit):
            return step, 0
        return round(seconds), round(max(seconds, limit))


@dataclass
class StopAndLog(TrainerCallback):  # type: ignore[misc]
    """Logs each step's metrics, ends training when the budget is used up, and computes on the cores that are free."""

    budget: Budget
    log: StepLog | None = None
    began: float = field(default_factory=time.monotonic)
    cores: FreeCores = field(default_factory=FreeCores)

    def state_dict(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self.began}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Time that a killed process spent counts."""
        self.began = time.monotonic() - state["seconds"]

    def spent(self, step: int) -> float:
        """Share of the budget that is used up now, after `step` steps; 1: all."""
        by_steps = 0.0 if self.budget.steps is None else step / self.budget.steps
        limit = self.budget.time_limit()
        by_time = 0.0 if limit is None else self._seconds() / limit
        return max(by_steps, by_time)

    def _seconds(self) -> float:
        """Since the start, by the clock of the main process: all must end at the same step."""
        return from_main(time.monotonic() - self.began)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        del args, control
        if self.log is not None and logs and "train_runtime" not in logs:
            numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
            waits = [numbers[key] for key in ("waiting_seconds", "execution_seconds") if key in numbers]
            if waits and numbers.get("step_time"):
                numbers["waiting_share"] = sum(waits) / numbers["step_time"]
            self.log(state.global_step, time.monotonic() - self.began, numbers)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, state, control
        self.cores.follow()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        del args
        limit = self.budget.time_limit()
        is_over_time = limit is not None and self._seconds() >= limit
        is_over_steps = self.budget.steps is not None and state.global_step >= self.budget.steps
        if is_over_time or is_over_steps:
            control.should_training_stop = True
        return control


def common_arguments(
    folder: Path, *, seed: int, budget: Budget, learning_rate: float, track: Sequence[Tracker] = ()
) -> dict[str, Any]:
    """Keyword arguments for all TRL configurations.

    Args:
        track: trackers that get each step's metrics too (see `tracking.py`). Default: none.
    """
    return {
        "output_dir": str(folder),
        "run_name": folder.resolve().parent.name,
        "project": PROJECT,
        "seed": seed,
        "data_seed": seed,
        "learning_rate": learning_rate,
        "max_steps": budget.steps if budget.steps is not None else -1,
        "num_train_epochs": 1_000 if budget.steps is None else 1,
        "logging_steps": 1,
        "save_strategy": "no",  # states are written by `resuming.py`
        "save_total_limit": 2,
        "report_to": list(track) or "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available() and uses_bfloat16("cuda"),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "gradient_checkpointing": False,  # TRL turns it on; `checkpoint_gradients` does it for all trainers
        "ddp_find_unused_parameters": False,  # all that learns is used in every pass
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
    }


def rate_schedule(max_steps: int) -> dict[str, Any]:
    """Keyword arguments for TRL's configurations of online training: after a warm-up of two steps, the learning rate
    falls linearly to 0 at the last step. Without a number of steps (-1), it stays.

    Near an optimum, advantages are noise, that of single groups or of a critic. At a constant rate a policy that had
    found the optimum may leave it again; a falling rate averages the noise out.
    """
    return {"lr_scheduler_type": "linear" if max_steps > 0 else "constant_with_warmup", "warmup_steps": 2}


def freeze_bottom(model: Any, share: float = 0.0) -> None:
    """Freeze the (tied) embeddings and the bottom `share` of the layers; all other weights learn.

    Embeddings are a fifth of the small model, and answers use few of its tokens. Frozen layers need no backward pass:
    with half of them a step takes a third less time, and on a few hundred examples the loss is hardly higher. With
    adapters (`add_lora`), they alone learn, whatever the share.
    """
    if has_adapters(model):
        return
    model.requires_grad_(True)
    model.get_input_embeddings().requires_grad_(False)
    _, layers = layer_stack(model)
    for layer in layers[: round(share * len(layers))]:
        layer.requires_grad_(False)


def layer_stack(model: Any) -> tuple[str, torch.nn.ModuleList]:
    """The name of a model's transformer layers within its base model, and the layers, bottom first."""
    stacks = [
        (name, module) for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.ModuleList)
    ]
    return max(stacks, key=lambda stack: len(stack[1]))
