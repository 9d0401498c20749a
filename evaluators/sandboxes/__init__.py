"""Sandboxes for untrusted code: one class a kind. `choose` returns one that works on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regrade.datasets.errors import UserError
from regrade.datasets.platforms import why_not_linux
from regrade.evaluators.sandboxes.base import Mount, Program, Sandbox, SandboxError, Session
from regrade.evaluators.sandboxes.bubblewrap import Bubblewrap
from regrade.evaluators.sandboxes.docker import Docker
from regrade.evaluators.sandboxes.gvisor import GVisor
from regrade.evaluators.sandboxes.podman import Podman
from regrade.evaluators.sandboxes.process import Process

KINDS: Mapping[str, Callable[[], Sandbox]] = {
    "bubblewrap": Bubblewrap,
    "docker": Docker,
    "podman": Podman,
    "gvisor": GVisor,
    "process": Process,
}
"""In order of preference: bubblewrap starts in milliseconds, a plain process is the last resort."""
OF_IMAGES: Mapping[str, Callable[[str], Sandbox]] = {"docker": Docker, "podman": Podman}
"""Kinds that take an image."""

__all__ = [
    "KINDS",
    "Bubblewrap",
    "Docker",
    "GVisor",
    "Mount",
    "Podman",
    "Process",
    "Program",
    "Sandbox",
    "SandboxError",
    "Session",
    "available",
    "choose",
]


def available() -> dict[str, str]:
    """Name of each kind of sandbox -> why it does not work on this machine (empty: a trial start succeeded)."""
    problem = why_not_linux()
    return {name: problem or make().problem() for name, make in KINDS.items()}


def check_name(name: str) -> None:
    """Raises UserError unless the name is one for `choose`."""
    kind, _, image = name.partition(":")
    if name != "auto" and (kind not in KINDS or (image and kind not in OF_IMAGES)):
        raise UserError(
            f"unknown sandbox {name!r}: choose one of auto, {', '.join(KINDS)}, docker:IMAGE or podman:IMAGE"
        )


def choose(name: str = "auto") -> Sandbox:
    """The named sandbox (`docker:IMAGE`, `podman:IMAGE`: a container of that image), or the first that works.

    Raises:
        UserError: the name is unknown, the sandbox does not work, or this is not Linux; with the reason and a remedy.
    """
    check_name(name)
    if problem := why_not_linux():
        raise UserError(problem)
    kind, _, image = name.partition(":")
    reasons = []
    for candidate in KINDS if name == "auto" else (kind,):
        sandbox: Sandbox = OF_IMAGES[kind](image) if image else KINDS[candidate]()
        reason = sandbox.problem()
        if not reason:
            return sandbox
        reasons.append(f"{sandbox.name}: {reason}")
    raise UserError(f"no sandbox works here: {'; '.join(reasons)}" if name == "auto" else f"the sandbox {reasons[0]}")
