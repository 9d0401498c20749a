"""What an image offers for tests: a shell, the repository's folder, an interpreter that may run a warm worker.

Each image is run once to measure that. It is identified by the digest of its content, not by its name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shlex
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from regrade.datasets.container_images import ContainerImage, engine, inspected, own_workdir
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits
from regrade.evaluators import inside
from regrade.evaluators.execution.worker import ENVIRONMENT, write_programs
from regrade.evaluators.sandboxes import Mount, SandboxError
from regrade.evaluators.sandboxes.docker_images import ContainerRun, ImageContainer, ImageSandbox, activated
from regrade.evaluators.storage.digests import sealed, unsealed

PROGRAMS = "/regrade"
FACTS = "image-facts"
"""Name of the folder of the cache with the facts of each image."""
EXAMINATION_SECONDS = 120.0
UNAVAILABLE = "unavailable"
"""Identity of an image that can't be started on this machine: no stored evidence has it."""
_VERSION = "import sys; print('version=%d.%d.%d' % sys.version_info[:3])"
_WORKER = (
    f"import sys; sys.path.insert(0, {PROGRAMS!r}); import regrade.evaluators.inside.worker; "
    "from regrade.evaluators.inside import candidates; candidates.import_runner(); print('worker=works')"
)
"""All imports of a warm worker."""
_FIRST_LOOK = 'command -v bash || command -v sh; test -d "$1" && echo folder'
_INTERPRETER = f"""\
python=$(command -v python || command -v python3) || exit 0
echo "python=$python"
"$python" -c {shlex.quote(_VERSION)} || exit 0
"$python" -c 'import pytest' 2>/dev/null && echo pytest=yes
"$python" -s -P -c {shlex.quote(_WORKER)} 2>/dev/null
"""
"""Prints what the interpreter of the tests can do."""
NOT_STARTED = 126
"""Exit status of a command that the engine could not start, for example as an unknown user."""


class ImageUnavailableError(SandboxError):
    """The image can't be started on this machine, which no candidate and no task caused."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image offers."""

    id: str
    """Digest of its content."""
    workdir: str
    shell: str
    """Path of bash, or else of sh."""
    python: str = ""
    """Path of the interpreter after the activation; empty: there is none."""
    version: str = ""
    has_pytest: bool = False
    runs_worker: bool = False
    """Does the interpreter run a warm worker?"""

    def is_warm(self, image: ContainerImage) -> bool:
        """Do the tests of all patches run in one interpreter?"""
        return self.runs_worker and image.may_be_warm

    def sandbox(self, image: ContainerImage) -> ImageSandbox:
        """For a warm worker."""
        return ImageSandbox(
            image.name,
            self.id,
            workdir=self.workdir,
            shell=self.shell,
            activate=image.activate,
            environment=dict(image.environment),
        )


