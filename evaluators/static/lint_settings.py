"""Which lint rules a project holds its own code to: from the pristine tree, less all settings that hide files."""

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

KEPT = frozenset({"line-length", "indent-width", "target-version", "preview", "builtins", "lint"})
"""Settings that say what is a finding. Others (exclude, include, fix, output) are not the project's to say here."""
LINT_KEYS = frozenset(
    {
        "select",
        "extend-select",
        "ignore",
        "extend-ignore",
        "per-file-ignores",
        "extend-per-file-ignores",
        "dummy-variable-rgx",
        "allowed-confusables",
        "task-tags",
    }
)
"""Keys that older ruff settings carry at the top instead of under `lint`."""
DEFAULT_RULES = ("E", "F", "W", "B")
"""pycodestyle, Pyflakes and bugbear: what hardly any project disagrees with."""
UNKNOWABLE = ("INP001", "EXE001", "EXE002", "EXE005")
"""Rules about neighbours and permissions, which a single file on standard input does not have."""


@dataclass(frozen=True)
class LintSettings:
    """Options for ruff's command line, and whose they are."""

    options: tuple[str, ...]
    """`key=value` in TOML, for `--config`."""
    origin: str
    """In words, for reasons: `the project's rules (ruff.toml)`, `the default rules`."""


def project_settings(tree: Tree, python_path: tuple[str, ...], path: str) -> LintSettings | None:
    """The settings for a file: those of the nearest ruff.toml or pyproject.toml above it, None where there is none."""
    for folder in PurePosixPath(path).parents:
        for name in (".ruff.toml", "ruff.toml", "pyproject.toml"):
            file = str(folder / name)
            found = _ruff_table(tree, file)
            if found is not None:
                # ruff would look for the project's own packages on disk; here they are named.
                isort = {"known-first-party": first_party(tree, python_path), **found["lint"].get("isort", {})}
                found["lint"] = {**found["lint"], "isort": isort}
                return LintSettings(as_options(found), f"the project's rules ({file})")
    return None


def default_settings(text: str, because: str = "") -> LintSettings:
    """Rules that hardly any project disagrees with; no line may be longer than its file's longest was (at least 88)."""
    longest = max((len(line) for line in text.splitlines()), default=0)
    table = {"line-length": min(320, max(88, longest)), "lint": {"select": list(DEFAULT_RULES)}}
    reason = f"; {because}" if because else ""
    return LintSettings(as_options(table), f"the default rules ({', '.join(DEFAULT_RULES)}{reason})")


def _ruff_table(tree: Tree, file: str, depth: int = 0) -> dict[str, Any] | None:
    """The ruff settings of a file, those that it extends merged in; None where it has none."""
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
    elsewhere = ("lint", "format", "analyze", "per-file-target-version")
    old = {
        key: value
        for key, value in table.items()
        if key in LINT_KEYS or (isinstance(value, dict) and key not in elsewhere)
    }
    return {**table, "lint": {**old, **(lint if isinstance(lint, dict) else {})}}


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
    kept = {key: value for key, value in table.items() if key in KEPT and key != "lint"}
    lint = dict(table.get("lint", {}))
    # One table: ruff takes each option for a layer of its own, and a `select` there would undo an earlier `ignore`.
    lint["ignore"] = [*lint.get("ignore", []), *lint.pop("extend-ignore", []), *UNKNOWABLE]
    return tuple(f"{key} = {_toml(value)}" for key, value in (*kept.items(), ("lint", lint)))


def _toml(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value)


def first_party(tree: Tree, python_path: tuple[str, ...]) -> list[str]:
    """Names of the project's own top-level packages and modules."""
    found: set[str] = set()
    for root in python_path:
        base = tree.root / root
        if base.is_dir():
            found.update(
                entry.stem for entry in base.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").is_file()
            )
    return sorted(found)
