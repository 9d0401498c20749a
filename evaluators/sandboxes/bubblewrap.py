"""Bubblewrap: Linux namespaces without a daemon. Starts in about 15 ms."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from regrade.evaluators.sandboxes.base import Mount, Program, SandboxError
from regrade.evaluators.sandboxes.candidate_users import new_candidate_users
from regrade.evaluators.sandboxes.interpreters import SYSTEM, Interpreters, system_mounts
from regrade.evaluators.sandboxes.piped import PipedSession
from regrade.evaluators.sandboxes.system_calls import program_descriptor

NAMESPACE_OPTIONS = """
    --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try --as-pid-1 --die-with-parent
    --new-session --hostname sandbox --cap-drop ALL
"""


class Bubblewrap:
    """Own user, pid, network, ipc, uts and mount namespaces; no capabilities; a filter of system calls; read-only
    except for named mounts.

    Started by root, it creates no user namespace: the worker has only the capabilities to change its user id and to
    kill, and each candidate has a user id of its own. Started by another user, or with `user_namespace`, worker and
    candidate share the one id of the user namespace; the kernel protects the worker as the first process of the pid
    namespace.
    """

    name = "bubblewrap"
    isolated = True
    alone = True

    def __init__(self, *, user_namespace: bool | None = None) -> None:
        self._folders = Interpreters()
        self._user_namespace = os.geteuid() != 0 if user_namespace is None else user_namespace

    def candidate_users(self) -> range:
        return range(0) if self._user_namespace else new_candidate_users()

    def problem(self) -> str:
        if shutil.which("bwrap") is None:
            return "the program `bwrap` is not installed: apt-get install bubblewrap (or dnf, pacman)"
        try:
            filter_ = program_descriptor()
            command = [*self._frame(256), "--seccomp", str(filter_), "--", "/bin/echo", "works"]
            session = PipedSession(command, {}, inherited=(filter_,))
        except SandboxError as error:
            return str(error)
        try:
            return "" if session.receive(20.0).strip() == b"works" else self._advice(session.errors)
        except TimeoutError:
            return "a trial start did not answer within 20 s"
        finally:
            session.close()

    def seen_at(self, mount: Mount) -> str:
        return mount.target

    def start(self, program: Program) -> PipedSession:
        command = self._frame(program.scratch_mb)
        for folder in self._folders(program.python):
            # The folders above it: bwrap would create them readable by their owner alone.
            for parent in reversed(folder.parents[:-1]):
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", str(folder), str(folder)]
        for mount in program.mounts:
            command += ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.target]
        for name, value in program.environment.items():
            command += ["--setenv", name, value]
        command += ["--remount-ro", "/dev", "--remount-ro", "/"]
        # Last, so that nothing that fails before leaves them open: the session closes them.
        filter_, information = program_descriptor(), os.pipe()
        command += ["--seccomp", str(filter_), "--info-fd", str(information[1])]
        command += ["--", str(program.python.absolute()), *program.arguments]
        return PipedSession(command, {}, information=information, inherited=(filter_,))

    def _frame(self, scratch_mb: int) -> list[str]:
        size = str(scratch_mb << 20)
        # By absolute path: bwrap starts with an empty environment.
        command = [shutil.which("bwrap") or "bwrap", *self._namespaces(), "--perms", "0755", "--dir", "/etc"]
        for path in filter(os.path.islink, SYSTEM):
            command += ["--symlink", str(Path(path).readlink()), path]
        for mount in system_mounts():
            command += ["--ro-bind", str(mount.source), mount.target]
        # The kernel's message queues outlive their processes: as files, the worker can remove them.
        command += ["--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue", "--clearenv"]
        for folder in ("/tmp", "/dev/shm"):
            command += ["--perms", "1777", "--size", size, "--tmpfs", folder]
        return command

    def _namespaces(self) -> list[str]:
        shared = NAMESPACE_OPTIONS.split()
        if self._user_namespace:
            return ["--unshare-user", "--uid", "1000", "--gid", "1000", *shared]
        return [*shared, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_KILL"]

    def _advice(self, errors: str) -> str:
        advice = "user namespaces may be disabled, see `sysctl -a | grep userns`"
        if Path("/.dockerenv").exists():
            advice = "inside a container it needs --security-opt seccomp=unconfined or the capability SYS_ADMIN"
        return f"a trial start failed ({errors or 'no message'}): {advice}"
