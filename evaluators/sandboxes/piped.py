"""A session over the pipes of a child process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

from regrade.evaluators.sandboxes.base import SandboxError

EXIT_SECONDS = 60.0
"""Longest wait for the exit of a killed sandbox."""


class PipedSession:
    """Starts `command` in a process group of its own and communicates with it over pipes."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        information: tuple[int, int] | None = None,
        inherited: tuple[int, ...] = (),
    ) -> None:
        """`information`: a pipe on which bubblewrap writes the id of the sandbox's first process; closed here, as are
        the `inherited` descriptors, which the command reads."""
        descriptors = (*inherited, *(information or ())[1:])
        try:
            self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        except OSError:  # a full disk, for example
            for descriptor in {*descriptors, *(information or ())}:
                os.close(descriptor)
            raise
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(environment),
                start_new_session=True,
                bufsize=0,
                pass_fds=descriptors,
            )
        except OSError as error:
            self._errors.close()
            if information:
                os.close(information[0])
            raise SandboxError(f"{command[0]} did not start: {error}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._first = _first_process(information[0]) if information else None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._input.write(view) or 0 :]
        except (OSError, ValueError) as error:
            raise SandboxError(f"the worker has exited: {self.errors or error}") from error

    def receive(self, timeout: float) -> bytes:
        if not is_ready(self._output.fileno(), timeout):
            raise TimeoutError
        return os.read(self._output.fileno(), 1 << 18)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            # It dies with bubblewrap, unless it changed its user id: the kernel then clears its parent-death signal.
            if self._first is not None:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)

    def close(self) -> None:
        if self._errors.closed:
            return
        self.kill()
        self._process.wait()
        if self._first is not None:
            # It exits after all other processes of its namespace.
            is_ready(self._first, EXIT_SECONDS)
            first, self._first = self._first, None
            os.close(first)
        for stream in (self._input, self._output, self._errors):
            stream.close()

    @property
    def errors(self) -> str:
        if self._errors.closed:
            return ""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), 2000, max(0, size - 2000)).decode("utf-8", "replace").strip()


def is_ready(descriptor: int, seconds: float) -> bool:
    """Is it readable within that time? `select` refuses descriptors above 1023, which a large program may have."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(max(0.0, seconds) * 1000))


def _first_process(information: int) -> int | None:
    """A pidfd of the first process in the sandbox; None: it has already exited."""
    with os.fdopen(information, "rb") as stream:
        try:
            return os.pidfd_open(json.load(stream)["child-pid"])
        except (ValueError, KeyError, OSError):
            return None
