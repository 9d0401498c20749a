"""One name, one thing: no two classes of the product share a name, and no type alias has the name of a class."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("datasets", "rewards", "evaluators", "policy_training", "reports", "cli")


def class_names(tree: ast.Module) -> Iterator[str]:
    """Names of classes without leading underscores: `_Row` and `Row` are one name to a reader."""
    return (node.name.lstrip("_") for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def alias_names(tree: ast.Module) -> Iterator[str]:
    """Names of the module's type aliases: what is assigned to a name in CapWords."""
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (
            target.id.lstrip("_")
            for target in targets
            if isinstance(target, ast.Name) and re.match(r"_*[A-Z]\w*[a-z]", target.id)
        )


def clashes(sources: dict[str, str]) -> dict[str, list[str]]:
    """Name -> the files that hold it, where one file's class has the name of another class or of an alias."""
    classes: dict[str, list[str]] = defaultdict(list)
    aliases: dict[str, list[str]] = defaultdict(list)
    for path, text in sources.items():
        tree = ast.parse(text)
        for name in class_names(tree):
            classes[name].append(path)
        for name in alias_names(tree):
            aliases[name].append(path)
    return {name: files + aliases[name] for name, files in classes.items() if len(files + aliases[name]) > 1}


def test_clashes_are_found() -> None:
    sources = {
        "a.py": "class _Row: ...\nUnit = int\nLIMIT = 1",
        "b.py": "if 1:\n    class Row: ...",
        "c.py": "class Unit: ...",
    }
    assert clashes(sources) == {"Row": ["a.py", "b.py"], "Unit": ["c.py", "a.py"]}


def test_no_class_shares_its_name_with_a_class_or_a_type_alias() -> None:
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert clashes({str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths}) == {}
