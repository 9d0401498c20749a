"""Every module that can change evidence is in the digest that keys the evidence store."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from regrade.evaluators.scoring import code_version
from regrade.evaluators.scoring.probes import STATIC

ROOT = Path(code_version.__file__).parents[2]
GATHERERS = (
    "regrade.evaluators.scoring.gatherer",
    "regrade.evaluators.scoring.planner",
    "regrade.evaluators.inside.worker",
    "regrade.evaluators.task_curation.baseline",
)
"""Where evidence comes from; the static probes are added below, since they are imported by name when first used."""


def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if file_of(name) else node.module


def static_probes() -> list[str]:
    """The modules of the built-in static probes: those with a function `probe` that returns one of the types."""
    names = {kind.__name__ for kind in STATIC}
    probes = [
        "regrade." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "evaluators" / "static").rglob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "probe" and ast.unparse(node.returns or node) in names
    ]
    assert len(probes) == len(names)
    return probes


@pytest.fixture(scope="module")
def closure() -> frozenset[Path]:
    """The files of all modules that the gatherers import, directly or through others, whenever they import them."""
    reached: set[Path] = set()
    waiting = [*GATHERERS, *static_probes()]
    while waiting:
        path = file_of(waiting.pop())
        if path is not None and path not in reached:
            reached.add(path)
            waiting += [name for name in imports_of(path) if name.startswith("regrade.")]
    return frozenset(reached)


def test_every_module_that_gathers_evidence_is_digested(closure: frozenset[Path]) -> None:
    digested = {path.resolve() for path in code_version.evidence_code()}
    assert {path.relative_to(ROOT).as_posix() for path in closure if path.resolve() not in digested} == set()
    assert len(closure) > 80  # the closure was found


def test_what_judges_evidence_gathers_none(closure: frozenset[Path]) -> None:
    judging = [path for path in closure if code_version.JUDGING.intersection(path.relative_to(ROOT).parts)]
    assert judging == []


def test_every_library_that_gathers_evidence_is_in_the_digest(closure: frozenset[Path]) -> None:
    names = {name.partition(".")[0] for path in closure for name in imports_of(path)}
    distributions = packages_distributions()
    used = {
        distribution.lower().replace("_", "-")
        for name in names - sys.stdlib_module_names - {"regrade"}
        for distribution in distributions.get(name, [])
    }
    assert used <= set(code_version.TOOLS)


@pytest.mark.parametrize("name", ["answer_equality.py", "patches.py", "worker_pool.py", "bubblewrap.py", "evidence.py"])
def test_a_change_of_any_such_module_is_another_version(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = code_version.code_version.__wrapped__()
    assert code_version.code_version.__wrapped__() == before
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + (b"#" if self.name == name else b""))
    assert code_version.code_version.__wrapped__() != before
