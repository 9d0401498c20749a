"""Docker: containers without capabilities, hardened as far as the engine allows. Starts in about half a second."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from regrade.datasets.process_identity import is_gone, this_process
from regrade.datasets.tasks import Limits
from regrade.evaluators.sandboxes import system_calls
from regrade.evaluators.sandboxes.base import Mount, Program, SandboxError
from regrade.evaluators.sandboxes.candidate_users import new_candidate_users
from regrade.evaluators.sandboxes.interpreters import SYSTEM, Interpreters, system_mounts
from regrade.evaluators.sandboxes.piped import is_ready

LABEL = "org.regrade.worker"
OWNER = "org.regrade.owner"
HOST_IMAGE = "regrade-host"
TRIAL_SECONDS = 30.0
STANDARD_STREAMS = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
WORKER_MEMORY_MB = 256
"""Memory of the worker itself, beside the candidate's."""


class Docker:
    """One container a worker: no network, no capabilities, read-only, limited; under gVisor if
    the engine has it and root starts it.

    Without an image name it needs no registry: it mounts this machine's /usr, libraries and interpreters read-only into
    an empty image, so that tests run by the same interpreter as in the other sandboxes. With an image (`docker:IMAGE`),
    that image's `python3` runs, and must have pytest.
    """

    isolated = True
    alone = True

    def __init__(self, image: str = "") -> None:
        self._folders = Interpreters()
        self.image = image
        self.name = f"docker:{image}" if image else "docker"

    @property
    def is_gvisor(self) -> bool:
        """Do its containers run under gVisor?"""
        import docker

        return _runtime(docker.APIClient(timeout=20, **docker.utils.kwargs_from_env())) is not None

    def candidate_users(self) -> range:
        # As for bubblewrap: only root can run candidates under user ids of their own.
        return new_candidate_users() if os.geteuid() == 0 else range(0)

    def problem(self) -> str:
        try:
            import docker
        except ImportError:
            return "the Python package `docker` is not installed: pip install docker"
        try:
            client = docker.APIClient(timeout=20, **docker.utils.kwargs_from_env())
            client.ping()
        except docker.errors.DockerException as error:
            reason = "" if "No such file" in str(error) else f" ({_first_line(error)})"
            return f"no Docker engine answers{reason}: start one (`dockerd`) or set $DOCKER_HOST"
        try:
            _remove_leftovers(client)
            session = ContainerSession(
                client,
                self._configuration(
                    client, ["/bin/echo", "works"], [], Program(python=Path("/"), arguments=(), mounts=())
                ),
            )
        except (docker.errors.DockerException, SandboxError, OSError) as error:
            return f"a trial container did not start: {_first_line(error)}"
        try:
            answer = session.receive(TRIAL_SECONDS)
            return "" if answer.strip() == b"works" else f"a trial container failed: {session.errors or answer!r}"
        except TimeoutError:
            return f"a trial container did not answer within {TRIAL_SECONDS:g} s"
        finally:
            session.close()

    def seen_at(self, mount: Mount) -> str:
        return mount.target

    def start(self, program: Program) -> ContainerSession:
        import docker

        folders = [] if self.image else [Mount(folder, str(folder)) for folder in self._folders(program.python)]
        try:
            client = docker.APIClient(timeout=60, **docker.utils.kwargs_from_env())
            mounts = [*folders, *program.mounts]
            command = self._command(program, is_gvisor=_runtime(client) is not None)
            return ContainerSession(client, self._configuration(client, command, mounts, program))
        except docker.errors.DockerException as error:
            raise SandboxError(f"the container did not start: {_first_line(error)}") from error

    def _command(self, program: Program, *, is_gvisor: bool) -> list[str]:
        python = "python3" if self.image else str(program.python.absolute())
        if is_gvisor:
            return system_calls.filtered_in_gvisor(python, program.arguments)
        return [python, *program.arguments]

    def _configuration(self, client: Any, command: list[str], mounts: list[Mount], program: Program) -> dict[str, Any]:
        from docker.types import Mount as Bind
        from docker.types import Ulimit

        system = [] if self.image else system_mounts()
        binds = [
            Bind(mount.target, str(mount.source.absolute()), type="bind", read_only=not mount.writable)
            for mount in [*system, *mounts]
        ]
        memory = (program.limits.memory_mb + WORKER_MEMORY_MB) << 20
        is_root = os.geteuid() == 0
        user = "0:0" if is_root else f"{os.getuid()}:{os.getgid()}"
        host = client.create_host_config(
            **hardening(client, program.limits),
            read_only=True,
            mounts=binds,
            cap_add=["SETUID", "SETGID", "KILL"] if is_root else [],
            mem_limit=memory,
            memswap_limit=memory,
            tmpfs={"/tmp": f"rw,nosuid,nodev,mode=1777,size={program.scratch_mb}m"},
            auto_remove=True,
            ulimits=[Ulimit(name="nofile", soft=1024, hard=1024), Ulimit(name="core", soft=0, hard=0)],
        )
        return {
            "image": self.image or _host_image(client),
            "command": command,
            "entrypoint": [],
            "user": user,
            "hostname": "sandbox",
            "environment": dict(program.environment),
            "stdin_open": True,
            "detach": False,
            "host_config": host,
            "labels": labels(),
            "working_dir": "/",
        }


