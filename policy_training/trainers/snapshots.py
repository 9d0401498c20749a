"""What learns in a training, weights and optimizer, copied to return to it; and the record of an alarm on disk."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrade.evaluators.storage.journal import replaced_folder
from regrade.evaluators.storage.json_numbers import finite_values
from regrade.policy_training.policies.writing_errors import os_errors, writing


@dataclass(frozen=True)
class LearnedState:
    """A copy of all weights that an optimizer learns, in its order, and of its state."""

    step: int
    weights: Sequence[Tensor]
    optimizer: Mapping[str, Any]

    def on(self, device: torch.device) -> LearnedState:
        """The same, with the weights on a device; `restore` takes the optimizer's state from any."""
        return LearnedState(self.step, [weight.to(device) for weight in self.weights], self.optimizer)

    @classmethod
    def of(cls, optimizer: Any, step: int) -> LearnedState:
        weights = [weight.detach().clone() for weight in learned_weights(optimizer)]
        return cls(step, weights, copy.deepcopy(optimizer.state_dict()))

    @torch.no_grad()
    def restore(self, optimizer: Any) -> None:
        """Weights and optimizer become what they were; the gradients are dropped."""
        for weight, stored in zip(learned_weights(optimizer), self.weights, strict=True):
            weight.copy_(stored)
            weight.grad = None
        # `load_state_dict` takes tensors over without a copy, and later steps would write into this one.
        optimizer.load_state_dict(copy.deepcopy(dict(self.optimizer)))

    @contextmanager
    def in_place(self, optimizer: Any) -> Iterator[None]:
        """Inside the `with` block, the model has these weights; nothing is copied."""
        learned = learned_weights(optimizer)
        present = [weight.data for weight in learned]
        try:
            for weight, stored in zip(learned, self.weights, strict=True):
                weight.data = stored
            yield
        finally:
            for weight, data in zip(learned, present, strict=True):
                weight.data = data


def learned_weights(optimizer: Any) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def is_finite(optimizer: Any) -> bool:
    """Are all weights that it learns finite numbers?"""
    return all(bool(weight.isfinite().all()) for weight in learned_weights(optimizer))


def write_alarm(folder: Path, record: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], model: Any) -> Path:
    """Write what was seen (`alarm.json`: the alarm, and the numbers of the steps before) and the weights that learn
    (`weights.pt`), as they were: both or nothing. Returns the folder.

    Raises:
        UserError: they cannot be written, as on a full disk.
    """
    text = json.dumps({**finite_values(record), "steps": [finite_values(step) for step in steps]}, indent=1)
    learned = {name: weight.detach().cpu() for name, weight in model.named_parameters() if weight.requires_grad}
    kept = "the states of its training are kept"
    with writing("the record of an alarm", folder, kept), replaced_folder(folder) as draft, os_errors(draft):
        (draft / "alarm.json").write_text(text + "\n", encoding="utf-8")
        torch.save(learned, draft / "weights.pt")
    return folder


def remove_alarms(folder: Path, known: Collection[int]) -> None:
    """Of the records of alarms in a folder those of other steps, and half-written ones: a killed training left them."""
    for path in (*folder.glob("step-*"), *folder.glob(".step-*")):
        if path.name.removeprefix("step-") not in map(str, known):
            shutil.rmtree(path)
