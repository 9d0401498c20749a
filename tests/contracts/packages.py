"""The packages, and the environments that hold them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLATION_SECONDS = 1800


class UnavailableError(Exception):
    """An environment cannot be had here."""


@dataclass(frozen=True)
class Contract:
    """One program of `programs/`, and what its environment holds beside this package."""

    name: str
    package: str
    pythons: tuple[str, ...]
    """Minor versions, the preferred one first."""
    requirements: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()
    """Packages of which only a file is used, as their own requirements cannot be had without a GPU."""

    @property
    def program(self) -> Path:
        return Path(__file__).parent / "programs" / f"{self.name}_contract.py"


CONTRACTS = (
    Contract("verl", "verl", ("3.11", "3.12"), ("verl==0.9.1", "torch", "ray")),
    Contract("skyrl_gym", "skyrl-gym", ("3.12", "3.11", "3.13"), ("skyrl-gym==0.4.0",)),
    Contract("verifiers", "verifiers", ("3.12", "3.11", "3.13"), ("verifiers==0.4.0",)),
    Contract("openenv", "openenv", ("3.12", "3.11", "3.13"), ("openenv==0.10.0",)),
    Contract("inspect_ai", "inspect-ai", ("3.12", "3.11", "3.13"), ("inspect-ai==0.3.285",)),
    Contract("harbor", "harbor", ("3.12", "3.13"), ("harbor==0.26.0", "harbor-rewardkit==0.2.3")),
    Contract("rewardkit", "harbor-rewardkit", ("3.12", "3.13"), ("harbor==0.26.0", "harbor-rewardkit==0.2.3")),
    Contract("nemo_gym", "nemo-gym", ("3.12", "3.13"), ("nemo-gym==0.4.0",)),
    Contract("openrlhf", "openrlhf", ("3.12",), ("aiohttp",), ("openrlhf==0.11.2",)),
    Contract("agentlightning", "agentlightning", ("3.12", "3.13"), ("agentlightning==1.0.2",)),
    Contract("art", "openpipe-art", ("3.12", "3.13"), ("openpipe-art==0.5.23",)),
)


def environment(contract: Contract, cache: Path) -> Path:
    """The Python of the contract's environment, made at first.

    Raises:
        UnavailableError: no such Python is found, or pip cannot install the packages.
    """
    wanted = "\n".join([*contract.requirements, *contract.without_dependencies])
    for minor in contract.pythons:
        interpreter = next(_interpreters(minor), None)
        if interpreter is not None:
            break
    else:
        raise UnavailableError(f"needs Python {' or '.join(contract.pythons)}, which is not found")
    digest = hashlib.sha256(f"{ROOT} {minor} {wanted}".encode()).hexdigest()[:12]
    folder = cache / f"{contract.package}-{digest}"
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        _run([str(interpreter), "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        _run([*pip, *contract.requirements, "--editable", str(ROOT)])
        if contract.without_dependencies:
            _run([*pip, "--no-deps", *contract.without_dependencies])
        done.write_text(wanted)
    return python


def _interpreters(minor: str) -> Iterator[Path]:
    """Interpreters of a minor version that run: on the path, and those that pyenv has."""
    on_path = shutil.which(f"python{minor}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob(f"{minor}.*/bin/python"), reverse=True)
    for path in candidates:
        if subprocess.run([path, "-c", "import venv, ssl"], capture_output=True, check=False).returncode == 0:
            yield path


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALLATION_SECONDS)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"the installation did not end within {INSTALLATION_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or error.stderr.splitlines()
        raise UnavailableError(f"it cannot be installed: {' '.join(lines[-1:])}") from None
