"""Podman: the containers of Docker without a daemon and without the package `docker`. Starts in about a second."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from regrade.datasets.process_identity import is_gone
from regrade.evaluators.sandboxes import system_calls
from regrade.evaluators.sandboxes.base import Mount, Program, SandboxError
from regrade.evaluators.sandboxes.candidate_users import new_candidate_users
from regrade.evaluators.sandboxes.docker import HOST_IMAGE, LABEL, OWNER, WORKER_MEMORY_MB, host_archive, labels
from regrade.evaluators.sandboxes.interpreters import HOSTS, Interpreters, system_mounts
from regrade.evaluators.sandboxes.piped import PipedSession
from regrade.evaluators.sandboxes.trial import WORKS, problem_of_trial

CALL_SECONDS = 120.0
"""Longest time of a call of `podman`, of which none waits for a candidate."""
MOST_PROCESSES = 32_768
"""Processes of one user: a container's limit must not exceed that of Podman, which lowers its own. What counts for a
candidate is the limit of its control group."""
FIXED = """
    --rm --interactive --network none --no-hosts --hostname sandbox --http-proxy=false --passwd=false
    --cap-drop all --cap-add SETUID --cap-add SETGID --cap-add KILL --security-opt no-new-privileges --user 0:0
    --ipc private --shm-size 64m --read-only --read-only-tmpfs=false --log-driver none --workdir / --pull never
    --ulimit nofile=1024:1024 --ulimit core=0:0
"""
"""Options of `podman run` that do not depend on the program: the hardening of `Docker`, as root."""


class Podman:
    """One container a worker, as `Docker` has them: no network, no capabilities but to change its user and to kill,
    read-only, the same filter of system calls, limited. Each candidate has a user id of its own.

    Without an image name it needs no registry, as Docker: it mounts this machine's interpreters into an empty image.
    With an image (`podman:IMAGE`), that image's `python3` runs, and must have pytest.

    Podman has no daemon that would end a container whose owner is killed: the container's standard input then closes,
    upon which the worker exits. It needs root: in another user's containers, candidates could have no user ids of their
    own.
    """

    isolated = True
    alone = True

    def __init__(self, image: str = "") -> None:
        self._folders = Interpreters()
        self.image = image
        self.name = f"podman:{image}" if image else "podman"
        self._filter: IO[str] | None = None

    def candidate_users(self) -> range:
        return new_candidate_users()

    def problem(self) -> str:
        return problem_of_trial(
            "podman", "apt-get install podman (or dnf, pacman)", self._trial, "podman run --rm IMAGE true"
        )

    def _trial(self) -> PodmanSession:
        _remove_leftovers()
        program = Program(python=Path("/"), arguments=(), mounts=())
        return self._session(["/bin/echo", WORKS.decode()], [], program)

    def seen_at(self, mount: Mount) -> str:
        return mount.target

    def start(self, program: Program) -> PodmanSession:
        folders = [] if self.image else [Mount(folder, str(folder)) for folder in self._folders(program.python)]
        python = "python3" if self.image else str(program.python.absolute())
        return self._session([python, *program.arguments], [*folders, *program.mounts], program)

    def _session(self, command: Sequence[str], mounts: Sequence[Mount], program: Program) -> PodmanSession:
        system = [HOSTS] if self.image else system_mounts()
        container = f"regrade-{secrets.token_hex(8)}"
        options = [
            *FIXED.split(),
            *("--name", container, "--security-opt", f"seccomp={self._filter_file()}"),
            *_limits(program),
            *(f"--mount={_bind(mount)}" for mount in (*system, *mounts)),
            *(f"--env={name}={value}" for name, value in program.environment.items()),
            *(f"--label={name}={value}" for name, value in labels().items()),
        ]
        image = self.image or _host_image()
        entry = json.dumps(list(command))
        return PodmanSession([_podman(), "run", *options, "--entrypoint", entry, image], container)

    def _filter_file(self) -> str:
        """The filter of system calls: where Docker's client sends it, Podman reads a file."""
        if self._filter is None:
            file = tempfile.NamedTemporaryFile("w", prefix="regrade-filter-", suffix=".json")  # noqa: SIM115
            file.write(system_calls.profile())
            file.flush()
            self._filter = file
        return self._filter.name


class PodmanSession(PipedSession):
    """The client `podman run`, through which the container's streams pass."""

    def __init__(self, command: Sequence[str], container: str) -> None:
        super().__init__(command, _environment())
        self._container = container

    def kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(SandboxError):
                _call("rm", "--force", "--time=0", "--ignore", self._container)
        super().kill()  # the client, if there was no container yet


def _limits(program: Program) -> Iterator[str]:
    import resource  # there is none on Windows, where this module is imported all the same

    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = MOST_PROCESSES if hard == resource.RLIM_INFINITY else min(hard, MOST_PROCESSES)
    memory = f"{program.limits.memory_mb + WORKER_MEMORY_MB}m"
    yield f"--ulimit=nproc={processes}:{processes}"
    yield f"--pids-limit={max(256, 2 * program.limits.processes)}"
    yield from (f"--memory={memory}", f"--memory-swap={memory}")
    yield f"--tmpfs=/tmp:rw,nosuid,nodev,mode=1777,size={program.scratch_mb}m"


def _bind(mount: Mount) -> str:
    """The value of `--mount`, which Podman reads as a line of CSV."""
    line = io.StringIO()
    access = "rw" if mount.writable else "ro"
    fields = ("type=bind", f"source={mount.source.absolute()}", f"target={mount.target}", access)
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _host_image() -> str:
    """An image with only this machine's top-level links, see `docker.host_archive`; created if it is missing."""
    content = host_archive()
    name = f"localhost/{HOST_IMAGE}:{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        _call("image", "exists", name)
    except SandboxError:
        _call("import", "--quiet", "-", name, given=content)
    return name


def _remove_leftovers() -> None:
    """Remove containers whose owner was killed, and whose worker did not exit by itself."""
    for container in json.loads(_call("ps", "--all", f"--filter=label={LABEL}", "--format=json") or b"[]") or []:
        if is_gone((container.get("Labels") or {}).get(OWNER, "")):
            with contextlib.suppress(SandboxError):
                _call("rm", "--force", "--time=0", "--ignore", container["Id"])


def _call(*arguments: str, given: bytes = b"") -> bytes:
    """The output of a call of `podman`. Raises SandboxError: it failed."""
    try:
        done = subprocess.run(
            [_podman(), *arguments], input=given, capture_output=True, timeout=CALL_SECONDS, env=_environment()
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"`podman {arguments[0]}` failed: {error}") from error
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise SandboxError(f"`podman {arguments[0]}` failed: {reason[-300:] or f'exit code {done.returncode}'}")
    return done.stdout


def _environment() -> dict[str, str]:
    """No proxies and no secrets: Podman passes some variables on."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "XDG_RUNTIME_DIR", "TMPDIR") if name in os.environ}


def _podman() -> str:
    return shutil.which("podman") or "podman"
