"""A session over the pipes of a child process of this one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

from regrade.evaluators.sandboxes.base import SandboxError


class PipedSession:
    """Starts `command` in a process group of its own and speaks with it over pipes."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(environment),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise SandboxError(f"{command[0]} could not be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._input.write(view) or 0 :]
        except (OSError, ValueError) as error:
            raise SandboxError(f"the worker is gone: {self.errors or error}") from error

    def receive(self, timeout: float) -> bytes:
        ready, _, _ = select.select([self._output], [], [], max(0.0, timeout))
        if not ready:
            raise TimeoutError
        return os.read(self._output.fileno(), 1 << 18)

    def kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        if self._errors.closed:
            return
        self.kill()
        self._process.wait()
        for stream in (self._input, self._output, self._errors):
            stream.close()

    @property
    def errors(self) -> str:
        if self._errors.closed:
            return ""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), 2000, max(0, size - 2000)).decode("utf-8", "replace").strip()
