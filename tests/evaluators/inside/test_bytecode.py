"""Byte code that an installer wrote is used again; that of a tree is not."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

from regrade.evaluators.inside.bytecode import reuse_installed


def module(path: Path, *, older: bool = False) -> bytes:
    """A module, and byte code of another text beside it that claims to be its own, or that of an older version.

    Returns the byte code.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("VALUE = 2\n")
    file = SourceFileLoader(path.stem, str(path))
    file.get_code(path.stem)
    compiled = Path(importlib.util.cache_from_source(str(path)))
    seconds = int(path.stat().st_mtime)
    path.write_text("VALUE = 1\n")
    os.utime(path, (seconds + older, seconds + older))
    return compiled.read_bytes()


def value(path: Path) -> int:
    code = SourceFileLoader(path.stem, str(path)).get_code(path.stem)
    names: dict[str, int] = {}
    exec(code, names)
    return names["VALUE"]


def test_installed_byte_code_is_copied_if_it_is_of_its_source_and_none_of_the_tree(tmp_path, monkeypatch):
    environment, cache = tmp_path / "environment", tmp_path / "bytecode"
    root = environment / "src" / "repo"
    outside, installed, older, own = (
        folder / f"{name}.py"
        for folder, name in ((tmp_path, "outside"), (environment, "installed"), (environment, "older"), (root, "own"))
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    compiled = {path: module(path, older=path is older) for path in (outside, installed, older, own)}
    monkeypatch.setattr(sys, "pycache_prefix", str(cache))
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(SourceFileLoader, "get_data", SourceFileLoader.get_data, raising=False)
    reuse_installed(str(cache), str(root))
    assert {path.stem: value(path) for path in compiled} == {"outside": 1, "installed": 2, "older": 1, "own": 1}
    copies = {path.stem: Path(importlib.util.cache_from_source(str(path))).read_bytes() for path in compiled}
    assert copies["installed"] == compiled[installed]
    assert all(copies[path.stem] != compiled[path] for path in (outside, older, own))
