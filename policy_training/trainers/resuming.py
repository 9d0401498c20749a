"""Trainings that survive `kill -9`: they keep states on disk, from the last of which the same command goes on.

A state is a checkpoint of transformers (weights, optimizer, scheduler, random states, step) and what transformers and
TRL leave out (`STATE_FILE`): the order of the data, answers that further steps still learn from, the time spent, and
what callbacks remember. On a CPU in float32 a training that goes on computes the same numbers as one never killed.

Of several processes, each adds its own random states and answers to the one folder, which the main one makes and
renames when all have written.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate.utils import send_to_device
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.journal import flush_to_disk
from regrade.policy_training.policies.adapters import has_adapters, load_adapters
from regrade.policy_training.policies.writing_errors import os_errors, writing
from regrade.policy_training.trainers.processes import from_main, is_main, mean_of_all, number, wait_for_all

STATE_FILE = "resume.pt"
"""What transformers leaves out, in the folder of its checkpoint; that of further processes: `resume-NUMBER.pt`."""
CHECKPOINT, DRAFT = "checkpoint-", ".state-"
"""How the names of states begin, and of those that are being written."""
BETWEEN_STATES = 300.0
"""Default: the most seconds of training that a kill loses, beside the step in which they are over."""
OF_TRAINERS = ("_step", "_buffered_inputs", "_total_train_tokens", "_current_train_step_time")
"""Attributes of TRL's trainers: passes so far, answers that further steps learn from, counts for the log."""


@dataclass(frozen=True)
class ResumePoints:
    """When a training writes a state. It goes on from the last one in its folder."""

    every: int | None = None
    """Optimizer steps between states; >= 1. Default: None: by time."""
    seconds: float = BETWEEN_STATES
    """Between states, if `every` is None. Default: `BETWEEN_STATES`."""


@runtime_checkable
class Remembering(Protocol):
    """A callback with a memory that a training that goes on needs.

    With an attribute `is_alike` that is true, it remembers the same in all processes, so one state holds it for all.
    """

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the memory of the same callback of the killed process."""


class Resumable:
    """Mixin for trainers of transformers and TRL, in front of them: whole states, written atomically."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._draft: str | None = None
        self._restored: dict[str, Any] | None = None
        self._epoch_began: dict[str, Any] = {}
        self._sampler: Any = None

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self._sampler = super()._get_train_sampler(*args, **kwargs)  # type: ignore[misc]
        return self._sampler

    def _get_output_dir(self, trial: Any) -> str:
        return self._draft or super()._get_output_dir(trial)  # type: ignore[misc]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: TRL would write one beside each state."""

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        """As inherited, but complete under its name or absent, and of the earlier ones all but the last are removed.

        Raises:
            UserError: it cannot be written, as on a full disk; the last one is there.
        """
        folder = Path(self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if self.args.save_total_limit is not None and is_main():
            for old in states(folder)[: -max(1, self.args.save_total_limit - 1)]:
                shutil.rmtree(old)
        last = last_step(folder)
        kept = f"the last one, of step {last}, is kept" if last else "there is no earlier one"
        target = folder / f"{CHECKPOINT}{self.state.global_step}"
        with writing("the state of the training", target, kept):
            self._write_state(model, trial, target)

    def _write_state(self: Any, model: Any, trial: Any, target: Path) -> None:
        with _draft_for_all(target.parent) as draft, os_errors(draft):
            self._draft = str(draft)
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            finally:
                self._draft = None
            written = draft / target.name
            torch.save(self._what_they_leave_out(), written / _state_file())
            wait_for_all()
            if is_main():
                flush_to_disk(written)
                if target.exists():
                    shutil.rmtree(target)
                written.rename(target)
        if is_main():
            flush_to_disk(target.parent)

    def _what_they_leave_out(self: Any) -> dict[str, Any]:
        remembering = self._remembering(with_alike=is_main())
        return {
            "epoch": self._epoch_began,
            "order": _generator_state(self._sampler),
            "is_over": bool(self.control.should_training_stop),
            "trainer": {name: getattr(self, name) for name in OF_TRAINERS if hasattr(self, name)},
            "callbacks": {name: callback.state_dict() for name, callback in remembering.items()},
        }

    def _remembering(self: Any, *, with_alike: bool) -> dict[str, Remembering]:
        """Name -> callback.

        Args:
            with_alike: with those that remember the same in all processes.
        """
        return {
            type(callback).__name__: callback
            for callback in self.callback_handler.callbacks
            if isinstance(callback, Remembering) and (with_alike or not getattr(callback, "is_alike", False))
        }

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if has_adapters(self.model):  # transformers looks for the weights beside them, which no state holds
            load_adapters(self.model, folder)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        self._restored = restored = _read(folder / _state_file())
        remembered = (
            restored["callbacks"] if is_main() else _read(folder / STATE_FILE)["callbacks"] | restored["callbacks"]
        )
        for name, value in restored["trainer"].items():
            setattr(self, name, send_to_device(value, self.args.device))
        for name, callback in self._remembering(with_alike=True).items():
            if name in remembered:
                callback.load_state_dict(remembered[name])

    def _issue_warnings_after_load(self: Any, load_result: Any) -> None:
        """As inherited; weights tied to others are missing on purpose, in every state."""
        weights, missing = self.model.state_dict(), set(load_result.missing_keys)
        loaded = {weight.data_ptr() for name, weight in weights.items() if name not in missing}
        if load_result.unexpected_keys or any(weights[name].data_ptr() not in loaded for name in missing):
            super()._issue_warnings_after_load(load_result)  # type: ignore[misc]

    def _run_epoch(self: Any, **arguments: Any) -> None:
        """As inherited. An epoch that was begun by a killed process deals out the rest of the same order."""
        restored, self._restored = self._restored, None
        if restored is not None:
            if restored["is_over"]:  # killed between its last step and the use of its weights
                self.control.should_training_stop = True
                return
            if arguments["steps_trained_in_current_epoch"]:
                _set_random_states(restored["epoch"], self._sampler)
            else:
                _set_generator_state(self._sampler, restored["order"])
                self._load_rng_state(arguments["resume_from_checkpoint"])
        self._epoch_began = _random_states(self._sampler)
        super()._run_epoch(**arguments)  # type: ignore[misc]


def train_from_last_state(trainer: Any, points: ResumePoints | None) -> None:
    """Train; with `points` from the last state in the trainer's folder, and with further ones. None: without states.

    Raises:
        UserError: of several processes, one has another disk.
    """
    if points is None:
        trainer.train()
        return
    folder = Path(trainer.args.output_dir)
    _check_shared(folder)
    if is_main():
        for draft in folder.glob(f"{DRAFT}*"):
            shutil.rmtree(draft)
    trainer.add_callback(_WriteStates(points))
    found = from_main([str(state) for state in states(folder)])
    trainer.train(resume_from_checkpoint=found[-1] if found else None)


def _check_shared(folder: Path) -> None:
    """Raises UserError if not all processes see the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with _draft_for_all(folder) as draft:
        sees = mean_of_all({"sees": float(draft.is_dir())})["sees"]
    if sees < 1:
        raise UserError(f"{folder} is another folder for some of the processes: choose one on a disk that all share")


@contextmanager
def _draft_for_all(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, the same in all processes; afterwards it is gone."""
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix=DRAFT, dir=folder)) if is_main() else ""
        yield Path(from_main(made))


