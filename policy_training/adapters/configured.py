"""The reward of trainers that only a configuration file reaches: named by arguments or environment variables.

| argument | variable | meaning |
|-|-|-|
| `tasks` | `REGRADE_TASKS` | a source of tasks, as `load_tasks` reads it: a task file, a folder, `builtin` |
| `split` | `REGRADE_SPLIT` | one split of them; without it, all |
| `reward` | `REGRADE_REWARD` | a built-in reward, or `FILE:NAME` of a `Reward` or a `TrainingReward` |
| `workers` | `REGRADE_WORKERS` | candidates that run at the same time; without it, the number of cores |
| `sandbox` | `REGRADE_SANDBOX` | `auto`, or a kind of sandbox |

Equal settings share one scorer for the whole process, made at the first answer and closed when the process ends.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Mapping
from typing import NamedTuple

from regrade.datasets.errors import UserError
from regrade.datasets.sources import load_tasks
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.measured_tasks import with_pass_to_pass
from regrade.policy_training.adapters.verdicts import Verdict, Verdicts
from regrade.policy_training.environments.training_reward import load_training_reward

PATIENCE = 5
"""Retries where an unscored answer stops the trainer's step: the last pause is 16 seconds."""


class UnscoredError(RuntimeError):
    """An answer could not be scored, through no fault of the policy, and its trainer has no value for that."""


class RewardSettings(NamedTuple):
    """What a configuration names."""

    tasks: str
    reward: str
    split: str | None = None
    workers: int | None = None
    sandbox: str = "auto"

    @classmethod
    def of(cls, arguments: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> RewardSettings:
        """The settings of the arguments, and of the environment where an argument is absent or None.

        Raises:
            UserError: the tasks or the reward are not named, an argument is unknown, or `workers` is no number.
        """
        if unknown := sorted(set(arguments) - set(cls._fields)):
            raise UserError(f"unknown setting {unknown[0]!r} of the reward: give some of {', '.join(cls._fields)}")
        values: dict[str, str] = {}
        for name in cls._fields:
            given = arguments.get(name)
            text = environment.get(f"REGRADE_{name.upper()}", "") if given is None else str(given)
            if text:
                values[name] = text
        for name in ("tasks", "reward"):
            if name not in values:
                raise UserError(
                    f"no {name} for the reward: give the argument {name!r}, or set REGRADE_{name.upper()} "
                    "in the environment of every worker"
                )
        workers = values.get("workers")
        if workers is not None and not (workers.isdecimal() and int(workers[:9]) > 0):
            raise UserError(f"REGRADE_WORKERS, or the argument 'workers', is {workers!r}: give a number of at least 1")
        return cls(
            values["tasks"],
            values["reward"],
            values.get("split"),
            int(workers) if workers is not None else None,
            values.get("sandbox", "auto"),
        )


_OPEN: dict[tuple[int, RewardSettings], Verdicts] = {}
"""(process, settings) -> its verdicts: a forked process must not use the sandboxes of the one that it comes from."""
_LOCK = threading.Lock()


def configured_verdicts(**arguments: object) -> Verdicts:
    """The verdicts of these settings, opened at the first call of a process.

    Raises:
        UserError: see `RewardSettings.of`; the tasks or the reward cannot be read, or no sandbox works here.
    """
    key = os.getpid(), RewardSettings.of(arguments)
    with _LOCK:
        if key not in _OPEN:
            _OPEN[key] = _opened(key[1])
        return _OPEN[key]


def _opened(settings: RewardSettings) -> Verdicts:
    reward = load_training_reward(settings.reward)
    tasks = with_pass_to_pass(
        load_tasks(settings.tasks, split=settings.split),
        sandbox=settings.sandbox,
        tell=lambda note: warnings.warn(note, stacklevel=4),
    )
    scorer = Scorer(workers=settings.workers, sandbox=settings.sandbox)
    atexit.register(scorer.close)
    return Verdicts(tasks, scorer, reward, retries=PATIENCE)


def value_of(verdict: Verdict, task_id: str) -> float:
    """The value of a verdict, for a trainer that has no unscored.

    Raises:
        UnscoredError: it has none.
    """
    if verdict.value is None:
        raise UnscoredError(f"the answer to task {task_id!r} could not be scored: {verdict.cause}")
    return verdict.value


def numbers_for_metrics(verdict: Verdict, names: tuple[str, ...]) -> dict[str, float]:
    """The components under all of `names`, for trainers that need equal keys in every row; NaN: it does not apply."""
    return {name: verdict.components.get(name, float("nan")) for name in names}
