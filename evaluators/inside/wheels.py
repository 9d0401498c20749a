"""Wheel of a project, built by its own backend (PEP 517), if the environment contains it."""

from __future__ import annotations

import importlib
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

LEGACY = "setuptools.build_meta:__legacy__"
"""Default backend of PEP 517."""


class NoBackendError(Exception):
    """The project declares no build, or its backend is not installed."""


def build_wheel() -> str:
    """Build the wheel of the project in the working directory. Returns its file name.

    Raises:
        NoBackendError: the project has no pyproject.toml and no setup.py, or its backend is not installed.
        BaseException: any exception of the backend.
    """
    made_by = backend()
    with tempfile.TemporaryDirectory() as folder:
        return str(made_by.build_wheel(folder))


def backend() -> Any:
    table: dict[str, Any] = {}
    if Path("pyproject.toml").is_file():
        table = tomllib.loads(Path("pyproject.toml").read_text("utf-8")).get("build-system", {})
    elif not Path("setup.py").is_file():
        raise NoBackendError("no pyproject.toml and no setup.py")
    sys.path[:0] = [str(Path(path).resolve()) for path in table.get("backend-path", ())]
    name, _, attribute = str(table.get("build-backend", LEGACY)).partition(":")
    try:
        value: Any = importlib.import_module(name)
    except ImportError as error:
        raise NoBackendError(f"{name} is not installed") from error
    for part in filter(None, attribute.split(".")):
        value = getattr(value, part)
    return value
