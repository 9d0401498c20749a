"""Folders of Harbor tasks, as `harbor_export.py` writes them, as entries of a task file.

A Harbor task of another origin names a program that grades it, and no tests: it has no FAIL_TO_PASS tests to read, so
Harbor must run it. Its results can be imported.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.json_text import parse_json, read_text, shown

CONFIGURATION = "task.toml"
ENTRY = "tests/task.json"
SUITE = "tests/suite.json"
REPOSITORY = "environment/repository"
REFERENCE = "solution/reference.patch"
INSTRUCTION = "instruction.md"
PLACE = "\n\nThe repository is in `/testbed`.\n"
"""The end of each instruction."""


def is_harbor(folder: Path) -> bool:
    """Is it the folder of a Harbor task, or one of several?"""
    return (folder / CONFIGURATION).is_file() or any(folder.glob(f"*/{CONFIGURATION}"))


def harbor_entries(folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """(entry of a task file, its folder), in the order of the names. Paths are relative to `folder`.

    Raises:
        UserError: a task is incomplete, or of another origin.
    """
    alone = (folder / CONFIGURATION).is_file()
    for task in [folder] if alone else sorted(path.parent for path in folder.glob(f"*/{CONFIGURATION}")):
        yield _entry(task, "" if alone else f"{task.name}/"), str(task)


def _entry(task: Path, prefix: str) -> dict[str, Any]:
    try:
        tomllib.loads(read_text(task / CONFIGURATION))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{task / CONFIGURATION}: not TOML: {error}") from error
    if not (task / ENTRY).is_file():
        raise UserError(
            f"{task} has no {ENTRY}, so its FAIL_TO_PASS and PASS_TO_PASS tests are unknown: run this task by Harbor, "
            "and read the results with `regrade import`"
        )
    value = parse_json(read_text(task / ENTRY), str(task / ENTRY))
    if not isinstance(value, dict):
        raise UserError(f"{task / ENTRY}: expected a JSON object, found {shown(value)}")
    for part in (SUITE, REPOSITORY):
        if not (task / part).exists():
            raise UserError(f"{task} has no {part}: export the task again")
    reference = task / REFERENCE
    return {
        **value,
        "instruction": read_text(task / INSTRUCTION).removesuffix(PLACE),
        "repository": f"{prefix}{REPOSITORY}",
        "suite": f"{prefix}{SUITE}",
        **({"reference": read_text(reference)} if reference.is_file() else {}),
    }
