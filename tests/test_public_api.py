"""What users import: the faces load on first use, are written down with their signatures, and the docs use nothing else."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import public_api

ROOT = Path(__file__).resolve().parent.parent
FACES = ("evaluators", "policy_training", "reports")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_page_of_public_names_is_that_of_the_code() -> None:
    written = public_api.PAGE.read_text("utf-8")
    assert written == public_api.page(), "a public name changed: if that is meant, run python tests/public_api.py"


@pytest.mark.parametrize("folder", FACES)
def test_a_face_tells_type_checkers_what_it_loads(folder: str) -> None:
    """The imports under TYPE_CHECKING, `__all__` and the names that are loaded on first use are the same."""
    face = importlib.import_module(f"regrade.{folder}")
    (block,) = [
        node for node in ast.parse((ROOT / folder / "__init__.py").read_text("utf-8")).body if isinstance(node, ast.If)
    ]
    imported = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        imported |= {alias.name: node.module or "" for alias in node.names}
    assert sorted(imported) == sorted(face.__all__)
    for name, module in imported.items():
        home = importlib.import_module(module)
        expected = getattr(home, name, None) or importlib.import_module(f"{module}.{name}")
        assert getattr(face, name) is expected


def test_an_unknown_name_of_a_face_is_an_attribute_error() -> None:
    face = importlib.import_module("regrade.evaluators")
    with pytest.raises(AttributeError, match=r"module 'regrade.evaluators' has no attribute 'scores'"):
        _ = face.scores
    assert {"score", "metrics"} <= set(dir(face))


def test_scoring_loads_no_statistics(tmp_path: Path) -> None:
    code = "import sys; from regrade.evaluators import Scorer, local_task, score; print({'pandas', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def imports_in(page: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import of the project in the page's Python."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regrade"):
                yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_use_public_names_only(page: Path) -> None:
    for module, name in imports_in(page):
        assert module in public_api.MODULES, f"{module} is private"
        assert name in public_api.public_names(importlib.import_module(module)), f"{module}.{name} is private"


def test_some_page_shows_python() -> None:
    assert sum(len([*imports_in(page)]) for page in PAGES) > 20


@pytest.mark.parametrize("page", [page for page in PAGES if page != public_api.PAGE], ids=lambda page: page.name)
def test_every_dotted_name_in_the_docs_exists_and_is_public(page: Path) -> None:
    for dotted in set(re.findall(r"`(regrade(?:\.\w+)+)", page.read_text("utf-8"))):
        module, _, name = dotted.rpartition(".")
        is_module = dotted in public_api.MODULES
        assert is_module or name in public_api.public_names(importlib.import_module(module)), f"{dotted} is private"
