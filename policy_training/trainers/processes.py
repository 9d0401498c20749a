"""Several processes of one training, as `accelerate launch` starts them: what they agree on, and how they end together.

Each plays and judges its share of a step's tasks, and the gradients are averaged. The main one writes: log, manifest,
samples, checkpoints. What decides over a step (a clock, the numbers that the stability guard judges, a held-out probe)
must be equal in all of them, or one would wait for another for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import distributed

from regrade.datasets.errors import PeerFailedError, UserError

T = TypeVar("T")
_PrefixStore: Any = distributed.PrefixStore  # type: ignore[attr-defined]

LONGEST_WAIT = timedelta(hours=2)
"""For another process, such as the main one while it probes."""
PATIENCE = timedelta(seconds=2)
"""How long a process that fails waits to hear that the main one fails in the same way."""
SHARDING = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
"""What shards a model -> the variable by which `accelerate launch` asks for it."""
COMMAND = "`accelerate launch`"


def count() -> int:
    """The processes of this training."""
    return distributed.get_world_size() if distributed.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Does this process write what the training leaves?"""
    return number() == 0


def on_this_machine() -> int:
    """The processes of this training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def share_of(whole: int, name: str) -> int:
    """This process's share of a setting that counts what a step learns from.

    Raises:
        UserError: the processes can't have equal shares.
    """
    share, rest = divmod(whole, count())
    if rest or not share:
        raise UserError(
            f"{name} is {whole}, of which {count()} processes cannot have equal shares: give a multiple of {count()}, "
            "or launch another number of processes"
        )
    return share


def check_alone(what: str, advice: str = "") -> None:
    """Raises UserError in one of several processes."""
    if count() > 1:
        raise UserError(f"{what} runs in one process, not {count()}: {advice}launch it without {COMMAND}")


def check_unsharded() -> None:
    """Raises UserError where the launcher asks to shard the weights: no process could save or probe the whole model."""
    for name, variable in SHARDING.items():
        if os.environ.get(variable, "").lower() == "true":
            raise UserError(
                f"{name} shards the model, which these trainers cannot save: launch without it (adapters and "
                "gradient_checkpointing save memory too), or give the reward to TRL's own trainer (docs/scale.md)"
            )


def from_main(value: T) -> T:
    """The main process's value. All wait until it has one."""
    if count() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        distributed.barrier()


def mean_of_all(numbers: Mapping[str, float]) -> dict[str, float]:
    """The mean of each number over the processes that have it: the same, bit by bit, in all of them."""
    if count() == 1:
        return dict(numbers)
    every: list[Any] = [None] * count()
    distributed.all_gather_object(every, dict(numbers))
    names = dict.fromkeys(name for each in every for name in each)
    values = {name: [each[name] for each in every if name in each] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


@contextmanager
def together() -> Iterator[None]:
    """Inside the `with` block, the processes of a training can hear of each other. If one fails, all end.

    Raises:
        PeerFailedError: another process has failed, and this one ends for this reason alone.
    """
    if count() == 1:
        yield
        return
    PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)
    store = _PrefixStore("regrade", distributed.distributed_c10d._get_default_store())
    # A failure of an earlier block, which the program went on after, is none of this one.
    store = _PrefixStore(str(store.add(f"blocks-of-{number()}", 1)), store)
    try:
        yield
    except PeerFailedError:
        raise
    except Exception as error:
        _end_in_peace()
        reason = f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        told = _failure_to_tell(store, reason, is_consequence=_is_lost_connection(error))
        if told is not None:
            raise PeerFailedError(told) from None
        raise
    except KeyboardInterrupt:
        if failed := _others(store):  # the launcher ends all by SIGTERM
            _end_in_peace()
            raise PeerFailedError(_told(failed)) from None
        raise


def _end_in_peace() -> None:
    """This process ends by itself, so it closes its sandboxes without being interrupted by the launcher's SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _failure_to_tell(store: Any, reason: str, *, is_consequence: bool) -> str | None:
    """What to say of the process whose failure made this one fail. None: this one's own failure is to be told.

    What fails alike in all, such as a wrong setting, the main process tells alone.
    """
    try:
        others = _others(store)
        if not is_consequence and reason in (others or {0: reason}).values():
            store.set(f"failed-{number()}", reason)
            return None if is_main() or not _main_fails_alike(store, reason) else _told({0: reason})
    except RuntimeError:  # whoever kept the store has ended
        others = {}
    if others:
        return _told(others)
    return f"another of the {count()} processes has ended without an error of its own, perhaps killed for its memory"


def _main_fails_alike(store: Any, reason: str) -> bool:
    try:
        store.wait(["failed-0"], PATIENCE)
    except RuntimeError:
        return False
    return bool(store.get("failed-0").decode() == reason)


def _others(store: Any) -> dict[int, str]:
    """Number -> error of the other processes that have failed."""
    names = {rank: f"failed-{rank}" for rank in range(count()) if rank != number()}
    return {rank: store.get(name).decode() for rank, name in names.items() if store.check([name])}


def _told(failed: Mapping[int, str]) -> str:
    rank, reason = min(failed.items())
    return f"process {rank} of {count()} (from 0) has failed, so all end: {reason}"


def _is_lost_connection(error: Exception) -> bool:
    """Does it say that another process has gone? Gloo raises a RuntimeError without a type of its own."""
    if isinstance(error, distributed.DistError):
        return True
    words = ("closed by peer", "Connection reset", "Broken pipe", "Read timeout", "Timed out waiting")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
