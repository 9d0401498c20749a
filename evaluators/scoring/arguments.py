"""Validation of the scorer's arguments at the call: one clear error instead of one from deep within."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import SupportsIndex

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import KINDS, Sandbox, choose
from regrade.evaluators.scoring.probes import StaticProbe
from regrade.rewards.algebra import Reward

MOST = 1_000_000
"""The largest count of anything."""
MOST_WORKERS = 1024
"""Each is a process of its own."""
LONGEST_SHOWN = 80
"""Characters of an invalid value that an error shows: it may be the text of a whole patch."""


def checked_reward(reward: object) -> Reward:
    """The reward. Raises UserError for a name, a plain function or any other type."""
    if isinstance(reward, Reward):
        return reward
    if isinstance(reward, str):
        raise UserError(
            f"the reward {shown(reward)} is a name: pass the reward itself, such as regrade.rewards.default "
            f"or regrade.rewards.load_reward({shown(reward)})"
        )
    if callable(reward):
        raise UserError(
            f"{getattr(reward, '__name__', shown(reward))!r} is no reward: decorate a function with @reward"
        )
    raise UserError(f"{shown(reward)} is no reward: compose one, such as 0.6 * tests + 0.4 * style")


def checked_jobs(jobs: object) -> Iterator[tuple[Task, Patch]]:
    """The jobs, each checked when it is read. Raises UserError with the position of an invalid job."""
    if isinstance(jobs, str | Mapping) or not isinstance(jobs, Iterable):
        raise UserError(f"the jobs are {shown(jobs)}: pass a list of pairs, such as [(task, patch)]")
    for position, job in enumerate(jobs):
        yield checked_job(job, f"jobs[{position}]: ")


def checked_job(job: object, where: str = "") -> tuple[Task, Patch]:
    """The pair of a task and a patch. Raises UserError, whose message begins with `where`."""
    if not isinstance(job, tuple | list) or len(job) != 2:
        raise UserError(f"{where}{shown(job)} is no pair of a task and a patch: pass a list such as [(task, patch)]")
    task, patch = job
    if not isinstance(task, Task):
        raise UserError(
            f"{where}{shown(task)} is no Task: create one with local_task(folder) or regrade.datasets.sources.load_task"
        )
    if task.is_unmeasured:
        raise UserError(
            f"{where}the task {task.id!r} names no PASS_TO_PASS tests: measure them by with_pass_to_pass([task])"
        )
    if not isinstance(patch, Patch):
        raise UserError(f"{where}{shown(patch)} is no Patch: {_patch_advice(patch)}")
    return task, patch


def _patch_advice(value: object) -> str:
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.strip() and "\n" not in value):
        return f"pass Patch(Path({str(value)[:LONGEST_SHOWN]!r}).read_text())"
    return "pass Patch(text), where text is a unified diff"


def checked_needs(needs: object) -> Collection[type]:
    """The types of evidence. Raises UserError unless they are a collection of types."""
    if isinstance(needs, Reward):
        raise UserError(f"the needs are the reward {needs.name!r}: pass its `needs`, or call `score`")
    if isinstance(needs, str) or not isinstance(needs, Collection):
        raise UserError(f"the needs are {shown(needs)}: pass a collection of types of evidence, such as {{TestRun}}")
    for kind in needs:
        if not isinstance(kind, type):
            raise UserError(f"{shown(kind)} is no type of evidence: pass one of regrade.rewards.evidence, or your own")
    return needs


def checked_count(name: str, count: object, most: int = MOST) -> int | None:
    """A number from 1 to `most`, or None. Raises UserError."""
    if count is None:
        return None
    if not isinstance(count, SupportsIndex) or count.__index__() < 1:
        raise UserError(f"{name}={shown(count)}: pass a whole number of 1 or more")
    if count.__index__() > most:
        raise UserError(f"{name}={shown(count)}: pass a whole number of at most {most:,}")
    return count.__index__()


def checked_share(name: str, share: object) -> float:
    """A number from 0 to 1. Raises UserError."""
    if not isinstance(share, Real) or not 0.0 <= float(share) <= 1.0:
        raise UserError(f"{name}={shown(share)}: pass a share from 0 to 1")
    return float(share)


def checked_amount(name: str, amount: object) -> float:
    """A number above 0. Raises UserError."""
    if not isinstance(amount, Real) or not float(amount) > 0.0:
        raise UserError(f"{name}={shown(amount)}: pass a number above 0")
    return float(amount)


def checked_path(name: str, path: object) -> Path:
    """The path, with `~` expanded to the home folder. Raises UserError."""
    if isinstance(path, str | os.PathLike) and isinstance(os.fspath(path), str):
        return Path(path).expanduser()
    raise UserError(f"{name}={shown(path)}: pass a path, such as Path('my/project')")


def checked_names(name: str, names: object) -> tuple[str, ...]:
    """Several names; a text is one name. Raises UserError."""
    if isinstance(names, str):
        return (names,)
    if isinstance(names, Iterable):
        texts = tuple(names)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise UserError(f"{name}={shown(names)}: pass a list of texts")


def checked_probes(probes: object) -> Mapping[type, StaticProbe]:
    """The probes by their types of evidence; None: none. Raises UserError."""
    if probes is None:
        return {}
    if not isinstance(probes, Mapping):
        raise UserError(f"probes={shown(probes)}: pass a mapping of types of evidence to functions, {{Kind: function}}")
    for kind, probe in probes.items():
        if not isinstance(kind, type) or not callable(probe):
            raise UserError(f"probes: {shown(kind)}: {shown(probe)} is no type of evidence with its function")
    return probes


def chosen_sandbox(sandbox: object) -> Sandbox:
    """The sandbox itself, or the sandbox of that name.

    None is refused: a caller might mean "no sandbox", and untrusted code would not run where the caller expects.

    Raises:
        UserError: the argument is neither, or that sandbox does not work here.
    """
    if isinstance(sandbox, str):
        return choose(sandbox)
    if isinstance(sandbox, type) or not all(hasattr(sandbox, name) for name in ("start", "isolated")):
        names = ", ".join(map(repr, KINDS))
        raise UserError(f"sandbox={shown(sandbox)}: pass 'auto', the name of a kind ({names}) or a sandbox, Process()")
    return sandbox  # type: ignore[return-value]  # of a protocol, only the names can be checked


def shown(value: object) -> str:
    """The value in one short line, for an error."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
