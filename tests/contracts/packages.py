"""The packages, and the environments that hold them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "constraints" / "train.txt"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Python of the running environment, of which `make setup` has installed all of this package's requirements."""
INSTALLATION_SECONDS = 1800

WITHOUT_CUDA = ("cuda-toolkit<0", "nvidia-cublas<0", "nvidia-cublas-cu12<0", "nvidia-nccl-cu12<0", "nvidia-nccl-cu13<0")
"""Constraints that no release meets: an environment that asks for several GB of CUDA is refused before the download."""


class UnavailableError(Exception):
    """An environment cannot be had here."""


@dataclass(frozen=True)
class Contract:
    """One program of `programs/`, and what its environment holds beside this package."""

    name: str
    package: str
    pythons: tuple[str, ...]
    """Minor versions: that of `make setup` is taken if it is among them, else the first that is found."""
    requirements: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()
    """Packages of which some modules are used, as their own requirements cannot be had without a GPU."""
    extra: str = ""
    """The extra of this package that the program needs."""
    wheel_of: str = ""
    """The minor version in the names of those packages' wheels, whose modules are Python of any version."""
    is_light: bool = False
    """Without torch, and beside what `make setup` installs little more than one wheel: CI runs it."""

    @property
    def program(self) -> Path:
        return Path(__file__).parent / "programs" / f"{self.name}_contract.py"


CONTRACTS = (
    Contract("verl", "verl", ("3.11", "3.12"), ("verl==0.9.1", "torch", "ray")),
    Contract("skyrl_gym", "skyrl-gym", ("3.12", "3.13", "3.11"), ("skyrl-gym==0.4.0",), is_light=True),
    Contract("verifiers", "verifiers", ("3.12", "3.13", "3.11"), ("verifiers==0.4.0",)),
    Contract("openenv", "openenv", ("3.12", "3.13", "3.11"), ("openenv==0.10.0",)),
    Contract(
        "openenv_client",
        "openenv",
        ("3.12", "3.13", "3.11"),
        ("openenv==0.10.0",),
        extra="serve",
        is_light=True,
    ),
    Contract("inspect_ai", "inspect-ai", ("3.12", "3.13", "3.11"), ("inspect-ai==0.3.285",)),
    Contract("harbor", "harbor", ("3.12", "3.13"), ("harbor==0.26.0",)),
    Contract("rewardkit", "harbor-rewardkit", ("3.12", "3.13"), ("harbor-rewardkit==0.2.3",)),
    Contract("nemo_gym", "nemo-gym", ("3.12", "3.13"), ("nemo-gym==0.4.0",)),
    Contract(
        "openrlhf", "openrlhf", ("3.11", "3.12"), ("aiohttp", "torch", "ray"), ("openrlhf==0.11.2",), wheel_of="3.12"
    ),
    Contract("agentlightning", "agentlightning", ("3.12", "3.13"), ("agentlightning==1.0.2",)),
    Contract("art", "openpipe-art", ("3.12", "3.13"), ("openpipe-art==0.5.23",)),
)


def environment(contract: Contract, cache: Path, seconds: float = INSTALLATION_SECONDS) -> Path:
    """The Python of the contract's environment, made at first, at most for `seconds`.

    Raises:
        UnavailableError: no such Python is found, or pip cannot install the packages.
    """
    for minor in sorted(contract.pythons, key=lambda minor: minor != RUNNING):
        interpreter = next(_interpreters(minor), None)
        if interpreter is not None:
            break
    else:
        raise UnavailableError(f"needs Python {' or '.join(contract.pythons)}, which is not found")
    own = _own_requirements()
    wanted = [*contract.requirements, *_extra_requirements(contract.extra), *contract.without_dependencies]
    folder = (
        cache / f"{contract.name}-{_digest([str(ROOT), minor, PINNED.read_text(), *own, *wanted, contract.wheel_of])}"
    )
    if not (folder / "installed").exists():
        ends_at = time.monotonic() + seconds
        base = (
            Path(sysconfig.get_path("purelib")) if minor == RUNNING else _base(interpreter, minor, own, cache, ends_at)
        )
        _new(folder, interpreter)
        # Inside the environment, as a sandbox mounts no other folder. pip replaces files and never writes into one, so
        # what it exchanges here stays as it is in the base.
        shutil.copytree(base, _packages(folder), copy_function=_link, dirs_exist_ok=True)
        for program in _compiled_programs(base.parents[2] / "bin"):
            _link(str(program), str(folder / "bin" / program.name))
        _pip(folder, ends_at, *contract.requirements, *_extra_requirements(contract.extra), *own)
        if contract.without_dependencies:
            _pip(folder, ends_at, "--no-deps", *_any_wheel(contract, _packages(folder)), *contract.without_dependencies)
        (folder / "installed").write_text("\n".join(wanted))
    return folder / "bin" / "python"


