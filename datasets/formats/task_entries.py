"""The keys of a task in a task file (see `task_files.py`), and the image that it names."""

from __future__ import annotations

import posixpath
import re
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from regrade.datasets.container_images import PYTEST, READERS, ContainerImage
from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import Plain, Positive, Seconds
from regrade.datasets.json_text import shown
from regrade.datasets.tasks import Limits, Task

ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SYSTEM_FOLDERS = frozenset({"/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/tmp", "/usr"})
"""Folders of an image that no repository may cover."""


class TargetEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    file: Plain
    function: Plain
    first_line: Positive
    last_line: Positive


class _ShownEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    tests: tuple[Plain, ...] | UnsetType = UNSET
    names_failing_tests: bool = True


class _OriginEntry(msgspec.Struct, kw_only=True, frozen=True):
    """Further keys describe the task, and change nothing."""

    source: Plain = Task.source
    kind: Plain = ""
    repository: Plain | UnsetType = UNSET


class _LimitsEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    wall_seconds: Seconds = Limits.wall_seconds
    memory_mb: Positive = Limits.memory_mb
    processes: Positive = Limits.processes
    file_mb: Positive = Limits.file_mb


class _ImageEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    name: Plain
    workdir: Plain = ""
    user: Plain = ""
    activate: Plain = ""
    setup: Plain = ""
    command: Plain = ""
    reader: Plain = PYTEST
    environment: dict[Plain, Plain] = msgspec.field(default_factory=dict)


class TaskEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    id: Plain
    instruction: Plain
    fail_to_pass: tuple[Plain, ...]
    repository: Plain | UnsetType = UNSET
    package: Plain | UnsetType = UNSET
    base_patch: Plain | UnsetType = UNSET
    pass_to_pass: tuple[Plain, ...] | UnsetType = UNSET
    reference: Plain | UnsetType = UNSET
    failure: Plain = ""
    difficulty: Plain = ""
    target: TargetEntry | UnsetType = UNSET
    python_path: tuple[Plain, ...] | UnsetType = UNSET
    paths: tuple[Plain, ...] | UnsetType = UNSET
    options: tuple[Plain, ...] | UnsetType = UNSET
    requirements: tuple[Plain, ...] | UnsetType = UNSET
    image: _ImageEntry | UnsetType = UNSET
    limits: _LimitsEntry = _LimitsEntry()
    shown: _ShownEntry = _ShownEntry()
    suite: Plain | UnsetType = UNSET
    unnamed: tuple[Plain, ...] = ()
    assurance: Literal["", "tripwired", "out-of-process", "held-out"] = ""
    split: Plain = ""
    wrong_fix: Plain | UnsetType = UNSET
    origin: _OriginEntry = _OriginEntry()


def image_of(entry: TaskEntry, where: str) -> ContainerImage | None:
    """The image of an entry; None: it names none. Raises UserError: a key of it is wrong; with the remedy."""
    image = entry.image
    if image is UNSET:
        return None
    if entry.requirements is not UNSET:
        raise UserError(f"{where}: 'image' holds the environment of the tests: leave the key 'requirements' out")
    if image.reader not in READERS:
        raise UserError(f"{where}, image: 'reader' is {shown(image.reader)}: choose one of {', '.join(READERS)}")
    traits = READERS[image.reader]
    if traits.needs_command and not image.command.strip():
        raise UserError(
            f"{where}, image: the reader {image.reader!r} needs 'command', the shell lines that run the tests"
        )
    if traits.has_report and "{report}" not in image.command:
        raise UserError(
            f"{where}, image: the reader {image.reader!r} reads a file: 'command' must pass its path, {{report}}, to "
            "the program that writes it"
        )
    if image.workdir and (not image.workdir.startswith("/") or posixpath.normpath(image.workdir) in SYSTEM_FOLDERS):
        raise UserError(
            f"{where}, image: 'workdir' is {shown(image.workdir)}: set the absolute path of the repository in the image"
        )
    name = next((name for name in image.environment if not ENVIRONMENT_NAME.fullmatch(name)), None)
    if name is not None:
        raise UserError(f"{where}, image: 'environment' names {shown(name)}, which is no name of a variable")
    return ContainerImage(
        name=image.name,
        workdir=posixpath.normpath(image.workdir) if image.workdir else "",
        user=image.user,
        activate=image.activate,
        setup=image.setup,
        command=image.command,
        reader=image.reader,
        environment=tuple(sorted(image.environment.items())),
    )
