"""Interpreters of tests: the current one, or a virtual environment created once per set of pinned requirements."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from regrade.datasets.caches import FREE_SPACE
from regrade.datasets.errors import UserError
from regrade.datasets.own_environment import own_interpreter
from regrade.evaluators.execution.packages import PROGRAMS
from regrade.evaluators.sandboxes.interpreters import plain_path
from regrade.evaluators.storage.digests import sealed, unsealed

ENVIRONMENTS = "environments"
"""Name of the folder of environments in the cache."""
COMPLETE = "complete"
"""Name of the file that marks a completely created environment."""
"""Folders of a repository that may hold its virtual environment, in search order."""
INSTALLED = "installed.py"
"""Name of the program that reads the packages of the interpreter that runs it."""
ANSWER_SECONDS = 120.0
"""Longest time in which an interpreter answers a question about its packages, on a busy machine too."""
_ENVIRONMENT = {"PATH": os.defpath}
"""Environment variables of the programs that the interpreter of the tests runs here."""
PLUGINS = "plugins"
"""Name of the folder in the cache with the pytest plugins of each environment."""
_SHARED: ContextVar[dict[Path, bytes | subprocess.Popen[bytes]] | None] = ContextVar("shared", default=None)
"""Output of `installed.py` for each interpreter, or the process that writes it; None outside of `shared_lookups`."""


@contextlib.contextmanager
def shared_lookups() -> Iterator[None]:
    """Within the context, the packages of an interpreter are read once: that takes longer than a stored verdict.

    Nothing may run for long within it, because packages may be installed meanwhile: see `forget_lookups`.
    """
    if _SHARED.get() is not None:
        yield
        return
    token = _SHARED.set({})
    try:
        yield
    finally:
        forget_lookups()
        _SHARED.reset(token)


def forget_lookups() -> None:
    """Read the packages of each interpreter again, after a long operation."""
    shared = _SHARED.get() or {}
    for lookup in shared.values():
        if isinstance(lookup, subprocess.Popen):
            lookup.kill()
            lookup.communicate()
    shared.clear()


def interpreter_of(repo: Path) -> Path:
    """The interpreter that tests of a repository run with, unless another one is named."""
    return plain_path(own_interpreter(repo) or Path(sys.executable))


def look_ahead(python: Path) -> None:
    """Start to read the packages of an interpreter, while this process does what comes before it needs them.

    Within `shared_lookups`, whose first lookup then waits for the result.
    """
    shared = _SHARED.get()
    if shared is not None and python not in shared:
        with contextlib.suppress(OSError):  # the lookup itself says why
            shared[python] = subprocess.Popen(
                _command(python, INSTALLED, *_options(python)),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )


def python_for(requirements: tuple[str, ...], cache: Path) -> Path:
    """The interpreter for a set of pinned requirements, pytest among them; created under `cache` if missing.

    No requirements: the current interpreter. A single absolute path: the interpreter at that path.

    Raises:
        UserError: pip could not install them; names the requirement and the reason.
    """
    if not requirements:
        return plain_path(Path(sys.executable))
    if len(requirements) == 1 and requirements[0].startswith("/"):
        return plain_path(Path(requirements[0]))
    key = hashlib.sha256(json.dumps([sorted(requirements), sys.version]).encode()).hexdigest()[:16]
    folder = cache / ENVIRONMENTS / key
    python = folder / "bin" / "python"
    if not (folder / COMPLETE).exists():
        _create(requirements, folder)
    return python


def _create(requirements: Sequence[str], folder: Path) -> None:
    # A virtual environment can't be moved, so it is created in place under a lock; COMPLETE marks it as complete.
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


@lru_cache(maxsize=16)
def toolchain(runner: str) -> Path | None:
    """The folder of a runner's installation, which contains `bin`; None: it is in a system folder.

    Raises:
        UserError: the program is not installed.
    """
    if runner == "pytest":
        return None
    program_path = shutil.which(PROGRAMS.get(runner, runner))
    if program_path is None:
        raise UserError(f"the tests need the program {runner!r}, which is not installed: see `regrade doctor`")
    if runner == "cargo" and shutil.which("rustup"):  # `cargo` on the path then only selects a toolchain
        done = subprocess.run(["rustup", "which", "cargo"], capture_output=True, text=True, timeout=60, check=False)
        program_path = done.stdout.strip() or program_path
    program = Path(program_path).resolve()
    return None if any(program.is_relative_to(folder) for folder in ("/usr", "/bin")) else program.parent.parent


def cached_pytest_plugins(python: Path, cache: Path) -> dict[str, str]:
    """See `pytest_plugins`; read from `cache` for an environment whose plugins were looked up before."""
    path = cache / PLUGINS / f"{identity(python)}.json"
    try:
        stored: dict[str, str] = json.loads(unsealed(path.read_text("utf-8")))
    except (OSError, ValueError):
        stored = pytest_plugins(python)
        with contextlib.suppress(OSError):  # such as a full disk: it is looked up again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(sealed(json.dumps(stored)), "utf-8")
            partial.replace(path)
    return stored


def pytest_plugins(python: Path) -> dict[str, str]:
    """Entry point name -> module of every installed pytest plugin.

    Raises:
        UserError: the interpreter does not run, or has no pytest.
    """
    program = (
        "import importlib.metadata as m, json, pytest; "
        "print(json.dumps({e.name: e.module for e in m.entry_points(group='pytest11')}))"
    )
    done = _answer(python, [str(python), "-I", "-c", program], check=False)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"the interpreter {str(python)!r} can't import pytest ({reason}): {python} -m pip install pytest"
        )
    plugins: dict[str, str] = json.loads(done.stdout)
    return plugins


def import_origins(python: Path, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Module -> its installed file, then names and URLs of its distributions (see `import_origins.py`).

    Raises:
        UserError: `python` does not run.
    """
    found: dict[str, list[str]] = json.loads(_output(python, "import_origins.py", *names))
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
    """Digest of the interpreter's version and of its installed distributions: part of the key of stored evidence.

    An environment that `python_for` created has the same digest on every machine. Any other may be edited, so each of
    its files counts as well (see `installed.py`).

    Raises:
        UserError: `python` does not run.
    """
    return hashlib.sha256(_installed(python)).hexdigest()


