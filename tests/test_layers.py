"""The import order: folders, the sub-packages of a folder, no cycle of packages or modules, heavy libraries where used."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("datasets", "rewards", "evaluators", "policy_training", "reports", "cli")
FLOORS: Mapping[str, tuple[frozenset[str], ...]] = {
    "datasets": (
        frozenset({"mutation", "graded"}),
        frozenset({"mining"}),
        frozenset({"formats", "trajectories"}),
        frozenset({"sources", "exports"}),
    ),
    "evaluators": (
        frozenset({"storage", "sandboxes", "inside", "static"}),
        frozenset({"execution", "analysis"}),
        frozenset({"verification", "evaluation"}),
        frozenset({"scoring"}),
        frozenset({"task_curation", "attribution"}),
        frozenset({"hardening"}),
    ),
    "policy_training": (
        frozenset({"policies"}),
        frozenset({"environments"}),
        frozenset({"cascade", "adapters"}),
        frozenset({"trainers", "policy_files", "serving"}),
        frozenset({"reward_models", "recipe_files"}),
        frozenset({"recipe", "train"}),
        frozenset({"demo", "study", "variants"}),
    ),
}
"""Sub-packages (and modules that are above them), from the ground up: each imports from lower floors only."""
READS_ROWS = frozenset({"storage", "static"})
"""All that `evaluators.analysis` may import of `evaluators`: judging rows runs nothing."""
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


def dotted(path: Path) -> str:
    return ".".join(("regrade", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of the project that it imports anywhere, inside functions and for types alone included."""
    names = {dotted(path) for path in modules()}
    graph: dict[str, set[str]] = {}
    for path in modules():
        wanted = [name for _, name in imported_names(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))]
        targets = {name if name in names else name.rpartition(".")[0] for name in wanted}
        graph[dotted(path)] = (targets & names) - {dotted(path)}
    return graph


def floor_of(module: str) -> tuple[str, int] | None:
    """(folder, number of its floor); None for a module that stands on none: the nouns of `datasets`, a package's face."""
    _, folder, name, *_ = (*module.split("."), "", "")
    for number, floor in enumerate(FLOORS.get(folder, ())):
        if name in floor:
            return folder, number
    return None


def test_every_subpackage_stands_on_a_floor() -> None:
    for folder, floors in FLOORS.items():
        packages = {path.name for path in (ROOT / folder).iterdir() if path.is_dir() and any(path.glob("*.py"))}
        assert packages - set().union(*floors) == set()


def test_a_subpackage_imports_from_lower_floors_only() -> None:
    wrong = []
    for module, targets in import_graph().items():
        for target in targets:
            here, there = floor_of(module), floor_of(target)
            if here is None or there is None or here[0] != there[0]:
                continue
            if module.split(".")[2] != target.split(".")[2] and here[1] <= there[1]:
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_analysis_runs_nothing() -> None:
    imported = {
        target.split(".")[2]
        for module, targets in import_graph().items()
        for target in targets
        if module.startswith("regrade.evaluators.analysis") and target.startswith("regrade.evaluators.")
    }
    assert imported <= {*READS_ROWS, "analysis"}


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    assert cycle(import_graph()) == []


def test_no_packages_import_each_other() -> None:
    packages: dict[str, set[str]] = defaultdict(set)
    for module, targets in import_graph().items():
        here = module.split(".")[1:3]
        for target in targets:
            there = target.split(".")[1:3]
            if here != there and len(here) == len(there) == 2:  # the face of a folder imports from all of it
                packages[".".join(here)].add(".".join(there))
    assert cycle(packages) == []


def test_the_check_sees_a_cycle() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
