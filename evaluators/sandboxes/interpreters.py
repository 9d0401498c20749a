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


def interpreter_folders(python: Path) -> tuple[Path, ...]:
    """Folders outside the system's own that `python` reads: its prefixes and the paths of its links, outermost only.

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
            found.add(link.parent.parent)
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
