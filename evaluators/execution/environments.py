"""The interpreters that tests run in: this one, or a virtual environment made once per set of pinned requirements."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from regrade.datasets.caches import FREE_SPACE
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import TestSuite
from regrade.evaluators.execution import installed
from regrade.evaluators.sandboxes.interpreters import plain_path

ENVIRONMENTS = "environments"
"""Name of the folder of the cache that environments are made in."""
COMPLETE = "complete"
"""Name of the file that says that an environment was made here and is whole."""


def python_for(requirements: tuple[str, ...], cache: Path) -> Path:
    """The interpreter for a set of pinned requirements, pytest among them; made under `cache` when missing.

    No requirements: the interpreter that runs this. A single absolute path: the interpreter there.

    Raises:
        UserError: pip could not install them; says which and why.
    """
    if not requirements:
        return plain_path(Path(sys.executable))
    if len(requirements) == 1 and requirements[0].startswith("/"):
        return plain_path(Path(requirements[0]))
    key = hashlib.sha256(json.dumps([sorted(requirements), sys.version]).encode()).hexdigest()[:16]
    folder = cache / ENVIRONMENTS / key
    python = folder / "bin" / "python"
    if not (folder / COMPLETE).exists():
        _make(requirements, folder)
    return python


def _make(requirements: Sequence[str], folder: Path) -> None:
    # A virtual environment can't be moved, so it is made in place under a lock; COMPLETE says that it is whole.
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / COMPLETE).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], "making a virtual environment")
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*install, *requirements], f"installing {', '.join(requirements)}")
        (folder / COMPLETE).touch()


def installed_packages(suite: TestSuite, root: Path) -> Path | None:
    """The folder of packages that lies in a repository without being a part of its tree; None where there is none."""
    folder = root / "node_modules"
    return folder if suite.runner == "node" and folder.is_dir() else None


@lru_cache(maxsize=16)
def toolchain(runner: str) -> Path | None:
    """The folder that a runner's program is installed in, with its `bin`; None where it lies among the system's own.

    Raises:
        UserError: there is no such program.
    """
    if runner == "pytest":
        return None
    found = shutil.which(runner)
    if found is None:
        raise UserError(f"the tests need the program {runner!r}, which is not installed: see `regrade doctor`")
    if runner == "cargo" and shutil.which("rustup"):  # what lies on the path then only chooses a toolchain
        done = subprocess.run(["rustup", "which", "cargo"], capture_output=True, text=True, timeout=60, check=False)
        found = done.stdout.strip() or found
    program = Path(found).resolve()
    return None if any(program.is_relative_to(folder) for folder in ("/usr", "/bin")) else program.parent.parent


@lru_cache(maxsize=256)
def runner_identity(runner: str, packages: Path | None) -> str:
    """Version of the program that runs the tests, and a digest of the packages that it finds; empty for pytest."""
    if runner == "pytest":
        return ""
    try:
        done = subprocess.run([runner, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"the tests need {runner!r}, which does not run here ({error}): install it") from error
    return f"{done.stdout.strip()} {installed.digest_of(packages) if packages is not None else ''}"


def pytest_plugins(python: Path) -> dict[str, str]:
    """Entry point name -> module of every pytest plugin that is installed there.

    Raises:
        UserError: the interpreter does not run, or has no pytest.
    """
    program = (
        "import importlib.metadata as m, json, pytest; "
        "print(json.dumps({e.name: e.module for e in m.entry_points(group='pytest11')}))"
    )
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", program],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": os.defpath},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"the interpreter {str(python)!r} does not run ({error}): give the path of a working Python"
        ) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"the interpreter {str(python)!r} can't import pytest ({reason}): {python} -m pip install pytest"
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _run(command: list[str], what: str) -> None:
    with tempfile.TemporaryFile() as output:
        try:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=900, check=False).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{what} failed: {error}") from error
        if code:
            output.seek(0)
            lines = [line for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
            reason = next(
                (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else f"exit {code}"
            )
            is_full = os.strerror(errno.ENOSPC) in reason
            advice = FREE_SPACE if is_full else "is the network reachable, and does every pinned version exist?"
            raise UserError(f"{what} failed: {reason} ({advice})")


def identity(python: Path) -> str:
    """Digest of the interpreter's version and of all that is installed: part of the key of stored evidence.

    Of an environment that `python_for` made, that is its distributions: it is the same on every machine. Any other may
    be edited, so there it is every file as well (see `installed.py`).

    Raises:
        UserError: `python` does not run.
    """
    return hashlib.sha256(_installed(python)).hexdigest()


def distributions(python: Path) -> tuple[str, ...]:
    """The interpreter's version, and `name==version` of all that is installed: what two machines can have in common.

    Raises:
        UserError: `python` does not run.
    """
    version, names, _ = json.loads(_installed(python))
    return (f"Python {version.split()[0]}", *names)


def _installed(python: Path) -> bytes:
    """What `installed.py` prints."""
    program = [str(Path(__file__).with_name("installed.py")), *(["--made"] if _is_made(python) else [])]
    try:
        done = subprocess.run(
            [str(python), "-I", *program], capture_output=True, timeout=120, check=True, env={"PATH": os.defpath}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"the interpreter {str(python)!r} does not run ({error}): give the path of a working Python 3.11+"
        ) from error
    return done.stdout


def _is_made(python: Path) -> bool:
    folder = python.parent.parent
    return folder.parent.name == ENVIRONMENTS and (folder / COMPLETE).is_file()
