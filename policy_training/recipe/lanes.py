"""Lanes: processes that work side by side, while the process that started them shows what each is at.

Lanes end with that process: when it fails or is interrupted, and also when it is killed. If one lane fails, all end.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from regrade.datasets.errors import UserError
from regrade.evaluators.sandboxes.scratch import remove_own

if TYPE_CHECKING:
    from regrade.evaluators.evaluation.sweeps import Stage

PATIENCE_SECONDS = 30.0
"""What a lane has, after SIGTERM, to close its sandboxes."""
LOGGER = "regrade"


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use: in a lane, its own."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def most_lanes() -> int:
    """The most lanes of a core each; one on a GPU, whose memory may hold one model only."""
    import torch

    return 1 if torch.cuda.is_available() else len(usable_cores())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside the `with` block, torch computes with so many threads on a CPU, unless the user has set a number."""
    import torch

    from regrade.policy_training.policies.threads import NUMBER, restored_threads

    with restored_threads():
        if not any(name in os.environ for name in NUMBER) and not torch.cuda.is_available():
            torch.set_num_threads(count)
        yield


def run_lanes(work: Callable[[Stage], object], count: int, stage: Stage) -> None:
    """Call `work` in several processes at once, and wait for all. Each gets a `Stage` that shows its stages here.

    Each has cores of its own, its sandboxes included, if there are enough: so equal time is equal work, also where one
    of them executes much and another one nothing.

    Args:
        work: must be picklable: a module's function, or a `functools.partial` of one.
        count: the number of processes; with 1, `work` runs in this one.
        stage: called here for each stage of each lane; stages of several lanes overlap.

    Raises:
        UserError: a lane was killed.
        Exception: what the first lane that failed has raised; its stack trace is among the notes.
    """
    if count == 1:
        work(stage)
        return
    with ExitStack() as stack:
        cores = usable_cores()
        shares = [cores[number::count] or cores for number in range(count)]
        lanes = [stack.enter_context(_started(work, share)) for share in shares]
        try:
            _follow({lane.connection: lane for lane in lanes}, stage)
        finally:
            for lane in lanes:  # all at once: each takes a moment to close its sandboxes
                lane.stop()


# ------------------------------------------------------------ in the process that starts lanes


