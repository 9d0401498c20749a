"""A project's own lint settings, from the pristine tree, without the settings that hide files."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from regrade.datasets.tasks import Tree
from regrade.evaluators.static.files import read

PASSED_KEYS = frozenset({"line-length", "indent-width", "target-version", "preview", "builtins", "lint"})
"""Settings that define findings. Others (exclude, include, fix, output) are dropped."""
SELECTING_KEYS = ("select", "extend-select", "ignore", "extend-ignore", "per-file-ignores", "extend-per-file-ignores")
LINT_KEYS = frozenset({*SELECTING_KEYS, "dummy-variable-rgx", "allowed-confusables", "task-tags"})
"""Keys that older ruff settings have at the top level instead of under `lint`."""
DEFAULT_RULES = ("E", "F", "W", "B")
"""pycodestyle, Pyflakes and bugbear, which hardly any project disputes."""
CONTEXT_RULES = ("INP001", "EXE001", "EXE002", "EXE005")
"""Rules about neighbouring files and permissions, which ruff cannot check on standard input."""


@dataclass(frozen=True)
class LintSettings:
    """Options for ruff's command line, and their origin."""

    options: tuple[str, ...]
    """`key=value` in TOML, for `--config`."""
    origin: str
    """A phrase for reasons: `the project's rules (ruff.toml)`, `the default rules`."""


def project_settings(tree: Tree, python_path: tuple[str, ...], path: str) -> LintSettings | None:
    """The settings of the nearest ruff.toml or pyproject.toml above a file; None without one."""
    for folder in PurePosixPath(path).parents:
        for name in (".ruff.toml", "ruff.toml", "pyproject.toml"):
            file = str(folder / name)
            table = _ruff_table(tree, file)
            if table is not None:
                # ruff detects the project's own packages on disk, where standard input has none.
                isort = {"known-first-party": first_party(tree, python_path), **table["lint"].get("isort", {})}
                table["lint"] = {**table["lint"], "isort": isort}
                return LintSettings(as_options(table), f"the project's rules ({file})")
    return None


def default_settings(text: str, because: str = "") -> LintSettings:
    """DEFAULT_RULES, with the longest line of `text` as the limit of line length (between 88 and 320 characters)."""
    longest = max((len(line) for line in text.splitlines()), default=0)
    table = {"line-length": min(320, max(88, longest)), "lint": {"select": list(DEFAULT_RULES)}}
    reason = f"; {because}" if because else ""
    return LintSettings(as_options(table), f"the default rules ({', '.join(DEFAULT_RULES)}{reason})")


def _ruff_table(tree: Tree, file: str, depth: int = 0) -> dict[str, Any] | None:
    """The ruff settings of a file, merged with the settings that it extends; None without any."""
    text = read(tree, file)
    table = _parsed(text, file) if text is not None else None
    if table is None:
        return None
    parent: dict[str, Any] = {}
    if isinstance(table.get("extend"), str) and depth < 5:
        parent = _ruff_table(tree, _joined(file, table["extend"]), depth + 1) or {}
    merged = {**parent, **table}
    merged["lint"] = {**parent.get("lint", {}), **table.get("lint", {})}
    return merged


@lru_cache(maxsize=256)
def _parsed(text: str, file: str) -> dict[str, Any] | None:
    try:
        whole = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    table: Any = whole
    if PurePosixPath(file).name == "pyproject.toml":
        table = whole.get("tool", {}).get("ruff")
        if not isinstance(table, dict):
            return None
        python = re.search(r">=?\s*3\.(\d+)", str(whole.get("project", {}).get("requires-python", "")))
        if python and "target-version" not in table:
            table = {**table, "target-version": f"py3{python[1]}"}
    lint = table.get("lint", {})
    sections = ("lint", "format", "analyze", "per-file-target-version")
    top_level = {
        key: value
        for key, value in table.items()
        if key in LINT_KEYS or (isinstance(value, dict) and key not in sections)
    }
    return {**table, "lint": {**top_level, **(lint if isinstance(lint, dict) else {})}}


def _joined(file: str, relative: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(file).parent / relative).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return str(PurePosixPath(*parts))


def as_options(table: Mapping[str, Any]) -> tuple[str, ...]:
    """A table of ruff's settings as options for its command line."""
    passed = {key: value for key, value in table.items() if key in PASSED_KEYS and key != "lint"}
    lint = dict(table.get("lint", {}))
    # One table: ruff layers the options, and a `select` in a later one would undo an earlier `ignore`.
    lint["ignore"] = [*lint.get("ignore", []), *lint.pop("extend-ignore", []), *CONTEXT_RULES]
    return tuple(f"{key} = {_toml(value)}" for key, value in (*passed.items(), ("lint", lint)))


def _toml(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def first_party(tree: Tree, python_path: tuple[str, ...]) -> list[str]:
    """Names of the project's own top-level packages and modules."""
    names: set[str] = set()
    for root in python_path:
        base = tree.root / root
        if base.is_dir():
            entries = (entry for entry in base.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").is_file())
            names.update(entry.stem for entry in entries)
    return sorted(names)
