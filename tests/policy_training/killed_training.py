"""Trains in child processes that SIGKILL themselves. Reads paths of pickled jobs, and prints how each child ended.

The libraries are imported once, and each job is a fork. A job says what to train (see `test_resuming.py`) and when to
die: at which function, by its module and name, at which call of it, and before or after that.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import traceback
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import torch

from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies.dialogues import _RunningDialogues
from regrade.policy_training.train import train
from regrade.policy_training.training_plan import TrainingPlan


def arm(owner: str, name: str, calls: int, *, before: bool) -> None:
    """Make this process die at a call of a function: with SIGKILL, which nothing can catch."""
    module, _, inside = owner.partition(":")
    place: Any = importlib.import_module(module)
    for part in filter(None, inside.split(".")):
        place = getattr(place, part)
    whole, left = getattr(place, name), [calls]

    def deadly(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if before and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(*args, **kwargs)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, deadly)


def wait_for_every_reply() -> None:
    """Which rows of an agent's batch are generated together depends on when its tests end, and so does rounding."""
    answered = _RunningDialogues._answered

    def in_order(dialogues: _RunningDialogues) -> list[int]:
        wait(dialogues.waiting)
        return answered(dialogues)

    _RunningDialogues._answered = in_order  # type: ignore[method-assign]


def main() -> None:
    torch.set_num_threads(1)
    wait_for_every_reply()
    for line in sys.stdin:
        job = pickle.loads(Path(line.strip()).read_bytes())
        child = os.fork()
        if not child:
            try:
                if job["death"] is not None:
                    arm(*job["death"][:3], before=job["death"][3])
                with Scorer(workers=1, cache=job["evidence"]) as scorer:
                    train(TrainingPlan(**job["plan"]), job["tasks"], scorer, job["out"])
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