class _Lane:
    """A lane, as its parent sees it."""

    def __init__(self, process: multiprocessing.process.BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.is_done = False
        self.stages: dict[int, tuple[str, ExitStack, Callable[[int, int], None]]] = {}
        """Number of an open stage -> its title, its end, its display."""

    def receive(self, stage: Stage) -> None:
        """Handle the next message. Raises UserError if the lane was killed, and the lane's own error."""
        try:
            kind, *content = self.connection.recv()
        except (EOFError, OSError):
            raise UserError(self._end()) from None
        getattr(self, f"_{kind}")(stage, *content)

    def stop(self) -> None:
        """Tell it to end, if it is not at its end."""
        if not self.is_done:
            self.process.terminate()

    def wait_for_end(self) -> None:
        """Kill it if it takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.is_alive() and time.monotonic() < deadline:
            self.stop()  # again: what another thread of it receives does not wake its main one
            self.process.join(1.0)
        self.process.kill()
        self.process.join()

    def _end(self) -> str:
        self.process.join(PATIENCE_SECONDS)
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        titles = [title for title, _, _ in self.stages.values()]
        at = f", while it was at {titles[-1]!r}" if titles else ""
        memory = "; if memory ran out, with `jobs=1`" if code == -signal.SIGKILL else ""
        return f"a process of this run {how}{at}: run the same command again to resume{memory}"

    def _begun(self, stage: Stage, number: int, title: str) -> None:
        stack = ExitStack()
        self.stages[number] = title, stack, stack.enter_context(stage(title))

    def _progress(self, _stage: Stage, number: int, done: int, total: int) -> None:
        self.stages[number][2](done, total)

    def _ended(self, _stage: Stage, number: int) -> None:
        self.stages.pop(number)[1].close()

    def _left(self, _stage: Stage, number: int) -> None:
        _abandon(self.stages.pop(number)[1])

    def _warning(self, _stage: Stage, text: str) -> None:
        warnings.warn(text, stacklevel=1)

    def _record(self, _stage: Stage, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)

    def _failed(self, _stage: Stage, error: BaseException) -> None:
        raise error

    def _done(self, _stage: Stage) -> None:
        self.is_done = True


def _follow(lanes: Mapping[Connection, _Lane], stage: Stage) -> None:
    """Show what the lanes are at, until all are done."""
    try:
        while open_ones := [connection for connection, lane in lanes.items() if not lane.is_done]:
            for connection in wait(open_ones):
                assert isinstance(connection, Connection)
                lanes[connection].receive(stage)
    finally:
        for lane in lanes.values():
            for _, stack, _ in lane.stages.values():
                _abandon(stack)


def _abandon(stack: ExitStack) -> None:
    """End a stage as an exception in it does: it is not complete."""
    stack.__exit__(InterruptedError, InterruptedError(), None)


@contextmanager
def _started(work: Callable[[Stage], object], cores: Sequence[int]) -> Iterator[_Lane]:
    """A lane. At the end of the `with` block it has ended: by itself if it was done, else by a signal."""
    context = multiprocessing.get_context("spawn")  # a forked process would share the threads' locks
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_work_in_lane, args=(its, work, cores, _levels()), name="lane")
    # A lane leaves Ctrl-C to this process. Until it can, the signal waits. (The tracker's start would unblock it.)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    its.close()
    lane = _Lane(process, ours)
    try:
        yield lane
    finally:
        lane.wait_for_end()
        ours.close()


def _levels() -> dict[str, int]:
    """Logger -> level, of those that `regrade -v` or REGRADE_LOG set."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == LOGGER]
    levels = {name: logging.getLogger(name).level for name in names}
    return {name: level for name, level in levels.items() if level != logging.NOTSET}


# ------------------------------------------------------------ in a lane


class _Parent(logging.Handler):
    """The process that started this lane, to which all is sent that a user shall see."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._is_heard = True

    def send(self, kind: str, *content: Any) -> None:
        if self._is_heard:
            with self._sending:
                self._connection.send((kind, *content))

    def interrupt(self, _number: int, _frame: FrameType | None) -> NoReturn:
        """The parent tells this lane to end, and listens no more."""
        self._is_heard = False
        signal.signal(signal.SIGTERM, _ignore)  # the clean-up is not interrupted again
        raise KeyboardInterrupt

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[int, int], None]]:
        number = next(self._numbers)
        self.send("begun", number, title)
        try:
            yield lambda done, total: self.send("progress", number, done, total)
        except BaseException:
            self.send("left", number)
            raise
        self.send("ended", number)

    def warn(self, message: Warning | str, *_: object, **__: object) -> None:
        self.send("warning", str(message))

    def emit(self, record: logging.LogRecord) -> None:
        plain = logging.makeLogRecord({**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None})
        self.send("record", plain)


def _work_in_lane(
    connection: Connection, work: Callable[[Stage], object], cores: Sequence[int], levels: Mapping[str, int]
) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # which all its threads and sandboxes inherit
    parent = _Parent(connection)
    signal.signal(signal.SIGTERM, parent.interrupt)
    signal.signal(signal.SIGINT, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    warnings.showwarning = parent.warn
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    if levels:
        logging.getLogger(LOGGER).addHandler(parent)
    try:
        work(parent.stage)
    except KeyboardInterrupt:
        remove_own()  # the signal may have interrupted a clean-up
    except BaseException as error:
        parent.send("failed", _sendable(error))
    else:
        parent.send("done")


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """As a function, and not SIG_IGN, which all sandboxes would inherit."""


def _end_with_parent() -> None:
    """If the parent is killed, end at once, as it did: sandboxes end with their process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # they are for the main thread
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _sendable(error: BaseException) -> BaseException:
    """The error with its stack trace as a note; another one of the same text if it can't be pickled."""
    trace = "".join(traceback.format_exception(error))
    try:
        sent: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"in a process of its own:\n{trace}")
    return sent