class ImageEnvironments:
    """The facts of images, each examined once. Thread-safe."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache / FACTS
        self._facts: dict[ContainerImage, ImageFacts] = {}
        self._lock = threading.Lock()

    def facts(self, image: ContainerImage) -> ImageFacts:
        """Raises:
        UserError: the image lacks what its task needs: the folder, an interpreter, pytest, the user.
        ImageUnavailableError: it can't be started.
        """
        with self._lock:
            if image not in self._facts:
                self._facts[image] = self._examined(image)
            return self._facts[image]

    def identity(self, image: ContainerImage) -> str:
        """Digest of its content and of all that a task says of it but its name. Raises UserError, see `facts`."""
        try:
            identity = self.facts(image).id
        except ImageUnavailableError:
            identity = UNAVAILABLE
        return repr((identity, image.workdir, image.user, image.activate, image.setup, image.command, image.reader,
                     image.environment))  # fmt: skip

    def _examined(self, image: ContainerImage) -> ImageFacts:
        try:
            client = engine(60)
            description = inspected(client, image.name)
        except UserError as error:
            raise ImageUnavailableError(str(error)) from error
        workdir = image.workdir or own_workdir(description, image.name)
        parts = (description["Id"], workdir, image.user, image.activate, image.environment, _programs_digest())
        path = self._cache / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.json"
        facts = _stored(path)
        if facts is None:
            facts = examine(image, str(description["Id"]), workdir)
            _store(path, facts)
        else:
            client.close()
        check(image, facts)
        return facts


@functools.cache
def _programs_digest() -> str:
    """Of the programs that an interpreter must be able to run."""
    files = sorted(Path(inside.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def check(image: ContainerImage, facts: ImageFacts) -> None:
    """Raises UserError: the image lacks what the result reader needs."""
    if image.reader != "pytest" or image.command:
        return
    user = image.user or "an unprivileged user"
    if not facts.python:
        raise UserError(
            f"the image {image.name!r} has no python that {user} can run{_after(image)}, which the reader 'pytest' "
            "needs: set 'activate' in the task's 'image', or 'command' and another reader"
        )
    if not facts.has_pytest:
        raise UserError(
            f"{facts.python} of the image {image.name!r} (Python {facts.version}) can't import pytest as {user}: "
            "install it in the image, or set 'activate' in the task's 'image' to the lines that make its environment "
            "active"
        )


def examine(image: ContainerImage, identity: str, workdir: str) -> ImageFacts:
    """Run the image once.

    Raises:
        UserError: it has no such folder or user, or the activation fails.
        ImageUnavailableError: it can't be started.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        mounts = [Mount(write_programs(Path(folder, "programs")), PROGRAMS)]
        try:
            container = ImageContainer(engine(60), identity, limits=Limits(), mounts=mounts, user=image.user)
            with contextlib.closing(container):
                shell = _shell_of(image, workdir, _run(container, image, "sh", "-c", _FIRST_LOOK, "regrade", workdir))
                _check_activation(image, _run(container, image, shell, "-c", image.activate or ":"))
                look = activated(shell, image.activate, ["sh", "-c", _INTERPRETER])
                found = dict(line.partition("=")[::2] for line in _run(container, image, *look).answer.splitlines())
        except SandboxError as error:
            raise ImageUnavailableError(f"the image {image.name!r} can't be started: {error}") from error
    return ImageFacts(
        id=identity,
        workdir=workdir,
        shell=shell,
        python=found["python"] if "version" in found else "",
        version=found.get("version", ""),
        has_pytest="pytest" in found,
        runs_worker="worker" in found,
    )


def _run(container: ImageContainer, image: ContainerImage, *command: str) -> ContainerRun:
    return container.execute(command, environment=tests_environment(image), seconds=EXAMINATION_SECONDS)


def _shell_of(image: ContainerImage, workdir: str, done: ContainerRun) -> str:
    """The shell of the image, by a first look into it. Raises UserError: it has no such user or folder."""
    if done.status == NOT_STARTED and image.user:
        raise UserError(f"the image {image.name!r} has no user {image.user!r}: {done.output.strip()[:200]}")
    shell: str
    shell, *folder = done.answer.splitlines() or [""]
    if not shell:
        raise SandboxError(done.output.strip()[:200] or "its shell prints nothing")
    if not folder:
        raise UserError(
            f"the image {image.name!r} has no folder {workdir!r}: set 'workdir' in the task's 'image' to the folder of "
            "the repository"
        )
    return shell


def _check_activation(image: ContainerImage, done: ContainerRun) -> None:
    if done.status:
        last = (done.output.strip().splitlines() or [f"exit status {done.status}"])[-1]
        raise UserError(f"the lines of 'activate' fail in the image {image.name!r}: {last[:200]}")


def tests_environment(image: ContainerImage) -> dict[str, str]:
    """The environment variables of a command, beside those of the image."""
    variables = {name: value for name, value in ENVIRONMENT.items() if name != "PATH"}
    return variables | dict(image.environment)


def _after(image: ContainerImage) -> str:
    return " after the lines of 'activate'" if image.activate else ""


def _stored(path: Path) -> ImageFacts | None:
    try:
        return msgspec.convert(json.loads(unsealed(path.read_text("utf-8"))), ImageFacts)
    except (OSError, ValueError):
        return None


def _store(path: Path, facts: ImageFacts) -> None:
    with contextlib.suppress(OSError):  # such as a full disk: the image is examined again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(sealed(json.dumps(msgspec.to_builtins(facts))), "utf-8")
        partial.replace(path)
