"""Packages that the tests of other languages import: those inside the repository, or installed once from its lock."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import TestSuite
from regrade.evaluators.execution import installed
from regrade.evaluators.execution.activity import Reporter, listener
from regrade.evaluators.execution.script_imports import imported_packages, manifest_of
from regrade.evaluators.inside.go_command import MODULES
from regrade.evaluators.storage.file_locks import locked

PACKAGES, COMPLETE = "packages", "complete"
"""Names of the folder in the cache, and of the file that marks a complete installation."""
NODE_MODULES = "node_modules"
NPM_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
LOCKS = ("go.sum", *NPM_LOCKS)
RUNTIME = ("dependencies", "optionalDependencies", "peerDependencies")
"""Tables of package.json with packages that the code itself imports."""
INSTALL_SECONDS = 900
_REQUIRE = re.compile(r"^(?:require\b|\s+\S+\.\S+/\S+ v\d)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class _Installer:
    """How the packages of a repository are installed, without running any code of them."""

    manifests: tuple[str, ...]
    """Files that decide what is installed: the declaration first, then its lock."""
    folder: str
    """Name of the folder of installed packages."""
    command: Callable[[Path], list[str]]
    """(folder with copies of the manifests) -> the command, which runs there."""
    environment: Callable[[Path], Mapping[str, str]] = lambda _: {}
    adapted: Callable[[Mapping[str, bytes]], Mapping[str, bytes]] = lambda texts: texts
    """Manifest -> text: what the command is given of them."""
    mark: bytes = b""
    """Tells installers with the same manifests apart."""


def installed_packages(suite: TestSuite, root: Path, cache: Path) -> Path | None:
    """The folder of installed packages, which is no part of the repository's tree; None: there is none.

    For Node it is `node_modules` inside the repository; for Go, and for Node if the repository does not contain what
    its tests import, a folder in the cache, filled when it is first needed.

    Raises:
        UserError: the packages can't be installed; with the reason.
    """
    folder = root / NODE_MODULES
    if suite.image is not None or (suite.runner == "node" and folder.is_dir()):
        return folder if folder.is_dir() else None
    if suite.runner in PROGRAMS and (folder / suite.runner).is_dir():
        return folder  # your own; one that holds only caches of tools does not count
    choose = _INSTALLERS.get(suite.runner)
    installer = None if choose is None else choose(suite, root)
    if installer is None:
        return None
    texts = installer.adapted(
        {name: (root / name).read_bytes() for name in installer.manifests if (root / name).is_file()}
    )
    parts = [name.encode() + b"\0" + text for name, text in texts.items()]
    parts += [_version(suite.runner).encode(), *([installer.mark] if installer.mark else [])]
    key = hashlib.sha256(b"\0\0".join(parts)).hexdigest()[:16]
    return _installed(installer, texts, cache / PACKAGES / key)


def identity_of(packages: Path) -> str:
    """Digest of the packages: those that were installed from a lock have the same on every machine."""
    is_installed = (packages.parent / COMPLETE).is_file() and packages.parent.parent.name == PACKAGES
    if is_installed and any((packages.parent / name).is_file() for name in LOCKS):
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
    command = [PROGRAMS.get(runner, runner), "version" if runner == "go" else "--version"]
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
            command = installer.command(place)
            with Reporter(listener()).running(f"{' '.join(command[:3])}, for {', '.join(texts)}", 0):
                _run(command, {**os.environ, **installer.environment(place)}, place)
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


def _go(_: TestSuite, root: Path) -> _Installer | None:
    """None: the module needs no other, or contains them."""
    manifest = root / "go.mod"
    if not manifest.is_file() or (root / "vendor").is_dir() or not _REQUIRE.search(manifest.read_text("utf-8")):
        return None
    return _GO


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
    command=lambda _: ["go", "mod", "download"],
    environment=_go_environment,
)

# ---------------------------------------------------------------- npm


def _npm_of_vitest(_: TestSuite, root: Path) -> _Installer | None:
    """All that package.json declares: Vitest is among it, and its configuration may load the rest."""
    manifest = manifest_of(root)
    return _NPM if manifest.get("dependencies") or manifest.get("devDependencies") else None


def _npm_of_node(suite: TestSuite, root: Path) -> _Installer | None:
    """Node's own runner needs nothing, so packages are installed only if the tests, or what they test, import one.

    The development dependencies, mostly tools, are left out unless a test imports one.
    """
    manifest = manifest_of(root)
    runtime, development = _declared(manifest, *RUNTIME), _declared(manifest, "devDependencies")
    if not runtime and not development:
        return None
    imported = set(imported_packages(root, suite.paths))
    if imported & development - runtime:
        return _NPM
    return _NPM_RUNTIME if imported & runtime else None


def _declared(manifest: Mapping[str, Any], *keys: str) -> frozenset[str]:
    """The names of the packages in these tables of a package.json."""
    tables = (manifest.get(key) for key in keys)
    return frozenset(name for table in tables if isinstance(table, dict) for name in table)


def _without_tools(texts: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Without a lock, npm would choose a version of each development dependency, though it installs none of them."""
    if any(name in texts for name in NPM_LOCKS):
        return texts
    manifest = {key: value for key, value in json.loads(texts["package.json"]).items() if key != "devDependencies"}
    return {**texts, "package.json": json.dumps(manifest).encode()}


def _npm(folder: Path) -> list[str]:
    """No script of a package runs. Without a lock, npm chooses the newest versions that fit, and leaves none.

    The repository's `.npmrc` is left out: it can name programs that npm starts, and send environment variables away.
    """
    is_locked = any((folder / name).is_file() for name in NPM_LOCKS)
    command = ["ci"] if is_locked else ["install", "--no-package-lock"]
    return ["npm", *command, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]


_NPM = _Installer(
    manifests=("package.json", *NPM_LOCKS),
    folder=NODE_MODULES,
    command=_npm,
)
_NPM_RUNTIME = replace(
    _NPM, command=lambda folder: [*_npm(folder), "--omit=dev"], adapted=_without_tools, mark=b"runtime"
)
PROGRAMS: Mapping[str, str] = MappingProxyType({"vitest": "node"})
"""Runner -> the program that it needs, if that has another name."""
_INSTALLERS: Mapping[str, Callable[[TestSuite, Path], _Installer | None]] = MappingProxyType(
    {"go": _go, "vitest": _npm_of_vitest, "node": _npm_of_node}
)
"""Runner -> (suite, root of the repository) -> how the packages are installed that are not among its files; None: it
needs none."""
