"""Policies behind a command: any agent that edits the files of its working directory.

Each attempt gets a fresh copy of the task's tree, without the reference and with one commit of git history, the base.
The prediction is the difference from the base at the end, whatever the command did to git. It contains edits of tests,
which scoring ignores as in every patch. The command is the user's own program: it runs as that user, outside every
sandbox, with the user's environment and network, because it needs to reach its model.

How an attempt ends:
- by itself, or at the time limit: the difference counts. A timeout is caused by the policy.
- with an exit code other than 0 and no change: the attempt is *lost*, that is, unscored and repeated by the next run,
  because a command that could not reach its model looks the same. With `count_failures` it counts as an attempt without
  changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from regrade.datasets.caches import default_cache
from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Keep, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.datasets.trajectories.reading import read_trajectories
from regrade.evaluators.execution.environments import python_for
from regrade.evaluators.sandboxes import scratch
from regrade.evaluators.sandboxes.process import kill_tree
from regrade.policy_training.policies.concurrency import AttemptFunction, Losses, concurrently
from regrade.policy_training.policies.task_descriptions import describe
from regrade.policy_training.policies.tree_copies import FreshCopy

logger = logging.getLogger(__name__)
LONGEST_OUTPUT = 20_000
"""Bytes of an attempt's output that are stored: the last ones."""
MARK = "REGRADE_ATTEMPT"
"""Environment variable that identifies the processes of one attempt, also those that left its session."""
KILLING_SECONDS = 5.0
NOTHING = Patch("")


@dataclass(frozen=True, kw_only=True)
class Command:
    """The program of each attempt.

    Raises:
        UserError: the command is empty, or an argument or environment variable is invalid.
    """

    arguments: tuple[str, ...]
    """Program and arguments. Placeholders in the arguments: `{instruction}` is the task description,
    `{instruction_file}` the path of a file with it, `{task}` the task's id, `{python}` the interpreter of its tests,
    `{temperature}` and `{seed}` those of the attempt, `{trajectory}` the path of a file where the program may leave its
    trajectory, in a format of `regrade.datasets.trajectories`: it is stored, and reports show its steps. All but the
    first are also environment variables: $REGRADE_TASK and so on."""
    seconds: float = 1800.0
    """Time limit of one attempt, in seconds. Default: 1800."""
    at_a_time: int = 2
    """Concurrent attempts. Default: 2."""
    count_failures: bool = False
    """Does an exit code other than 0 without changes count as an attempt without changes? Default: no, it is lost."""
    dead_after: int = 8
    """Attempts lost in a row after which no further one is started. Default: 8."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables. Default: none."""

    def __post_init__(self) -> None:
        if not self.arguments or not self.arguments[0]:
            raise UserError("the command of a policy is empty: give a program and its arguments")
        if any("\0" in text for text in (*self.arguments, *self.environment, *self.environment.values())):
            raise UserError(f"the command {self.arguments[0]!r}: no program can be given a NUL character")
        odd = next((name for name in self.environment if not name or "=" in name), None)
        if odd is not None:
            raise UserError(f"the command {self.arguments[0]!r}: no environment variable can be called {odd!r}")

    def program(self) -> str:
        """The absolute path of the program. Raises UserError if it is not installed."""
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
        """One rollout per trial. Raises UserError if the program is not installed."""
        program = self.command.program()

        @asynccontextmanager
        async def session() -> AsyncIterator[AttemptFunction]:
            folder = scratch.scratch_folder()
            folder.chmod(0o700)
            try:
                yield _CommandSession(self, program, folder, seed).attempt
            finally:
                # A thread that copies files can't be cancelled: it could write into the folder after its removal.
                await asyncio.get_running_loop().shutdown_default_executor()
                scratch.remove(folder)

        return concurrently(trials, session, self.command.at_a_time, keep)


