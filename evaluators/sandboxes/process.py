"""A plain process with limits: the last resort. It is no security boundary."""

from __future__ import annotations

import os
import sys

from regrade.evaluators.sandboxes.base import Mount, Program
from regrade.evaluators.sandboxes.piped import PipedSession


class Process:
    """Runs the program as this user, with this machine's files and network in reach. Only limits hold."""

    name = "process"
    isolated = False
    alone = False
    candidate_user = -1

    def problem(self) -> str:
        return "" if sys.platform == "linux" else f"the process sandbox needs Linux, this is {sys.platform}"

    def seen_at(self, mount: Mount) -> str:
        return str(mount.source)

    def start(self, program: Program) -> PipedSession:
        environment = {"PATH": os.environ.get("PATH", os.defpath), **program.environment}
        return PipedSession([str(program.python.absolute()), *program.arguments], environment)