def _state_file() -> str:
    """Of this process."""
    return STATE_FILE if is_main() else f"resume-{number()}.pt"


def _read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def states(folder: Path) -> list[Path]:
    """The whole states in a trainer's folder, the last one last."""
    return sorted((path.parent for path in folder.glob(f"{CHECKPOINT}*/{STATE_FILE}")), key=_step_of)


def last_step(folder: Path) -> int:
    """The step from which a training in this folder goes on; 0: from its start."""
    return max(map(_step_of, states(folder)), default=0)


def remove_states(folder: Path) -> None:
    """Of a training that is over."""
    for path in (*folder.glob(f"{CHECKPOINT}*"), *folder.glob(f"{DRAFT}*")):
        shutil.rmtree(path)


def _step_of(state: Path) -> int:
    return int(state.name.removeprefix(CHECKPOINT))


class _WriteStates(TrainerCallback):  # type: ignore[misc]
    def __init__(self, points: ResumePoints, now: Callable[[], float] = time.monotonic) -> None:
        self.points = points
        self.now = now
        self.written = now()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        del args
        every = self.points.every
        if every is None:  # all processes write at the same step, by the clock of the main one
            is_due = from_main(self.now() - self.written >= self.points.seconds)
        else:
            is_due = state.global_step % every == 0
        if is_due:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, state, control
        self.written = self.now()


def _random_states(sampler: Any) -> dict[str, Any]:
    """Of all generators that the order of the data may come from."""
    of_numpy: Any = np.random.get_state()
    name, keys, *numbers = of_numpy
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *numbers],
        "torch": torch.get_rng_state(),
        "order": _generator_state(sampler),
    }


def _set_random_states(values: Mapping[str, Any], sampler: Any) -> None:
    random.setstate(values["python"])
    name, keys, *numbers = values["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *numbers))
    torch.set_rng_state(values["torch"])
    _set_generator_state(sampler, values["order"])


def _generator_state(sampler: Any) -> Any:
    """Of a sampler with a generator of its own, such as TRL's; None: it draws from torch's."""
    generator = getattr(sampler, "generator", None)
    return None if generator is None else generator.get_state()


def _set_generator_state(sampler: Any, state: Any) -> None:
    if state is not None:
        sampler.generator.set_state(state)
