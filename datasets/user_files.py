"""Python files of the user, with rewards and evidence types."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType


class _UncachedLoader(SourceFileLoader):
    """Leaves no `__pycache__` beside the user's file: a command that fails must leave nothing behind."""

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        """Drop the byte code."""


def run_file(path: Path, name: str) -> ModuleType:
    """The module of a Python file, run under this name; it may import modules of its own folder. Raises its errors."""
    module_spec = importlib.util.spec_from_file_location(name, path, loader=_UncachedLoader(name, str(path)))
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look up their module there
    folder = str(path.resolve().parent)
    sys.path.append(folder)
    try:
        module_spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module
