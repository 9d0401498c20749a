"""Which folders of this machine an interpreter needs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from regrade.datasets.errors import UserError

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
)
"""Programs and shared libraries; /etc is not shown, since it may hold secrets."""


def plain_path(python: Path) -> Path:
    """The path at which an interpreter is started: absolute, and by names alone, in a sandbox as well as outside.

    A sandbox shows folders where they seem to lie and none of the links to them, so that `..` leads elsewhere there,
    if anywhere. The link `bin/python` of a virtual environment stays: by it Python finds the environment. One that
    lies in no environment is followed, so that nothing of its folder, somebody's home perhaps, has to be shown.
    """
    path = python.absolute()
    if not path.exists():
        return path  # who starts it says so
    real = path.resolve()
    folder = path.parent.resolve() if path.parent.name == ".." else path.parent.parent.resolve() / path.parent.name
    if not any((parent / "pyvenv.cfg").is_file() for parent in (folder, folder.parent)):
        return real if real.name.startswith("python") else folder / path.name  # else a program that looks at its name
    plain = Path(os.path.normpath(path))
    return plain if _leads_to(real, plain) else folder / path.name


def _leads_to(real: Path, plain: Path) -> bool:
    """Where links are followed by their texts, as if no folder on the way were one."""
    while plain.is_symlink():
        plain = Path(os.path.normpath(plain.parent / plain.readlink()))
    return plain.exists() and plain.samefile(real)


def interpreter_folders(python: Path) -> tuple[Path, ...]:
    """Folders outside the system's own that `python` reads: its prefixes and those that hold its links, outermost only.

    Raises:
        UserError: `python` does not run.
    """
    program = (
        "import json, sys; print(json.dumps([sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]))"
    )
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"the interpreter {str(python)!r} does not run ({error}): give the path of a working Python 3.11+"
        ) from error
    found = {Path(path) for path in json.loads(answer.stdout)}
    found |= {path.resolve() for path in found}
    link = python.absolute()
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        if not any(link.is_relative_to(folder) for folder in found):
            found.add(link.parent)  # and not what is beside it, such as the rest of ~/.local
    outside = {path for path in found if path != Path("/") and not any(path.is_relative_to(top) for top in SYSTEM)}
    return tuple(sorted(path for path in outside if not any(other in path.parents for other in outside)))


class Interpreters:
    """The folders of interpreters, each asked once."""

    def __init__(self) -> None:
        self._found: dict[Path, tuple[Path, ...]] = {}

    def __call__(self, python: Path) -> tuple[Path, ...]:
        if python not in self._found:
            self._found[python] = interpreter_folders(python)
        return self._found[python]