def distributions(python: Path) -> tuple[str, ...]:
    """The interpreter's version, and `name==version` of each distribution, comparable between machines.

    Raises:
        UserError: `python` does not run.
    """
    version, names, _ = json.loads(_installed(python))
    return (f"Python {version.split()[0]}", *names)


def _installed(python: Path) -> bytes:
    """Output of `installed.py`."""
    shared = _SHARED.get()
    if shared is None:
        return _read_installed(python)
    lookup = shared.pop(python, None)
    if isinstance(lookup, subprocess.Popen):
        output, _ = lookup.communicate()
        lookup = output if lookup.returncode == 0 else None
    output = _read_installed(python) if lookup is None else lookup  # if one ahead has failed, this one says why
    shared[python] = output
    return output


def _read_installed(python: Path) -> bytes:
    return _output(python, INSTALLED, *_options(python))


def _options(python: Path) -> list[str]:
    """The options of `installed.py`."""
    return ["--made"] if _is_created(python) else []


def _output(python: Path, file: str, *arguments: str) -> bytes:
    """The output of a program beside this file, run by an interpreter."""
    return _answer(python, _command(python, file, *arguments), check=True).stdout


def _answer(python: Path, command: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
    """What a command of this interpreter says. Raises UserError if it does not run, or for `check` if it fails."""
    try:
        return subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=check, env=_ENVIRONMENT)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the interpreter {str(python)!r} gave no answer within {ANSWER_SECONDS:g} s: is this machine very busy? "
            "Wait, or stop other work, and give the same command again"
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"the interpreter {str(python)!r} does not run ({error}): pass the path of a working Python 3.11+"
        ) from error


def _command(python: Path, file: str, *arguments: str) -> list[str]:
    return [str(python), "-I", str(Path(__file__).with_name(file)), *arguments]


def _is_created(python: Path) -> bool:
    folder = python.parent.parent
    return folder.parent.name == ENVIRONMENTS and (folder / COMPLETE).is_file()
