"""The rooms and who may enter: each folder imports only from those to its left, and heavy libraries only where used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("datasets", "rewards", "evaluators", "policy_training", "reports", "cli")
HEAVY = frozenset({"torch", "transformers", "trl", "accelerate", "gguf", "safetensors", "datasets", "ray"})
"""Imported at module level by policy_training only (a bare `datasets` is Hugging Face's package)."""
NEVER_AT_MODULE_LEVEL = frozenset({"docker", "ray"})


def modules() -> list[Path]:
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def imported_names(nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; a relative import is given with its dots."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, nothing under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from at_import(child)


def violations(source: str, layer: str) -> list[str]:
    tree = ast.parse(source)
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    found = []
    for line, name in imported_names(ast.walk(tree)):
        top, _, rest = name.partition(".")
        if not top:
            found.append(f"{line}: relative import {name}")
        elif top == "regrade" and rest.split(".")[0] not in allowed:
            found.append(f"{line}: {layer} may not import {name}")
        elif top in LAYERS and top != "datasets":
            found.append(f"{line}: bare import {name}")
    for line, name in imported_names(at_import(tree)):
        top = name.split(".")[0]
        if top in NEVER_AT_MODULE_LEVEL or (top in HEAVY and layer != "policy_training"):
            found.append(f"{line}: {name} is imported at module level")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_leftwards_and_nothing_heavy(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert violations(path.read_text(encoding="utf-8"), layer) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("datasets", "from regrade.rewards import tests"),
        ("rewards", "def f():\n    import regrade.evaluators.scoring.scorer"),
        ("rewards", "from regrade import evaluators"),
        ("evaluators", "from . import probes"),
        ("reports", "import torch"),
        ("cli", "from rewards import tests"),
        ("policy_training", "import docker"),
        ("evaluators", "try:\n    import docker\nexcept ImportError:\n    docker = None"),
        ("evaluators", "class A:\n    from transformers import X"),
        ("datasets", "import datasets"),
    ],
)
def test_the_check_sees_each_kind_of_violation(layer: str, source: str) -> None:
    assert len(violations(source, layer)) == 1


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("cli", "def f():\n    import torch\n    from regrade.reports import html_report"),
        ("policy_training", "import torch\nimport datasets\nfrom regrade.evaluators.scoring.scorer import Scorer"),
        ("reports", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_the_check_lets_allowed_imports_pass(layer: str, source: str) -> None:
    assert violations(source, layer) == []


def test_no_module_is_named_after_one_of_the_standard_library() -> None:
    """A script run from such a folder would find our module in place of Python's."""
    clashes = [path.relative_to(ROOT).as_posix() for path in modules() if path.stem in sys.stdlib_module_names]
    assert clashes == []
