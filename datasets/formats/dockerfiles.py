"""Dockerfiles for the environments of tasks: an interpreter, locked requirements, and git for patches.

Nothing is executed: what an interpreter has installed is read from the metadata of its packages.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task

WORKDIR = "/testbed"
"""As in the images of SWE-bench."""
CONFIGURATION = "pyvenv.cfg"
VERSION = re.compile(r"^version(?:_info)?\s*=\s*(?P<version>\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True)
class PythonEnvironment:
    """What the tests of a task run in."""

    version: str
    """Of Python, such as `3.11`."""
    requirements: tuple[str, ...]
    """Pinned packages."""

    def dockerfile(self, steps: Sequence[str]) -> str:
        """The text of a Dockerfile that installs it and then takes some steps in `/testbed`."""
        lines = [
            f"FROM python:{self.version}-slim",
            "RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*",
            f"RUN pip install --no-cache-dir {shlex.join(self.requirements)}",
            f"WORKDIR {WORKDIR}",
            *steps,
        ]
        return "\n".join(lines) + "\n"


def python_environment(requirements: Sequence[str], where: str) -> PythonEnvironment:
    """The environment that a task's requirements name: pinned packages, an interpreter, or the current one.

    Raises:
        UserError: the interpreter has no metadata.
    """
    if len(requirements) == 1 and Path(requirements[0]).is_absolute():
        return _of_interpreter(Path(requirements[0]), where)
    current = f"{sys.version_info.major}.{sys.version_info.minor}"
    return PythonEnvironment(current, tuple(requirements) or _installed(sys.path))


def _of_interpreter(python: Path, where: str) -> PythonEnvironment:
    folder = python.parent.parent
    try:
        match = VERSION.search((folder / CONFIGURATION).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        match = None
    if match is None:
        raise UserError(
            f"{where}: its interpreter {python} is in no virtual environment, so its packages are unknown: set "
            "'requirements' to pinned packages"
        )
    return PythonEnvironment(
        match["version"], _installed([str(each) for each in folder.glob("lib/python*/site-packages")])
    )


def _installed(path: Sequence[str]) -> tuple[str, ...]:
    """`name==version` of each installed package that was not installed from a folder or a URL."""
    pinned = {
        f"{package.metadata['Name']}=={package.version}"
        for package in distributions(path=list(path))
        if package.metadata["Name"] and package.read_text("direct_url.json") is None
    }
    return tuple(sorted(pinned, key=str.lower))


def variables_of_tests(task: Task) -> dict[str, str]:
    """Environment variables of a run of the task's tests in a container: as in this project's own sandboxes."""
    folders = [posixpath.normpath(f"{WORKDIR}/{folder}") for folder in task.suite.python_path]
    return {"PYTHONPATH": ":".join(folders), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def pytest_arguments(task: Task) -> list[str]:
    """Arguments of pytest that run the files of the task's tests."""
    files = sorted({file_of(test) for test in task.tests})
    return [
        *task.suite.options,
        "--tb=no",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        *files,
    ]


def protected_paths(task: Task) -> list[str]:
    """The files of the base that the verdict takes from there, whatever a patch does to them."""
    return [path for path in task.base.paths() if task.suite.protects(path)]
