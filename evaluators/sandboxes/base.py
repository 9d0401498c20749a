"""The interface of sandboxes: each starts one program with chosen folders and limits, and no other access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from regrade.datasets.tasks import Limits


class SandboxError(RuntimeError):
    """A sandbox failed to start or stopped working, and no candidate caused it."""


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine, visible to the program at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to start in a sandbox."""

    python: Path
    """The interpreter; it, its standard library and its environment are visible at their own paths, read-only."""
    arguments: tuple[str, ...]
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    scratch_mb: int = 256
    """Size of the writable temporary folder."""


class Session(Protocol):
    """A program running in a sandbox, with access to its standard input and output."""

    def send(self, data: bytes) -> None:
        """Raises SandboxError: the program has exited."""

    def receive(self, timeout: float) -> bytes:
        """Some bytes of its output; empty at the end. Raises TimeoutError after `timeout` seconds without any."""

    def kill(self) -> None:
        """Kill every process in the sandbox, from any thread; `receive` then reaches the end."""

    def close(self) -> None:
        """Kill every process in the sandbox and wait for their exit. May be called twice."""

    @property
    def errors(self) -> str:
        """The last lines of its standard error."""


class Sandbox(Protocol):
    """A kind of sandbox."""

    name: str
    isolated: bool
    """Is the candidate isolated from the files, processes and network of this machine?"""
    alone: bool
    """Is the program the first process of a pid namespace of its own?"""

    def candidate_users(self) -> range:
        """User ids for the candidates of a new program, one after another; empty: the program's own."""

    def problem(self) -> str:
        """Why it does not work on this machine, and a remedy; empty: a trial start succeeded."""

    def seen_at(self, mount: Mount) -> str:
        """Path of a mount inside the sandbox."""

    def start(self, program: Program) -> Session:
        """Raises SandboxError."""
