"""The tree of exceptions in `datasets/errors.py` lists every exception class of the project, under its parent."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

from regrade.datasets import errors

ROOT = Path(errors.__file__).resolve().parents[1]
LAYERS = ("datasets", "rewards", "evaluators", "policy_training", "reports", "cli")
LINE = re.compile(r"(?P<indent> +)(?P<name>\w+)(?: \((?P<file>\S+\.py)\): \S.*)?")


def listed() -> set[tuple[str, str, str]]:
    """(file, class, parent) of each line of the tree; a line without a file names a parent of the standard library."""
    found, branch = set(), {0: ""}
    for line in (errors.__doc__ or "").splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            continue
        depth = len(match["indent"])
        branch[depth] = match["name"]
        if match["file"]:
            found.add((match["file"], match["name"], branch[depth - 4]))
    return found


def defined() -> set[tuple[str, str, str]]:
    """(file, class, parent) of each exception class, by the source of all modules."""
    classes = {
        (path.relative_to(ROOT).as_posix(), node.name, ast.unparse(base).rpartition(".")[2])
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    names = {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
    }
    known: set[tuple[str, str, str]] = set()
    while more := {entry for entry in classes - known if entry[2] in names}:
        known |= more
        names |= {name for _, name, _ in more}
    return known


def test_the_tree_lists_exactly_the_exceptions_of_the_project() -> None:
    assert listed() == defined()
    assert len(listed()) >= 10


def test_an_error_is_named_as_one() -> None:
    signals = {"Reached"}  # its name is part of what a sandbox reports
    assert {name for _, name, _ in defined() if not name.endswith("Error")} == signals
