"""Docker images in which the tests of a task run, and the files of a repository that lies in one.

Reading files starts no container, so no code of an image runs here.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from regrade.datasets.errors import UserError

PYTEST = "pytest"


class ReaderTraits(NamedTuple):
    """What a result reader reads, as far as tasks and assurance levels depend on it."""

    needs_command: bool = True
    """Does the task name the test command?"""
    is_sealed: bool = False
    """Do the outcomes leave by a channel that ordinary output does not reach?"""
    has_report: bool = False
    """Does the command write a report to the path `{report}`?"""


READERS: Mapping[str, ReaderTraits] = MappingProxyType(
    {
        PYTEST: ReaderTraits(needs_command=False, is_sealed=True),
        "unittest": ReaderTraits(is_sealed=True),
        "junit": ReaderTraits(is_sealed=True, has_report=True),
        "pytest-log": ReaderTraits(),
        "unittest-log": ReaderTraits(),
        "go": ReaderTraits(),
        "tap": ReaderTraits(),
        "cargo": ReaderTraits(),
    }
)
"""Name of each result reader: `evaluators/execution/result_readers.py` reads them."""
IMAGES = "images"
"""Name of the folder of the cache with repositories that were read from images."""
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
LARGEST_FILES = 4 << 30
"""Bytes of a repository in an image."""


@dataclass(frozen=True, kw_only=True)
class ContainerImage:
    """A Docker image, and how the tests of a repository run in it."""

    name: str
    """Its name or id; it must be on this machine, because nothing is pulled."""
    workdir: str
    """The folder of the image where the repository belongs: the task's files are mounted there. Empty: the image's own
    working directory."""
    user: str = ""
    """Name or id of the user that runs the tests; empty: an unprivileged user id of the run's own."""
    activate: str = ""
    """Shell lines before every command, such as `source /opt/miniconda3/bin/activate testbed`."""
    setup: str = ""
    """Shell lines that run once for each patch, before the tests."""
    command: str = ""
    """Shell lines that run the tests; `{files}` stands for the test files, `{report}` for the path of the report."""
    reader: str = PYTEST
    """How the outcomes are read: one of `READERS`."""
    environment: tuple[tuple[str, str], ...] = ()
    """Further environment variables."""

    @property
    def may_be_warm(self) -> bool:
        """Could one interpreter run the tests of many patches, if the one of the image can?"""
        return self.reader == PYTEST and not (self.command or self.setup or self.user)

    @property
    def traits(self) -> ReaderTraits:
        return READERS[self.reader]


def engine(timeout: float) -> Any:
    """A client of the Docker engine. Raises UserError: there is none; with the remedy."""
    try:
        import docker
    except ImportError as error:
        raise UserError(
            "the Python package `docker` is not installed: run pip install '.[docker]' in the checkout of Regrade"
        ) from error
    try:
        client = docker.APIClient(timeout=timeout, **docker.utils.kwargs_from_env())
        client.ping()
    except docker.errors.DockerException as error:
        raise UserError("no Docker engine answers: start one (`dockerd`) or set $DOCKER_HOST") from error
    return client


def inspected(client: Any, name: str) -> dict[str, Any]:
    """The engine's description of an image. Raises UserError: it is not on this machine."""
    import docker

    try:
        description: dict[str, Any] = client.inspect_image(name)
    except docker.errors.ImageNotFound as error:
        raise UserError(f"the image {name!r} is not on this machine: docker pull {name}") from error
    except docker.errors.DockerException as error:
        raise UserError(f"the image {name!r} can't be examined: {str(error).strip()[:200]}") from error
    return description


def repository_in(name: str, workdir: str, cache: Path) -> Path:
    """The files below a folder of an image, without links and without version control; copied once for each image.

    Args:
        workdir: empty: the image's own working directory.

    Raises:
        UserError: there is no engine, no such image or no such folder; or its files are too many.
    """
    import docker

    client = engine(600)
    try:
        description = inspected(client, name)
        workdir = workdir or own_workdir(description, name)
        key = hashlib.sha256(f"{description['Id']} {workdir}".encode()).hexdigest()[:24]
        # The last part names the repository in results.
        folder = cache / IMAGES / key / (posixpath.basename(workdir) or "repository")
        if not folder.is_dir():
            _copy(client, name, workdir, folder)
        return folder
    except docker.errors.DockerException as error:
        raise UserError(f"the files of the image {name!r} can't be read: {str(error).strip()[:200]}") from error
    finally:
        client.close()


def own_workdir(description: Mapping[str, Any], name: str) -> str:
    """The working directory that an image names. Raises UserError: it names none."""
    folder = (description.get("Config") or {}).get("WorkingDir") or "/"
    if folder == "/":
        raise UserError(f"the image {name!r} names no working directory: set 'workdir' in the task's 'image'")
    return str(folder)


def _copy(client: Any, name: str, workdir: str, folder: Path) -> None:
    import docker

    container = client.create_container(image=name, command=["true"], network_disabled=True)["Id"]
    try:
        try:
            stream, status = client.get_archive(container, workdir)
        except docker.errors.NotFound as error:
            raise UserError(
                f"the image {name!r} has no folder {workdir!r}: set 'workdir' in the task's 'image'"
            ) from error
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            _extract(stream, str(status["name"]), partial, f"{workdir} of the image {name!r}")
            partial.chmod(0o755)
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # unless another process was faster
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        client.remove_container(container, force=True, v=True)


def _extract(stream: Iterator[bytes], top: str, folder: Path, what: str) -> None:
    """Writes the plain files of an archive whose names begin with `top`."""
    size = 0
    with tarfile.open(fileobj=cast(Any, _ReadableStream(stream)), mode="r|") as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            below = parts[1:] if parts and parts[0] == top else parts
            if not member.isfile() or not below or ".." in parts or not VERSION_CONTROL.isdisjoint(below):
                continue
            size += member.size
            if size > LARGEST_FILES:
                raise UserError(
                    f"{what} has more than {LARGEST_FILES >> 30} GiB of files: name the repository's folder"
                )
            target = folder.joinpath(*below)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(member)
            assert source is not None
            with target.open("wb") as file:
                shutil.copyfileobj(source, file)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)
            os.utime(target, (0, 0))


class _ReadableStream:
    """A file that reads from an iterator of blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            block = next(self._blocks, b"")
            if not block:
                break
            self._buffer += block
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data
