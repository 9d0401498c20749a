"""Activations of a frozen trunk on disk: a training that was killed does not compute them again.

Hours of forward passes end in a few megabytes, and all that follows takes seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regrade.policy_training.reward_models.inputs import PatchInput
from regrade.policy_training.reward_models.trunks import Trunk

TOGETHER = 64
"""Inputs of one file."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ActivationStore:
    """Computes activations, each once."""

    trunk: Trunk
    folder: Path | None = None
    """None: nothing is stored."""

    def activations(self, inputs: Sequence[PatchInput], progress: Progress | None = None) -> Tensor:
        """(inputs, width). Inputs of one task should be neighbours: they share a pass over the task."""
        states = [torch.zeros(0, self.trunk.width)]
        for start in range(0, len(inputs), TOGETHER):
            states.append(self._of(inputs[start : start + TOGETHER]))
            if progress is not None:
                progress(min(start + TOGETHER, len(inputs)), len(inputs))
        return torch.cat(states)

    def _of(self, inputs: Sequence[PatchInput]) -> Tensor:
        if self.folder is None:
            return self.trunk.activations(inputs)
        tokens = repr([(each.prompt, each.completion) for each in inputs])
        path = self.folder / f"{hashlib.sha256(f'{self.trunk.digest} {tokens}'.encode()).hexdigest()}.pt"
        if path.is_file():
            states: Tensor = torch.load(path, weights_only=True)
            return states
        self.folder.mkdir(parents=True, exist_ok=True)
        states = self.trunk.activations(inputs)
        draft = path.with_suffix(f".{os.getpid()}")
        torch.save(states, draft)
        draft.replace(path)
        return states
