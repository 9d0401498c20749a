"""gVisor: a kernel of its own for each sandbox, without a daemon. Starts in about half a second."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrade.datasets.process_identity import this_process
from regrade.evaluators.sandboxes.base import Mount, Program
from regrade.evaluators.sandboxes.candidate_users import new_candidate_users
from regrade.evaluators.sandboxes.interpreters import SYSTEM, Interpreters, system_mounts
from regrade.evaluators.sandboxes.mount_points import mount_points
from regrade.evaluators.sandboxes.piped import PipedSession
from regrade.evaluators.sandboxes.scratch import remove
from regrade.evaluators.sandboxes.system_calls import filtered_in_gvisor
from regrade.evaluators.sandboxes.trial import WORKS, problem_of_trial

FLAGS = ("--network=none", "--ignore-cgroups", "--host-uds=all")
"""No network stack of this machine; no control groups, which few users may change; sockets in mounted folders."""
CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL")
DESCRIPTORS = 1024
UNTIMED = """
while [ "$1" != -- ]; do mount -o "remount,bind,$1" none "$2" || exit; shift 2; done
shift; exec "$@"
"""
"""Remounts, in a mount namespace of its own, and starts the program. The process that opens files for gVisor would
leave times of reading for other candidates: of a bind mount, runsc ignores this option, as it ignores `ro`."""
KEPT_OPTIONS = frozenset({"nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"})
"""Options of a mount point that a remount would remove."""


class GVisor:
    """A kernel of its own in user space (`runsc`): the program's system calls reach this machine's kernel only through
    it; read-only except for named mounts, no network, the same filter of system calls as in the other sandboxes. Each
    candidate has a user id of its own.

    It needs root: without user ids of their own, candidates could open the worker's descriptors and kill it, as gVisor
    protects no process from another one of the same user.

    It runs below the first process of a pid namespace, so that the kernel ends all of it if that process is killed.
    """

    name = "gvisor"
    isolated = True
    alone = True

    def __init__(self) -> None:
        self._folders = Interpreters()

    def candidate_users(self) -> range:
        return new_candidate_users()

    def problem(self) -> str:
        install = "apt-get install runsc, or see https://gvisor.dev/docs/user_guide/install"
        return problem_of_trial("runsc", install, self._trial, "runsc --network=none do true")

    def _trial(self) -> RunscSession:
        arguments = ("-I", "-S", "-c", f"print({WORKS.decode()!r})")
        return self.start(Program(python=Path(sys.executable), arguments=arguments, mounts=()))

    def seen_at(self, mount: Mount) -> str:
        return mount.target

    def start(self, program: Program) -> RunscSession:
        folders = [Mount(folder, str(folder)) for folder in self._folders(program.python)]
        python = str(program.python.absolute())
        command = filtered_in_gvisor(python, program.arguments)
        # Named so that the next process removes it if this one is killed.
        bundle = Path(tempfile.mkdtemp(prefix=f"regrade-{this_process()}-gvisor-"))
        try:
            _make_root(bundle / "root")
            mounts = [*system_mounts(), *folders, *program.mounts]
            (bundle / "config.json").write_text(json.dumps(_configuration(command, mounts, program)))
            return RunscSession(_command(bundle, mounts), bundle)
        except BaseException:
            remove(bundle)
            raise


class RunscSession(PipedSession):
    """Ends with the first process of its pid namespace, and has ended when all other processes in it have."""

    def __init__(self, command: list[str], bundle: Path) -> None:
        super().__init__(command, {})
        self._bundle = bundle

    def kill(self) -> None:
        if self._process.poll() is not None:
            return
        parent = self._process.pid
        with contextlib.suppress(OSError):
            os.kill(parent, signal.SIGSTOP)  # so that the id of its child stays the child's
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            # Without a child, which dies with it: it has not yet started one, or the kernel does not list them.
            for process in children or [str(parent)]:
                os.kill(int(process), signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(parent, signal.SIGCONT)

    def close(self) -> None:
        super().close()
        remove(self._bundle)


def _command(bundle: Path, mounts: list[Mount]) -> list[str]:
    setpriv, unshare, shell, runsc = (shutil.which(name) or name for name in ("setpriv", "unshare", "sh", "runsc"))
    return [
        *(setpriv, "--pdeathsig", "KILL", "--"),
        *(unshare, "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *(shell, "-c", UNTIMED, shell, *_untimed(mounts), "--"),
        *(runsc, f"--root={bundle / 'state'}", *FLAGS, "run", f"--bundle={bundle}", bundle.name),
    ]


def _untimed(mounts: list[Mount]) -> Iterator[str]:
    """Options and path of each mount point whose files' times of reading candidates would change."""
    for point in mount_points(mount.source for mount in mounts):
        if point.options.isdisjoint(("ro", "noatime")):
            yield ",".join(("noatime", *sorted(point.options & KEPT_OPTIONS)))
            yield point.path


def _configuration(command: list[str], mounts: list[Mount], program: Program) -> dict[str, Any]:
    temporary = ["nosuid", "nodev", "mode=1777", f"size={program.scratch_mb}m"]
    internal = [
        _mount("proc", "/proc"),
        _mount("tmpfs", "/dev"),
        *(_mount("tmpfs", folder, *temporary) for folder in ("/tmp", "/dev/shm")),
    ]
    bound = [
        _mount("bind", mount.target, "rbind", "nosuid", "nodev", "rw" if mount.writable else "ro", source=mount.source)
        for mount in mounts
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": "root", "readonly": True},
        "process": {
            "args": command,
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in program.environment.items()],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": DESCRIPTORS, "hard": DESCRIPTORS}],
        },
        "mounts": [*internal, *bound],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _mount(kind: str, target: str, *options: str, source: Path | None = None) -> dict[str, Any]:
    return {
        "type": kind,
        "destination": target,
        "source": str(source.absolute() if source else kind),
        "options": options,
    }


def _make_root(root: Path) -> None:
    """The folder of the root: this machine's links to folders of the system (/lib -> usr/lib)."""
    for folder in (root, root / "etc"):
        folder.mkdir()
        folder.chmod(0o755)
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            (root / path.relative_to("/")).symlink_to(path.readlink())
