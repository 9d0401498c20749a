"""How many threads torch computes with on a CPU that other processes use too, and how they wait for each other.

OpenMP's threads meet after each operation, thousands of times in a step of training. If another process has taken the
core of one of them, all others wait for it, and by default they wait by spinning, on cores that others need: a step can
take ten times as long. So threads wait asleep, and there are no more of them than cores that other processes leave
free.

What the user sets has precedence: `OMP_NUM_THREADS` the number, `OMP_WAIT_POLICY` the waiting. The number of threads
changes how sums are rounded; with `OMP_NUM_THREADS` a run on a CPU can be repeated bit for bit on a busy machine too.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Variables of GNU's and of LLVM's OpenMP, which each reads when torch is imported."""
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
FIRST_SECONDS = 0.25
"""Interval of the first measurement, in which the program sleeps. The kernel counts in hundredths of a second."""
INTERVAL_SECONDS = 20.0
"""Shortest time between later measurements, which take no time: they are of what has passed since the last one."""
PROC = Path("/proc")


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait. Without effect after torch is imported, or if the user chose."""
    if not {"GOMP_SPINCOUNT", *WAITING} & environment.keys():
        environment.update(WAITING)


@dataclass(frozen=True)
class CoreTimes:
    """Clock ticks so far of the cores that this process may use."""

    total: int
    free: int
    """Idle, or used by processes that yield to this one."""
    own: int
    """Used by this process and its descendants, such as sandboxes."""
    cores: int

    @classmethod
    def now(cls, own: OwnTicks, proc: Path = PROC) -> CoreTimes | None:
        """None: the system doesn't say.

        Args:
            own: measured here.
        """
        try:
            lines = (proc / "stat").read_text().splitlines()
            own.measure(proc)
        except OSError:
            return None
        usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [list(map(int, line.split()[1:9])) for line in lines if line.split()[0] in usable]
        # user, nice, system, idle, iowait, ...: processes of a lower priority than usual count under "nice".
        free = [3, 4] if os.nice(0) > 0 else [1, 3, 4]
        return cls(sum(map(sum, rows)), sum(row[column] for row in rows for column in free), own.total, len(rows))

    def available_since(self, earlier: CoreTimes) -> float:
        """Cores that other processes left to this one, on average."""
        passed = max(1, self.total - earlier.total)
        left = self.free - earlier.free + self.own - earlier.own
        return self.cores * min(1.0, max(0.0, left / passed))


@dataclass(frozen=True)
class _UsedTicks:
    parent: int
    began: int
    used: int
    """Clock ticks."""
    inherited: int
    """Those of its children that have ended and that it has waited for."""


@dataclass
class OwnTicks:
    """Counts the clock ticks of this process and its descendants, those that have ended included.

    The kernel adds the ticks of a process that ends to its parent, but only if the parent waits for it. In the
    namespace of a sandbox that is closed nobody does: its ticks are gone, so it would seem that others had used them.
    They stay counted here as last seen; measured often, little is missed.
    """

    total: int = 0
    _seen: Mapping[int, _UsedTicks] = field(default_factory=dict)

    def measure(self, proc: Path = PROC) -> None:
        """Raises OSError if the system doesn't say."""
        (proc / str(os.getpid()) / "stat").read_text()
        present = dict(_family(proc, os.getpid(), 0))
        ended = {
            pid: old for pid, old in self._seen.items() if (now := present.get(pid)) is None or now.began != old.began
        }
        counted = dict.fromkeys(present, 0)
        for old in ended.values():  # by the nearest ancestor that is left
            parent = old.parent
            while parent in ended:
                parent = ended[parent].parent
            if parent in counted:
                counted[parent] += old.used + old.inherited
        for pid, process in present.items():
            before = None if pid in ended else self._seen.get(pid)
            if before is None:
                self.total += process.used + process.inherited
            else:
                inherited = process.inherited - before.inherited - counted[pid]
                self.total += process.used - before.used + max(0, inherited)
        self._seen = present


def _family(proc: Path, pid: int, parent: int) -> Iterator[tuple[int, _UsedTicks]]:
    """A process and its descendants."""
    try:
        numbers = [int(word) for word in (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1:20]]
        children = [
            child for path in (proc / str(pid) / "task").glob("*/children") for child in path.read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return
    yield pid, _UsedTicks(parent, numbers[18], sum(numbers[10:12]), sum(numbers[12:14]))
    for child in children:
        yield from _family(proc, int(child), pid)


def most_threads() -> int:
    """Torch's number of threads, if it may be lowered; 1: it stays as it is."""
    import torch

    is_chosen = any(name in os.environ for name in NUMBER)
    return 1 if is_chosen or torch.cuda.is_available() else int(torch.get_num_threads())


@dataclass
class FreeCores:
    """Keeps the number of torch's threads at that of the cores that other processes leave free."""

    most: int = field(default_factory=most_threads)
    _own: OwnTicks = field(default_factory=OwnTicks)
    _last: CoreTimes | None = None
    _measured: float = 0.0
    has_warned: ClassVar[bool] = False
    """In this process: a run trains and samples many times."""

    def follow(self) -> None:
        """Measure, and set the number of threads; at once the first time, and then every `INTERVAL_SECONDS`."""
        if self.most == 1:
            return
        if self._last is not None and time.monotonic() - self._measured < INTERVAL_SECONDS:
            self._own.measure()
            return
        if self._last is None:
            self._last = CoreTimes.now(self._own)
            time.sleep(FIRST_SECONDS)
        now = CoreTimes.now(self._own)
        if now is None or self._last is None:
            self.most = 1
            return
        self.use(now.available_since(self._last), now.cores)
        self._last, self._measured = now, time.monotonic()

    def use(self, available: float, cores: int) -> None:
        """Set the number of threads for so many available cores. Warns the first time that it is lowered."""
        import torch

        threads = max(1, min(self.most, int(available + 0.5)))
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        if threads < self.most and not FreeCores.has_warned:
            FreeCores.has_warned = True
            warnings.warn(
                f"other processes use {cores - available:.1f} of {cores} cores, so the model computes with {threads} "
                f"of {self.most} threads while they do, more slowly than alone (OMP_NUM_THREADS sets another number)",
                stacklevel=3,
            )


@contextmanager
def on_free_cores() -> Iterator[None]:
    """Inside the `with` block, torch has as many threads as cores are free at its beginning."""
    with restored_threads():
        FreeCores().follow()
        yield


@contextmanager
def restored_threads() -> Iterator[None]:
    """Afterwards torch has as many threads as before; as a `with` block or a decorator."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
