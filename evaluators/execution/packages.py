"""Packages that the tests of other languages import: those inside the repository, or installed once from its lock."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import TestSuite
from regrade.evaluators.execution import installed
from regrade.evaluators.inside.go_command import MODULES
from regrade.evaluators.storage.file_locks import locked

PACKAGES, COMPLETE = "packages", "complete"
"""Names of the folder in the cache, and of the file that marks a complete installation."""
NODE_MODULES = "node_modules"
INSTALL_SECONDS = 900
_REQUIRE = re.compile(r"^(?:require\b|\s+\S+\.\S+/\S+ v\d)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class _Installer:
    """How the packages of a repository are installed, without running any code of them."""

    manifests: tuple[str, ...]
    """Files that decide what is installed: the declaration first, then its lock."""
    folder: str
    """Name of the folder of installed packages."""
    is_needed: Callable[[Path], bool]
    """(root of the repository) -> does it need packages that are not among its files?"""
    command: Callable[[Path], list[str]]
    """(folder with copies of the manifests) -> the command, which runs there."""
    environment: Callable[[Path], Mapping[str, str]] = lambda _: {}


def installed_packages(suite: TestSuite, root: Path, cache: Path) -> Path | None:
    """The folder of installed packages, which is no part of the repository's tree; None: there is none.

    For Node it is `node_modules` inside the repository; for Go a folder in the cache, filled when it is first needed.

    Raises:
        UserError: the packages can't be installed; with the reason.
    """
    folder = root / NODE_MODULES
    if suite.image is not None or suite.runner == "node":
        return folder if folder.is_dir() else None
    installer = _INSTALLERS.get(suite.runner)
    if installer is None or not installer.is_needed(root):
        return None
    texts = {name: (root / name).read_bytes() for name in installer.manifests if (root / name).is_file()}
    parts = [name.encode() + b"\0" + text for name, text in texts.items()]
    key = hashlib.sha256(b"\0\0".join([*parts, _version(suite.runner).encode()])).hexdigest()[:16]
    return _installed(installer, texts, cache / PACKAGES / key)


def identity_of(packages: Path) -> str:
    """Digest of the packages: those that were installed from a lock have the same on every machine."""
    if (packages.parent / COMPLETE).is_file() and packages.parent.parent.name == PACKAGES:
        return packages.parent.name
    return installed.digest_of(packages)


@lru_cache(maxsize=64)
def runner_identity(runner: str, packages: Path | None) -> str:
    """Version of the program that runs the tests, and a digest of its packages; empty for pytest."""
    if runner == "pytest":
        return ""
    return f"{_version(runner)} {identity_of(packages) if packages is not None else ''}"


@lru_cache(maxsize=16)
def _version(runner: str) -> str:
    command = [runner, "version" if runner == "go" else "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"the tests need {runner!r}, which does not run ({error}): install it") from error
    return done.stdout.strip()


def _installed(installer: _Installer, texts: Mapping[str, bytes], place: Path) -> Path:
    # In place under a lock, as a virtual environment: COMPLETE marks it as complete.
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.with_suffix(".lock")
    lock.touch()
    with locked(lock, wait=True):
        if not (place / COMPLETE).exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name, text in texts.items():
                (place / name).write_bytes(text)
            _run(installer.command(place), {**os.environ, **installer.environment(place)}, place)
            (place / installer.folder).mkdir(exist_ok=True)
            (place / COMPLETE).touch()
    return place / installer.folder


def _run(command: list[str], environment: Mapping[str, str], folder: Path) -> None:
    what = f"installing the packages of {next(iter(sorted(path.name for path in folder.iterdir())), folder.name)}"
    with tempfile.TemporaryFile() as output:
        try:
            code = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_SECONDS,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{what} failed ({error}): install {command[0]}, or the packages yourself") from error
        output.seek(0)
        lines = [line for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if code:
        reason = " ".join(lines[:3])[-300:] or f"exit {code}"
        raise UserError(f"{what} failed: {reason} (is the network reachable, and does every locked version exist?)")


# ---------------------------------------------------------------- Go


def _needs_modules(root: Path) -> bool:
    manifest = root / "go.mod"
    return manifest.is_file() and not (root / "vendor").is_dir() and bool(_REQUIRE.search(manifest.read_text("utf-8")))


def _go_environment(folder: Path) -> Mapping[str, str]:
    """The user's own module cache is asked before the network."""
    asked = subprocess.run(
        ["go", "env", "GOMODCACHE", "GOPROXY"], capture_output=True, text=True, timeout=60, check=True
    )
    own, proxy = asked.stdout.split("\n")[:2]
    return {
        "GOMODCACHE": str(folder / MODULES),
        "GOFLAGS": "-modcacherw",
        "GOPROXY": f"file://{own}/cache/download,{proxy}",
    }


_GO = _Installer(
    manifests=("go.mod", "go.sum"),
    folder=MODULES,
    is_needed=_needs_modules,
    command=lambda _: ["go", "mod", "download"],
    environment=_go_environment,
)

_INSTALLERS: Mapping[str, _Installer] = MappingProxyType({"go": _GO})
