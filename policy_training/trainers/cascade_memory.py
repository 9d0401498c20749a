"""What a cascade has learned from its audits, in the states of a training that goes on after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from regrade.policy_training.cascade.cascade import Cascade


class CascadeMemory(TrainerCallback):  # type: ignore[misc]
    """A callback that remembers (see `resuming.Remembering`)."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def state_dict(self) -> dict[str, Any]:
        return dict(self.cascade.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cascade.load_state_dict(state)


def watchers(guard: TrainerCallback | None, cascade: Cascade | None) -> list[TrainerCallback]:
    """The callbacks of a trainer that watch it."""
    memory = None if cascade is None else CascadeMemory(cascade)
    return [callback for callback in (guard, memory) if callback is not None]