class _CommandSession:
    """The attempts of one evaluation."""

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
        end = "stopped at the time limit" if code is None else f"code {code}"
        logger.info("command ended: task %s: %s, %.1f s", trial.task.id, end, seconds)
        patch = await asyncio.to_thread(copy.patch)
        if code and patch.is_empty and not self._command.count_failures:
            words = " ".join(output.split())[-200:]
            why = f"the command ended with code {code} and changed nothing{': ' if words else ''}{words}"
            self._losses.add(why)
            logger.warning("attempt lost: task %s, sample %d: code %d", trial.task.id, trial.sample, code)
            return self._rollout(trial, values["instruction"], lost=why)
        self._losses.clear()
        episode = await asyncio.to_thread(_episode, Path(values["trajectory"]), trial.task, patch)
        return self._rollout(trial, values["instruction"], patch, output, seconds, episode=episode)

    def _rollout(
        self,
        trial: Trial,
        prompt: str,
        patch: Patch = NOTHING,
        completion: str = "",
        seconds: float = 0.0,
        lost: str = "",
        episode: Episode | None = None,
    ) -> Rollout:
        return trial.rollout(
            self._policy.name,
            self._seed,
            patch,
            prompt=prompt,
            completion=completion,
            tokens=episode.tokens if episode else 0,
            seconds=seconds,
            lost=lost,
            episode=episode,
        )

    def _values(self, trial: Trial, folder: Path) -> dict[str, str]:
        """Placeholder -> its value."""
        python = str(python_for(trial.task.requirements, default_cache()))
        instruction = f"{describe(trial.task)}\n\n{_how_tests_run(trial.task, python)}".strip() + "\n"
        file = folder / "instruction.md"
        file.write_text(instruction, encoding="utf-8", errors="surrogateescape")
        return {
            "instruction": instruction,
            "instruction_file": str(file),
            "task": trial.task.id,
            "python": python,
            "temperature": f"{trial.temperature:g}",
            "seed": str(1000 * self._seed + trial.sample),
            "trajectory": str(folder / "trajectory.json"),
        }

    async def _run(self, folder: Path, values: Mapping[str, str], mark: str) -> tuple[int | None, str]:
        """Exit code of the command (None at the time limit), and the end of its output."""
        shown = {f"REGRADE_{name.upper()}": value for name, value in values.items() if name != "instruction"}
        environment = {**os.environ, **self._command.environment, **shown, "PWD": str(folder), MARK: mark}
        arguments = [_filled(argument, values) for argument in self._command.arguments[1:]]
        async with _printed() as (pipe, printed):
            try:
                process = await asyncio.create_subprocess_exec(
                    self._program,
                    *arguments,
                    cwd=folder,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=pipe,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                advice = "use {instruction_file}" if error.errno == errno.E2BIG else "does it run in a terminal?"
                why = f"the command {self._program!r} cannot be started: {error.strerror}; {advice}"
                raise UserError(why) from error
            logger.info("command started: task %s: %s, process %d", values["task"], self._program, process.pid)
            try:
                code = await asyncio.wait_for(process.wait(), self._command.seconds)
            except TimeoutError:
                code = None
            finally:
                if process.returncode is None:
                    kill_tree(process.pid)
                    await process.wait()
                kill_marked(mark)  # remaining processes could change files during the comparison
        return code, printed.text


def kill_marked(mark: str) -> None:
    """Kill all processes of an attempt, also those that left its session."""
    deadline = time.monotonic() + KILLING_SECONDS
    marker = f"{MARK}={mark}".encode()
    while time.monotonic() < deadline:
        processes = [process for process in _processes() if marker in _environment(process).split(b"\0")]
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(process: int) -> bytes:
    """Empty for a process that has ended, a zombie, or another user's process."""
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return b""


def _filled(argument: str, values: Mapping[str, str]) -> str:
    """Only known placeholders are replaced, so that an argument may contain JSON."""
    return re.sub(r"\{(\w+)\}", lambda placeholder: values.get(placeholder[1], placeholder[0]), argument)


def _episode(file: Path, task: Task, patch: Patch) -> Episode | None:
    """The trajectory that the program left; None if there is none that can be read, which loses nothing else."""
    if not file.exists():
        return None
    try:
        found = read_trajectories(file)
    except UserError as error:
        logger.warning("trajectory not stored: task %s: %s", task.id, error)
        return None
    return replace(found[0].episode, task_id=task.id, patch=patch) if found else None


def _how_tests_run(task: Task, python: str) -> str:
    if task.suite.runner != "pytest":
        return ""
    folders = [folder for folder in task.suite.python_path if folder != "."]
    return f"The tests run by: {f'PYTHONPATH={os.pathsep.join(folders)} ' if folders else ''}{python} -m pytest"


class _OutputTail(asyncio.Protocol):
    """The end of a program's output; the beginning is dropped."""

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
    """The write end of a pipe for a program's output, and the output's tail.

    Not a pipe of asyncio: its process would not count as ended while another process has the pipe open.
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
