"""Experiment trackers beside the step log, by the integrations of transformers: TensorBoard, Trackio, Weights & Biases.

They are told by environment variables where a run belongs. All stay on this machine unless the user's own variables
say otherwise: wandb writes offline.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Literal, get_args

from regrade.datasets.errors import UserError

Tracker = Literal["tensorboard", "trackio", "wandb"]
PROJECT = "regrade"


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError if there is no such tracker, or it is not installed."""
    for name in names:
        if name not in get_args(Tracker):
            raise UserError(f"track is {name!r}: choose {', '.join(get_args(Tracker))}")
        if importlib.util.find_spec(name) is None:
            raise UserError(f"`track={name}`: {name} is not installed: run `pip install {name}`, or leave it out")


@contextmanager
def tracked(names: Sequence[Tracker], folder: Path) -> Iterator[None]:
    """Inside the `with` block, the trackers of a training write into its run: `folder`/tensorboard, `folder`/wandb, and
    the project `regrade` of Trackio, whose folder is the user's. Variables that are set keep their values."""
    added = {name: value for name, value in _variables(folder).items() if name not in os.environ} if names else {}
    os.environ.update(added)
    finish = _finish_of_wandb() if "wandb" in names else None
    try:
        with redirect_stdout(sys.stderr) if names else nullcontext():  # Trackio talks
            yield
    finally:
        if finish is not None:
            finish()
        for name in added:
            os.environ.pop(name, None)


def _finish_of_wandb() -> Callable[[], None] | None:
    """What ends the run that the integration begins, and writes it whole; None: the user's own run is open."""
    import wandb

    finish: Callable[[], None] = wandb.finish
    return finish if wandb.run is None else None


def _variables(folder: Path) -> Mapping[str, str]:
    where = folder.resolve()
    return {
        "TENSORBOARD_LOGGING_DIR": str(where / "tensorboard"),
        "WANDB_PROJECT": PROJECT,
        "WANDB_DIR": str(where),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
    }
