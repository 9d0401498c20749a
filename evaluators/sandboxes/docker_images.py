"""Containers of a task's own image: a warm one for its interpreter, and a new one for each test command."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regrade.datasets.tasks import Limits
from regrade.evaluators.sandboxes.base import Mount, Program, SandboxError
from regrade.evaluators.sandboxes.candidate_users import new_candidate_users
from regrade.evaluators.sandboxes.docker import STANDARD_STREAMS, ContainerSession, Docker, Frames, hardening, labels

TREE = "/repo"
"""Where a worker mounts the tree in every other sandbox."""
RESULTS_FOLDER = "/regrade-results"
RESULTS = f"{RESULTS_FOLDER}/pipe"
"""A pipe in the container: what is written to it can't be changed afterwards."""
FORWARDER = f'mkfifo -m 622 {RESULTS} && exec 3<>{RESULTS} && {{ cat <&3 & }} && echo "ready $!" && read -r line'
"""The first process of a container, which starts the one that forwards results. It exits, and with it all others, when
its standard input is closed: when the process that started the container is gone, for any reason."""
KILL_ALL = "kill -9 -1"
"""All processes that the user may signal, but its own."""
KILL_ALL_BUT = (
    'for each in /proc/[0-9]*; do case ${{each#/proc/}} in 1|$$|{}) ;; *) kill -9 "${{each#/proc/}}";; esac; done'
)
"""For root, which may signal the forwarder too."""
OWN_PROCESSES = 2
"""Processes of a container beside those of the commands."""
START_SECONDS = 120.0
ANSWER_SECONDS = 60.0
CHECK_SECONDS = 0.5
DRAIN_SECONDS = 2.0
"""Longest time to read the rest of what an ended command has printed."""
KILL_ATTEMPTS = 20
LARGEST_OUTPUT, LARGEST_RESULTS = 16 << 20, 64 << 20
"""Bytes of what a test command prints, and of its results."""
FORWARDER_MEMORY_MB = 16


def activated(shell: str, activate: str, command: Sequence[str]) -> list[str]:
    """A command after shell lines whose output is dropped, in the same environment."""
    lines = f'{{\n:\n{activate}\n}} >/dev/null 2>&1 </dev/null\nexec "$@"'
    return [shell, "-c", lines, "regrade", *command]


class ImageSandbox(Docker):
    """Docker, with the interpreter of an image, and the tree in place of a folder of the image."""

    def __init__(
        self, name: str, image: str, *, workdir: str, shell: str, activate: str, environment: Mapping[str, str]
    ) -> None:
        """
        Args:
            name: of the image, for messages.
            image: its id.
        """
        super().__init__(image)
        self.name = f"docker:{name}"
        self._workdir = workdir
        self._shell = shell
        self._activate = activate
        self._environment = dict(environment)

    def seen_at(self, mount: Mount) -> str:
        return self._workdir if mount.target == TREE else mount.target

    def start(self, program: Program) -> ContainerSession:
        mounts = tuple(replace(mount, target=self.seen_at(mount)) for mount in program.mounts)
        # The image's own PATH stays.
        environment = {name: value for name, value in program.environment.items() if name != "PATH"}
        return super().start(replace(program, mounts=mounts, environment=environment | self._environment))

    def _command(self, program: Program, *, is_gvisor: bool) -> list[str]:
        from regrade.evaluators.sandboxes import system_calls

        python = str(program.python)
        plain = [python, *program.arguments]
        command = system_calls.filtered_in_gvisor(python, program.arguments) if is_gvisor else plain
        return activated(self._shell, self._activate, command)


@dataclass(frozen=True)
class Execution:
    """A command that ran in a container."""

    status: int
    """Exit status; 128 + N: killed by signal N; -1: it was stopped."""
    stopped: str
    """Why it was stopped: `timeout`, `output`, or the answer of the check; empty: it ended by itself."""
    output: str
    """What it printed, on both streams."""
    answer: str
    """What it printed on its standard output."""
    seconds: float


