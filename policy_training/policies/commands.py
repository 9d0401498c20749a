"""Policies behind a command: any agent that edits the files of the folder that it is started in.

Each attempt gets a fresh copy of the task's tree: no reference, and one commit of git history, the base. What differs
from the base at the end is the prediction, whatever the command did to git; edits of tests are in it, and are ignored
where every patch's are. The command is the user's own program: it runs as them, outside every sandbox, with their
environment and network, since it has to reach its model.

How an attempt ends:
- by itself, or at the time limit: what differs counts. Running out of time is the policy's own doing.
- with an exit code other than 0 and no change: *lost*, which is unscored and made again by the next run, because a
  command that could not reach its model looks the same. `count_failures` counts it as an attempt that changed nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regrade.datasets.caches import default_cache
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Keep, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.environments import python_for
from regrade.evaluators.sandboxes import scratch
from regrade.evaluators.sandboxes.process import kill_tree
from regrade.policy_training.policies.concurrency import AttemptFunction, Losses, concurrently
from regrade.policy_training.policies.task_descriptions import describe
from regrade.policy_training.policies.tree_copies import FreshCopy

LONGEST_OUTPUT = 20_000
"""Bytes of its output, the last, that are kept of an attempt."""
MARK = "REGRADE_ATTEMPT"
"""Environment variable by which the processes of one attempt are found, wherever they went."""
KILLING_SECONDS = 5.0
NOTHING = Patch("")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What is started for each attempt."""

    arguments: tuple[str, ...]
    """Program and arguments. In each of them `{instruction}` stands for what is asked in words, `{instruction_file}`
    for a file with that, `{task}` for the task's id, `{python}` for the interpreter that its tests run with,
    `{temperature}` and `{seed}` for themselves. The environment has all but the first as $REGRADE_TASK and so on."""
    seconds: float = 1800.0
    """Time limit of one attempt."""
    at_a_time: int = 2
    count_failures: bool = False
    """Does an exit code other than 0 without any change count as an attempt that changed nothing?"""
    dead_after: int = 8
    """Attempts lost in a row after which the command is not started any more."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.arguments or not self.arguments[0]:
            raise UserError("the command of a policy is empty: give a program and its arguments")
        if any("\0" in text for text in (*self.arguments, *self.environment, *self.environment.values())):
            raise UserError(f"the command {self.arguments[0]!r}: no program can be given a NUL character")
        odd = next((name for name in self.environment if not name or "=" in name), None)
        if odd is not None:
            raise UserError(f"the command {self.arguments[0]!r}: no environment variable can be called {odd!r}")

    def program(self) -> str:
        """Where the program lies. Raises UserError if it is nowhere."""
        path = shutil.which(self.arguments[0])
        if path is None:
            raise UserError(f"the command {self.arguments[0]!r} is not installed here: give a program's name or path")
        return str(Path(path).absolute())


@dataclass
class CommandPolicy:
    """An agent behind a command."""

    command: Command
    name: str

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        yield from self.attempt(trials(tasks, samplings), seed, lambda _trial, _rollout: None)

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        """Raises UserError if there is no such program."""
        program = self.command.program()

        @asynccontextmanager
        async def session() -> AsyncIterator[AttemptFunction]:
            folder = scratch.scratch_folder()
            folder.chmod(0o700)
            try:
                yield _CommandSession(self, program, folder, seed).attempt
            finally:
                scratch.remove(folder)

        return concurrently(trials, session, self.command.at_a_time, keep)


class _CommandSession:
    """One evaluation's attempts."""

    def __init__(self, policy: CommandPolicy, program: str, scratch: Path, seed: int) -> None:
        self._policy = policy
        self._command = policy.command
        self._program = program
        self._scratch = scratch
        self._seed = seed
        self._losses = Losses(policy.command.dead_after)

    async def attempt(self, trial: Trial) -> Rollout:
        if self._losses.are_final:
            return self._rollout(trial, "", lost=f"the command was not started: {self._losses}")
        mark = secrets.token_hex(8)
        folder = self._scratch / mark
        copy = await asyncio.to_thread(FreshCopy, trial.task.base, folder)
        try:
            return await self._attempt(trial, copy, folder, mark)
        finally:
            kill_marked(mark)
            scratch.remove(folder)

    async def _attempt(self, trial: Trial, copy: FreshCopy, folder: Path, mark: str) -> Rollout:
        values = await asyncio.to_thread(self._values, trial, folder)
        began = time.perf_counter()
        code, output = await self._run(copy.folder, values, mark)
        seconds = time.perf_counter() - began
        patch = await asyncio.to_thread(copy.patch)
        if code and patch.is_empty and not self._command.count_failures:
            words = " ".join(output.split())[-200:]
            why = f"the command ended with code {code} and changed nothing{': ' if words else ''}{words}"
            self._losses.add(why)
            return self._rollout(trial, values["instruction"], lost=why)
        self._losses.clear()
        return self._rollout(trial, values["instruction"], patch, output, seconds)

    def _rollout(
        self, trial: Trial, prompt: str, patch: Patch = NOTHING, completion: str = "", seconds: float = 0.0,
        lost: str = "",
    ) -> Rollout:  # fmt: skip
        return Rollout(
            trial.task.id, self._policy.name, trial.temperature, trial.sample, self._seed, patch, prompt, completion,
            seconds=seconds, lost=lost,
        )  # fmt: skip

    def _values(self, trial: Trial, folder: Path) -> dict[str, str]:
        """Placeholder -> its value."""
        python = str(python_for(trial.task.requirements, default_cache()))
        instruction = f"{describe(trial.task)}\n\n{_how_tests_run(trial.task, python)}".strip() + "\n"
        file = folder / "instruction.md"
        file.write_text(instruction, encoding="utf-8", errors="surrogateescape")
        return {
            "instruction": instruction, "instruction_file": str(file), "task": trial.task.id, "python": python,
            "temperature": f"{trial.temperature:g}", "seed": str(1000 * self._seed + trial.sample),
        }  # fmt: skip

    async def _run(self, folder: Path, values: Mapping[str, str], mark: str) -> tuple[int | None, str]:
        """Exit code of the command, None at the time limit, and the end of what it printed."""
        shown = {f"REGRADE_{name.upper()}": value for name, value in values.items() if name != "instruction"}
        environment = {**os.environ, **self._command.environment, **shown, "PWD": str(folder), MARK: mark}
        arguments = [_filled(argument, values) for argument in self._command.arguments[1:]]
        async with _printed() as (pipe, printed):
            try:
                process = await asyncio.create_subprocess_exec(
                    self._program, *arguments, cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
                    stdout=pipe, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                advice = "use {instruction_file}" if error.errno == errno.E2BIG else "does it run in a terminal?"
                why = f"the command {self._program!r} cannot be started: {error.strerror}; {advice}"
                raise UserError(why) from error
            try:
                code = await asyncio.wait_for(process.wait(), self._command.seconds)
            except TimeoutError:
                code = None
            finally:
                if process.returncode is None:
                    kill_tree(process.pid)
                    await process.wait()
                kill_marked(mark)  # what still runs could change files while they are compared
        return code, printed.text


def kill_marked(mark: str) -> None:
    """Kill all processes that an attempt started, also those that left its session, until none is left."""
    deadline = time.monotonic() + KILLING_SECONDS
    wanted = f"{MARK}={mark}".encode()
    while time.monotonic() < deadline:
        processes = [process for process in _processes() if wanted in _environment(process).split(b"\0")]
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(process: int) -> bytes:
    """Empty for a process that is gone, a zombie, or somebody else's."""
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return b""


def _filled(argument: str, values: Mapping[str, str]) -> str:
    """Only the known names are replaced, so that an argument may hold JSON."""
    return re.sub(r"\{(\w+)\}", lambda placeholder: values.get(placeholder[1], placeholder[0]), argument)


def _how_tests_run(task: Task, python: str) -> str:
    if task.suite.runner != "pytest":
        return ""
    folders = [folder for folder in task.suite.python_path if folder != "."]
    return f"The tests run by: {f'PYTHONPATH={os.pathsep.join(folders)} ' if folders else ''}{python} -m pytest"


class _OutputTail(asyncio.Protocol):
    """The end of what a program prints; what came before is forgotten, however much it is."""

    def __init__(self) -> None:
        self._bytes = b""
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._bytes = (self._bytes + data)[-LONGEST_OUTPUT:]

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed.set()

    @property
    def text(self) -> str:
        return self._bytes.decode("utf-8", "replace")


@asynccontextmanager
async def _printed() -> AsyncIterator[tuple[int, _OutputTail]]:
    """The end of a pipe that a program may print to, and what it printed there.

    No pipe of asyncio's own: its process would not count as ended while any other process still holds the pipe.
    """
    read, write = os.pipe()
    transport, printed = await asyncio.get_running_loop().connect_read_pipe(_OutputTail, os.fdopen(read, "rb", 0))
    try:
        yield write, printed
    finally:
        os.close(write)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(printed.closed.wait(), KILLING_SECONDS)
        transport.close()