def hardening(client: Any, limits: Limits) -> dict[str, Any]:
    """What every container has in common: no network, no capabilities, filtered system calls, few processes."""
    return {
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", f"seccomp={system_calls.profile()}"],
        "pids_limit": max(256, 2 * limits.processes),
        "shm_size": 64 << 20,
        "ipc_mode": "private",
        "runtime": _runtime(client),
    }


def labels() -> dict[str, str]:
    """Labels by which containers of a killed process are found and removed."""
    return {LABEL: "1", OWNER: this_process()}


class Frames:
    """The standard output and error of a container, as the engine's stream multiplexes them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.socket: socket.socket = getattr(stream, "_sock", stream)
        self._buffer = b""

    def next(self, deadline: float) -> tuple[int, bytes]:
        """The number of the stream (1: output, 2: error) and some bytes of it; no bytes at the end.

        Raises TimeoutError at the deadline (of `time.monotonic`). Bytes received before that stay buffered.
        """
        header = self._read(8, deadline)
        if len(header) < 8:
            return 0, b""
        kind, size = struct.unpack(">BxxxL", header)
        try:
            return kind, self._read(size, deadline)
        except TimeoutError:
            self._buffer = header + self._buffer
            raise

    def _read(self, size: int, deadline: float) -> bytes:
        """Exactly `size` bytes, or none at the end."""
        while len(self._buffer) < size:
            if not is_ready(self.socket.fileno(), deadline - time.monotonic()):
                raise TimeoutError
            block = self.socket.recv(1 << 18)
            if not block:
                return b""
            self._buffer += block
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def close(self) -> None:
        for closing in (self.socket, self._stream):
            with contextlib.suppress(OSError):
                closing.close()


class ContainerSession:
    """Communicates with the container's first process over its standard streams.

    The engine closes the container's standard input when this process exits, for any reason; the worker then exits, and
    the engine removes the container.
    """

    def __init__(self, client: Any, configuration: dict[str, Any]) -> None:
        self._client = client
        self._errors = b""
        self._closed = False
        self._id = client.create_container(**configuration)["Id"]
        try:
            self._frames = Frames(client.attach_socket(self._id, params=STANDARD_STREAMS))
            client.start(self._id)
        except Exception:
            self._remove()
            raise

    def send(self, data: bytes) -> None:
        try:
            self._frames.socket.settimeout(60.0)
            self._frames.socket.sendall(data)
        except OSError as error:
            raise SandboxError(f"the container has exited: {self.errors or error}") from error

    def receive(self, timeout: float) -> bytes:
        """Bytes of standard output; frames of standard error are stored separately."""
        deadline = time.monotonic() + timeout
        while True:
            kind, data = self._frames.next(deadline)
            if kind != 2:
                return data
            self._errors = (self._errors + data)[-2000:]

    def kill(self) -> None:
        if not self._closed:
            self._remove()

    def close(self) -> None:
        if self._closed:
            return
        self._remove()
        self._closed = True
        self._frames.close()
        with contextlib.suppress(OSError):
            self._client.close()

    @property
    def errors(self) -> str:
        return self._errors.decode("utf-8", "replace").strip()

    def _remove(self) -> None:
        import docker

        with contextlib.suppress(docker.errors.DockerException, OSError):
            self._client.remove_container(self._id, force=True, v=True)


def _host_image(client: Any) -> str:
    """An image that contains only this machine's top-level links (/lib -> usr/lib); created if it is missing."""
    import docker

    content = host_archive()
    name = f"{HOST_IMAGE}:{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        client.inspect_image(name)
    except docker.errors.ImageNotFound:
        client.import_image_from_data(content, repository=HOST_IMAGE, tag=name.partition(":")[2])
    return name


def host_archive() -> bytes:
    """The image as a tar archive; the same bytes for the same links."""
    data = io.BytesIO()
    import tarfile

    with tarfile.open(fileobj=data, mode="w") as archive:
        for path in SYSTEM:
            if Path(path).is_symlink():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.type, entry.linkname = tarfile.SYMTYPE, str(Path(path).readlink())
                archive.addfile(entry)
        # A tmpfs has the mode of the folder that it covers.
        for folder, mode in (("tmp", 0o1777), ("etc", 0o755), ("usr", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
    return data.getvalue()


def _runtime(client: Any) -> str | None:
    """gVisor if the engine has it; with candidates of one user id, from which it does not protect the worker, not."""
    return "runsc" if os.geteuid() == 0 and "runsc" in (client.info().get("Runtimes") or {}) else None


def _remove_leftovers(client: Any) -> None:
    """Remove containers whose owner was killed before it removed them."""
    import docker

    for container in client.containers(all=True, filters={"label": LABEL}):
        if is_gone(container["Labels"].get(OWNER, "")):
            with contextlib.suppress(docker.errors.DockerException):
                client.remove_container(container["Id"], force=True, v=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