class ImageContainer:
    """A new container of an image. Commands run in it as another user than its first process, which only forwards the
    results that they write to a pipe.

    So no process of a command can change a result that was written, and none is left when the results are read.
    """

    def __init__(
        self,
        client: Any,
        image: str,
        *,
        limits: Limits,
        mounts: Sequence[Mount] = (),
        user: str = "",
        is_writable: bool = False,
        scratch_mb: int = 512,
    ) -> None:
        """
        Args:
            client: of the engine, for this container only.
            image: its id.
            user: that runs the commands; empty: an unprivileged user id.
            is_writable: may the user change the files of the container that it owns?

        Raises:
            SandboxError: the container did not start.
        """
        import docker

        self._client = client
        first = new_candidate_users()[0]
        self._user = user or f"{first}:{first}"
        self._forwarder = ""
        self._frames: Frames | None = None
        self._id = ""
        try:
            configuration = self._configuration(image, limits, mounts, is_writable=is_writable, scratch_mb=scratch_mb)
            self._id = client.create_container(**configuration)["Id"]
            self._frames = Frames(client.attach_socket(self._id, params=STANDARD_STREAMS))
            client.start(self._id)
            self._await_forwarder()
            self._received = _Received(self._frames)
        except (docker.errors.DockerException, OSError) as error:
            self.close()
            raise SandboxError(f"the container did not start: {_first_line(error)}") from error
        except SandboxError:
            self.close()
            raise

    def _configuration(
        self, image: str, limits: Limits, mounts: Sequence[Mount], *, is_writable: bool, scratch_mb: int
    ) -> dict[str, Any]:
        from docker.types import Mount as Bind
        from docker.types import Ulimit

        memory = (limits.memory_mb + FORWARDER_MEMORY_MB) << 20
        file_size = limits.file_mb << 20
        host = self._client.create_host_config(
            **hardening(self._client, limits),
            read_only=not is_writable,
            mounts=[
                Bind(mount.target, str(mount.source.absolute()), type="bind", read_only=not mount.writable)
                for mount in mounts
            ],
            auto_remove=True,
            mem_limit=memory,
            memswap_limit=memory,
            tmpfs={
                "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={scratch_mb}m",
                RESULTS_FOLDER: "rw,noexec,nosuid,nodev,mode=755,size=64k",
            },
            ulimits=[
                Ulimit(name="nofile", soft=1024, hard=4096),
                Ulimit(name="core", soft=0, hard=0),
                Ulimit(name="fsize", soft=file_size, hard=file_size),
            ],
        )
        return {
            "image": image,
            "command": ["sh", "-c", FORWARDER],
            "entrypoint": [],
            "user": "0:0",
            "hostname": "sandbox",
            "stdin_open": True,
            "host_config": host,
            "labels": labels(),
            "working_dir": "/",
        }

    def _await_forwarder(self) -> None:
        assert self._frames is not None
        printed = b""
        deadline = time.monotonic() + START_SECONDS
        while not (ready := re.fullmatch(rb"ready (\d+)\n", printed)):
            try:
                _, block = self._frames.next(deadline)
            except TimeoutError as error:
                raise SandboxError(f"the container did not start within {START_SECONDS:g} s") from error
            if not block:
                reason = printed.decode("utf-8", "replace").strip()[:300] or "it exited at once"
                raise SandboxError(f"the container did not start: {reason}")
            printed += block
        self._forwarder = ready[1].decode()

    def execute(
        self,
        command: Sequence[str],
        *,
        workdir: str = "/",
        environment: Mapping[str, str],
        seconds: float,
        check: Callable[[], str] = str,
    ) -> Execution:
        """Run a command as the user.

        Args:
            check: called about twice a second; a text is the reason to stop the command.

        Raises:
            SandboxError: the command could not be started, or the container is gone.
        """
        import docker

        started, inspect = time.monotonic(), self._client.exec_inspect
        try:
            execution = self._client.exec_create(
                self._id, list(command), user=self._user, workdir=workdir, environment=dict(environment)
            )["Id"]
            frames = Frames(self._client.exec_start(execution, socket=True))
            printed = _Output(frames)
            try:
                stopped = printed.read(started + seconds, lambda: not inspect(execution)["Running"], check)
            finally:
                frames.close()
            status = -1 if stopped else inspect(execution)["ExitCode"]
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxError(f"the command could not be run in the container: {_first_line(error)}") from error
        if status is None:
            raise SandboxError("the container is gone")
        output, answer = (data.decode("utf-8", "replace") for data in (printed.whole, printed.answer))
        return Execution(status, stopped, output, answer, time.monotonic() - started)

    def kill_processes(self) -> bool:
        """Kill every process of the user. False: new ones appear all the time."""
        import docker

        for _ in range(KILL_ATTEMPTS):
            try:
                if len(self._client.top(self._id)["Processes"]) <= OWN_PROCESSES:
                    return True
                is_root = self._user.partition(":")[0] in ("root", "0")
                kill = KILL_ALL_BUT.format(self._forwarder) if is_root else KILL_ALL
                # As that user, so that no process of another one gets the signal.
                killer = self._client.exec_create(self._id, ["sh", "-c", kill], user=self._user)["Id"]
                self._client.exec_start(killer)
            except (docker.errors.DockerException, OSError) as error:
                raise SandboxError(f"the container is gone: {_first_line(error)}") from error
        return False

    def results(self) -> bytes:
        """What the commands wrote to the pipe. Call it when no process of theirs is left.

        Raises:
            SandboxError: the container is gone, or there is too much.
        """
        import docker

        mark = f"\n{secrets.token_hex(16)}\n".encode()
        command = ["sh", "-c", f"printf '\\n%s\\n' {mark.decode().strip()} >{RESULTS}"]
        try:
            self._client.exec_start(self._client.exec_create(self._id, command, user="0:0")["Id"], detach=True)
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxError(f"the results could not be read: {_first_line(error)}") from error
        return self._received.until(mark, time.monotonic() + ANSWER_SECONDS)

    def facts(self) -> tuple[bool, float]:
        """Was it out of memory, and the CPU seconds of all its processes."""
        import docker

        try:
            state = self._client.inspect_container(self._id)["State"]
            usage = self._client.stats(self._id, stream=False, one_shot=True)
            return bool(state["OOMKilled"]), usage["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        except (docker.errors.DockerException, OSError, KeyError, TypeError):
            return False, 0.0

    def kill(self) -> None:
        """Kill and remove it, from any thread."""
        import docker

        if self._id:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                self._client.remove_container(self._id, force=True, v=True)

    def close(self) -> None:
        self.kill()
        if self._frames is not None:
            self._frames.close()
        with contextlib.suppress(OSError):
            self._client.close()


TOO_LONG = f"the results have more than {LARGEST_RESULTS >> 20} MiB"


class _Received:
    """What the first process of a container forwards, read all the time: a full stream would block the tests."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._data = bytearray()
        self._changed = threading.Condition()
        self._has_ended = False
        threading.Thread(target=self._read, daemon=True, name="regrade-results").start()

    def until(self, mark: bytes, deadline: float) -> bytes:
        """All before the mark, which ends it. Raises SandboxError: it ends otherwise, or is too long."""
        with self._changed:
            while not self._data.endswith(mark):
                is_late = not self._changed.wait(max(0.0, deadline - time.monotonic()))
                if self._has_ended or len(self._data) > LARGEST_RESULTS or is_late:
                    break
            if not self._data.endswith(mark):
                raise SandboxError(TOO_LONG if len(self._data) > LARGEST_RESULTS else "the results were not forwarded")
            return bytes(self._data[: -len(mark)])

    def _read(self) -> None:
        block = b"\n"
        while block:
            try:
                _, block = self._frames.next(time.monotonic() + CHECK_SECONDS)
            except TimeoutError:
                continue
            except (OSError, ValueError):  # closed by another thread
                block = b""
            with self._changed:
                if len(self._data) <= LARGEST_RESULTS:
                    self._data += block
                self._has_ended = not block
                self._changed.notify_all()


class _Output:
    """What a command prints, until it ends or must be stopped."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self.whole = b""
        self.answer = b""
        """The part on its standard output."""

    def read(self, deadline: float, has_ended: Callable[[], bool], check: Callable[[], str]) -> str:
        """Why the command must be stopped; empty: it has ended. A process that it left behind may keep the stream
        open, and go on printing."""
        next_check = time.monotonic() + CHECK_SECONDS
        while self._receive(min(deadline, next_check)):
            if len(self.whole) > LARGEST_OUTPUT:
                return "output"
            now = time.monotonic()
            if now >= deadline:
                return "timeout"
            if now >= next_check:
                if has_ended():
                    self._drain(now + DRAIN_SECONDS)
                    return ""
                if reason := check():
                    return reason
                next_check = now + CHECK_SECONDS
        return ""

    def _receive(self, deadline: float) -> bool:
        """Is the stream open?"""
        try:
            kind, block = self._frames.next(deadline)
        except TimeoutError:
            return True
        self.whole += block
        self.answer += block if kind == 1 else b""
        return bool(block)

    def _drain(self, deadline: float) -> None:
        """Read what was printed before the end."""
        size = -1
        while size < len(self.whole) <= LARGEST_OUTPUT and time.monotonic() < deadline:
            size = len(self.whole)
            self._receive(time.monotonic() + DRAIN_SECONDS / 10)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
