"""Folders of this machine that an interpreter needs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.evaluators.sandboxes.base import Mount

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime"),
)
"""Programs and shared libraries, without the rest of /etc, which may contain secrets."""
HOSTS = Mount(Path(__file__).with_name("hosts"), "/etc/hosts")
"""The names in a sandbox's own network: `localhost`, at which many tests start their servers."""


def system_mounts() -> list[Mount]:
    """What a sandbox without an image of its own shows of this machine, beside interpreters; links are not mounted."""
    real = [path for path in SYSTEM if Path(path).exists() and not Path(path).is_symlink()]
    return [*(Mount(Path(path), path) for path in real), HOSTS]


def plain_path(python: Path) -> Path:
    """The start path of an interpreter, equal inside and outside a sandbox: absolute, without `..` or linked folders.

    A sandbox mounts folders at their apparent paths without the links to them, so that `..` leads elsewhere. The link
    `bin/python` of a virtual environment is preserved: Python locates the environment by it. A link outside an
    environment is resolved, so that its folder (perhaps a home folder) is not mounted.
    """
    path = python.absolute()
    if not path.exists():
        return path  # the start fails with the reason
    real = path.resolve()
    folder = path.parent.resolve() if path.parent.name == ".." else path.parent.parent.resolve() / path.parent.name
    if not any((parent / "pyvenv.cfg").is_file() for parent in (folder, folder.parent)):
        return real if real.name.startswith("python") else folder / path.name  # a program that depends on its name
    plain = Path(os.path.normpath(path))
    return plain if _leads_to(real, plain) else folder / path.name


def _leads_to(real: Path, plain: Path) -> bool:
    """Does the path lead to `real`, following links by their text, as if no parent folder were a link?"""
    while plain.is_symlink():
        plain = Path(os.path.normpath(plain.parent / plain.readlink()))
    return plain.exists() and plain.samefile(real)


def interpreter_folders(python: Path) -> tuple[Path, ...]:
    """Folders outside `SYSTEM` that `python` reads: its prefixes and the folders of its links, outermost only.

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
            f"the interpreter {str(python)!r} does not run ({error}): pass the path of a working Python 3.11+"
        ) from error
    folders = {Path(path) for path in json.loads(answer.stdout)}
    folders |= {path.resolve() for path in folders}
    link = python.absolute()
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        if not any(link.is_relative_to(folder) for folder in folders):
            folders.add(link.parent)  # not its siblings, such as the rest of ~/.local
    outside = {path for path in folders if path != Path("/") and not any(path.is_relative_to(top) for top in SYSTEM)}
    return tuple(sorted(path for path in outside if outside.isdisjoint(path.parents)))


class Interpreters:
    """Cache of the folders of interpreters."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[Path, ...]] = {}

    def __call__(self, python: Path) -> tuple[Path, ...]:
        if python not in self._folders:
            self._folders[python] = interpreter_folders(python)
        return self._folders[python]
