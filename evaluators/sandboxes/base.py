"""What a sandbox is: a place to start one program in, with chosen folders, limits and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from regrade.datasets.tasks import Limits


class SandboxError(RuntimeError):
    """A sandbox could not be started or stopped working, and no candidate is to blame."""


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine that the program sees at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is started in a sandbox."""

    python: Path
    """The interpreter; it, its standard library and its environment are seen at their own paths, read-only."""
    arguments: tuple[str, ...]
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    scratch_mb: int = 256
    """Size of the writable temporary folder."""


class Session(Protocol):
    """A program running in a sandbox. It is spoken to over its standard input and output."""

    def send(self, data: bytes) -> None:
        """Raises SandboxError when the program is gone."""

    def receive(self, timeout: float) -> bytes:
        """Some bytes of its output; empty at the end. Raises TimeoutError after `timeout` seconds without any."""

    def kill(self) -> None:
        """Kill everything in the sandbox, from any thread; `receive` then finds the end."""

    def close(self) -> None:
        """Kill everything in the sandbox and wait until it is gone. May be called twice."""

    @property
    def errors(self) -> str:
        """The last lines of its standard error."""


class Sandbox(Protocol):
    """A kind of sandbox."""

    name: str
    isolated: bool
    """Is the candidate kept from the files, processes and network of this machine?"""
    alone: bool
    """Is the program the first process of a pid namespace of its own?"""
    candidate_user: int
    """User id that the program lets candidates drop to; -1: the program's own."""

    def problem(self) -> str:
        """Why it can't be used here and what to do about it; empty when a trial start worked."""

    def seen_at(self, mount: Mount) -> str:
        """The path at which the program sees a mount."""

    def start(self, program: Program) -> Session:
        """Raises SandboxError."""