def _any_wheel(contract: Contract, packages: Path) -> list[str]:
    """Options of pip with which it takes a wheel of another version of Python."""
    if not contract.wheel_of:
        return []
    return ["--only-binary=:all:", f"--python-version={contract.wheel_of}", f"--target={packages}"]


def _base(interpreter: Path, minor: str, own: list[str], cache: Path, ends_at: float) -> Path:
    """A folder with this package and what it needs, which all environments of one Python share."""
    folder = cache / f"base-{_digest([str(ROOT), minor, *own])}"
    if not (folder / "installed").exists():
        _new(folder, interpreter)
        _pip(folder, ends_at, *own)
        _pip(folder, ends_at, "--no-deps", "--editable", str(ROOT))
        (folder / "installed").write_text("\n".join(own))
    return _packages(folder)


def _own_requirements() -> list[str]:
    """What this package needs, without an extra."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def _extra_requirements(extra: str) -> list[str]:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return list(known[extra]) if extra else []


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _new(folder: Path, interpreter: Path) -> None:
    """An empty environment: pip of the running Python installs into it."""
    _run([str(interpreter), "-m", "venv", "--clear", "--without-pip", str(folder)])


def _packages(folder: Path) -> Path:
    (found,) = (folder / "lib").glob("python3*/site-packages")
    return found


def _compiled_programs(folder: Path) -> list[Path]:
    """Programs such as ruff, which pip takes to be there; the others are scripts, which name the base's Python."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    return [path for path in files if path.read_bytes()[:2] != b"#!" and os.access(path, os.X_OK)]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


def _pip(folder: Path, ends_at: float, *arguments: str) -> None:
    pinned = [line for line in PINNED.read_text().splitlines() if line.startswith("torch==")]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join([*pinned, *WITHOUT_CUDA]) + "\n")
    # Byte code of all the packages would take longer than the programs do: they import little of it.
    _run([sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-compile",
          "--disable-pip-version-check", "--no-input", "--constraint", str(constraints), *arguments],
         seconds=max(1.0, ends_at - time.monotonic()))  # fmt: skip


def _interpreters(minor: str) -> Iterator[Path]:
    """Interpreters of a minor version that run: on the path, and those that pyenv has."""
    on_path = shutil.which(f"python{minor}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob(f"{minor}.*/bin/python"), reverse=True)
    for path in candidates:
        if subprocess.run([path, "-c", "import venv, ssl"], capture_output=True, check=False).returncode == 0:
            yield path


def _run(command: list[str], seconds: float = INSTALLATION_SECONDS) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise UnavailableError("the installation did not end in time") from None
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"it cannot be installed: {_reason(error.stderr)}") from None


def _reason(stderr: str) -> str:
    """pip's first error, which names the package, in one line."""
    for constraint in WITHOUT_CUDA:
        if constraint in stderr:
            return f"its packages need CUDA ({constraint.removesuffix('<0')}, several GB)"
    lines = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR")]
    first = (lines or stderr.strip().splitlines()[-1:] or ["pip said nothing"])[0]
    return re.sub(r" \(from versions: .*", "", first).replace("|", "/")[:300]
