"""Builds the wheel of a repository in a sandbox, without network: its metadata, and the files that the build generates.

The build of a repository is code that nobody has checked. It runs on a copy of the files, sees no other file of this
machine, and only the wheel that it writes is read, as an archive.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from regrade.datasets.patches import is_safe
from regrade.datasets.tasks import Limits
from regrade.evaluators.inside import wheels
from regrade.evaluators.sandboxes.base import Mount, Program, Sandbox, SandboxError

BUILD_SECONDS = 600.0
SCRATCH_MB = 2048
LARGEST_WHEEL_MB = 200
"""Of all files of a wheel together, unpacked."""
_PROGRAM = """
import json, os, shutil, sys, tempfile
programs, source, out = sys.argv[1:]
sys.path.insert(0, programs)
import wheels
sys.path.pop(0)
answer = os.dup(1)
os.dup2(2, 1)
folder = os.path.join(tempfile.mkdtemp(), "project")
shutil.copytree(source, folder, symlinks=True)
os.chdir(folder)
sys.path.insert(0, folder)
try:
    result = {"wheel": str(wheels.backend().build_wheel(out))}
except BaseException as error:
    result = {"error": f"{type(error).__name__}: {error}"}
os.write(answer, json.dumps(result).encode() + b"\\n")
"""
VERSION_VARIABLES = (
    "SETUPTOOLS_SCM_PRETEND_VERSION", "PBR_VERSION", "PDM_BUILD_SCM_VERSION", "UV_DYNAMIC_VERSIONING_BYPASS",
    "POETRY_DYNAMIC_VERSIONING_BYPASS", "VERSIONINGIT_DEFAULT_VERSION",
)  # fmt: skip
"""Variables from which the backends that read a version from git take it where there is no history."""


@dataclass(frozen=True)
class ProjectWheel:
    """What the build of a repository yields."""

    error: str = ""
    """Why there is no wheel; empty: there is one."""
    name: str = ""
    """Normalised."""
    requires: tuple[str, ...] = ()
    """Its requirements, those of extras with a marker."""
    extras: tuple[str, ...] = ()
    licence: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Path -> content of each file in the wheel."""

    def required_for(self, extras: Collection[str] = ()) -> tuple[str, ...]:
        """The requirements with these extras, for the current Python. An extra may name others of the same project."""
        chosen: list[str] = []
        wanted = ["", *extras]
        for extra in wanted:  # the loop appends to it
            for text in self.requires:
                requirement = Requirement(text)
                if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                    continue
                if canonicalize_name(requirement.name) == self.name:
                    wanted += sorted(requirement.extras.difference(wanted))
                    continue
                requirement.marker = None
                chosen.append(str(requirement))
        return tuple(dict.fromkeys(chosen))


def build_project_wheel(root: Path, python: Path, sandbox: Sandbox, version: str = "0") -> ProjectWheel:
    """The wheel of the repository at `root`, built by its own backend.

    Args:
        python: an interpreter with the requirements of the build.
        version: for backends that read it from the history, which is not there.
    """
    with tempfile.TemporaryDirectory(prefix="regrade-wheel-") as name:
        out = Path(name)
        out.chmod(0o777)
        try:
            answer = _run(root, python, sandbox, out, version)
        except (SandboxError, TimeoutError, OSError) as error:
            return ProjectWheel(error=str(error) or f"the build took longer than {BUILD_SECONDS:g} s")
        if "error" in answer:
            return ProjectWheel(error=" ".join(str(answer["error"]).split())[:300])
        archives = sorted(out.glob("*.whl"))
        if len(archives) != 1:
            return ProjectWheel(error="the build wrote no wheel")
        return _read(archives[0])


def _run(root: Path, python: Path, sandbox: Sandbox, out: Path, version: str) -> dict[str, object]:
    mounts = (
        Mount(Path(wheels.__file__), "/programs/wheels.py"),
        Mount(root, "/source"),
        Mount(out, "/out", writable=True),
    )
    programs, source, target = (sandbox.seen_at(mount) for mount in mounts)
    program = Program(
        python=python,
        arguments=("-s", "-c", _PROGRAM, str(PurePosixPath(programs).parent), source, target),
        mounts=mounts,
        environment={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            **dict.fromkeys(VERSION_VARIABLES, version),
        },
        limits=Limits(wall_seconds=BUILD_SECONDS),
        scratch_mb=SCRATCH_MB,
    )
    session = sandbox.start(program)
    try:
        output, deadline = b"", time.monotonic() + BUILD_SECONDS
        while b"\n" not in output and len(output) < 1 << 20:
            more = session.receive(max(0.1, deadline - time.monotonic()))
            if not more:
                raise SandboxError(f"the build ended without a result: {session.errors[-300:] or 'no message'}")
            output += more
        answer = json.loads(output.partition(b"\n")[0])
        return answer if isinstance(answer, dict) else {"error": "the build wrote no result"}
    except ValueError as error:
        raise SandboxError(f"the build wrote no result: {error}") from error
    finally:
        session.close()


def _read(archive: Path) -> ProjectWheel:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [each for each in opened.infolist() if not each.is_dir() and is_safe(each.filename)]
            if sum(each.file_size for each in members) > LARGEST_WHEEL_MB << 20:
                return ProjectWheel(error=f"the wheel is larger than {LARGEST_WHEEL_MB} MB")
            files = {each.filename: opened.read(each) for each in members}
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        return ProjectWheel(error=f"the build wrote no valid wheel ({error})")
    metadata = next((text for path, text in files.items() if re.fullmatch(r"[^/]+\.dist-info/METADATA", path)), b"")
    message = Parser().parsestr(metadata.decode("utf-8", "replace"), headersonly=True)
    return ProjectWheel(
        name=canonicalize_name(message.get("Name", "")),
        requires=tuple(_requirements(message)),
        extras=tuple(message.get_all("Provides-Extra", [])),
        licence=_licence(message),
        files=files,
    )


def _requirements(message: Message) -> Iterator[str]:
    for text in message.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.url is None:
            yield text


def _licence(message: Message) -> str:
    """An expression, a classifier, or the first line of the text."""
    expression = message.get("License-Expression", "")
    classifiers = [text for text in message.get_all("Classifier", []) if text.startswith("License ::")]
    text = str(message.get("License", "")).strip().split("\n")[0]
    return (
        expression or (text if len(text) < 60 else "") or (classifiers[0].rpartition(":: ")[2] if classifiers else "")
    )


def generated_files(wheel: ProjectWheel, root: Path, python_path: tuple[str, ...]) -> dict[str, bytes]:
    """Path in the repository -> content of the files of the wheel that the repository lacks and its tests may need:
    generated modules, compiled extensions, and the metadata of the distribution."""
    found: dict[str, bytes] = {}
    for path, content in wheel.files.items():
        top, _, rest = path.partition("/")
        if top.endswith(".dist-info"):
            if rest in ("METADATA", "entry_points.txt", "top_level.txt"):
                found[_below(python_path[0], path)] = content
        elif not top.endswith(".data"):
            folder = next((each for each in python_path if (root / each / top).exists()), None)
            if folder is not None and not (root / folder / path).exists():
                found[_below(folder, path)] = content
    return found


def _below(folder: str, path: str) -> str:
    return path if folder == "." else f"{folder}/{path}"
