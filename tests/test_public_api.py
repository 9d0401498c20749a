"""What users import: the faces load on first use, are written down with their signatures, and the docs use nothing else."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
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


STATISTICS = {"pandas", "scipy", "statsmodels", "numpy"}
PROBES = {"ruff", "radon", "lizard", "complexipy", "hypothesis", "pytest", "httpx2", "jinja2", "matplotlib", "docker"}


def loaded_by(code: str, folder: Path, modules: set[str], **environment: str) -> set[str]:
    """Which of the modules does the code import?"""
    program = f"import sys\ntry:\n    {code}\nfinally:\n    print('loaded', *({modules!r} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr or "SystemExit" in done.stderr, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_scoring_loads_no_statistics(tmp_path: Path) -> None:
    code = "from regrade.evaluators import Scorer, local_task, score"
    assert loaded_by(code, tmp_path, STATISTICS | PROBES) == set()


@pytest.mark.parametrize("arguments", ["--help", "--version", "score --help", "compare --help"])
def test_help_loads_no_library_of_a_command(arguments: str, tmp_path: Path) -> None:
    code = f"from regrade.cli.main import main; sys.argv = ['regrade', *{arguments.split()!r}]; main()"
    assert loaded_by(code, tmp_path, STATISTICS | PROBES | {"msgspec", "tree_sitter", "sqlite3", "asyncio"}) == set()


def test_a_stored_verdict_loads_no_library_of_a_probe_or_of_statistics(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (project / "test_sums.py").write_text("from sums import add\n\ndef test_add():\n    assert add(1, 2) == 3\n")
    (tmp_path / "fix.diff").write_text(
        "--- a/sums.py\n+++ b/sums.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a + b\n+    return b + a\n"
    )
    code = "from regrade.cli.main import main; sys.argv = ['regrade', 'score', '../fix.diff']; main()"
    cache = str(tmp_path / "cache")
    assert loaded_by(code, project, {"radon"}, REGRADE_CACHE=cache) == set()  # its probes run in another process
    assert loaded_by(code, project, STATISTICS | PROBES, REGRADE_CACHE=cache) == set()


def imports_in(page: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import of the project in the page's Python."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("regrade"):
                yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_use_public_names_only(page: Path) -> None:
    for module, name in imports_in(page):
        assert public_api.is_public_module(module), f"{module} is private"
        if module in public_api.MODULES:
            assert name in public_api.public_names(importlib.import_module(module)), f"{module}.{name} is private"
        else:  # it may need a trainer that is not installed
            source = importlib.util.find_spec(module).origin
            assert re.search(rf"^(class|def|async def) {name}\b", Path(source).read_text("utf-8"), re.M), (module, name)


def test_some_page_shows_python() -> None:
    assert sum(len([*imports_in(page)]) for page in PAGES) > 20


@pytest.mark.parametrize("page", [page for page in PAGES if page != public_api.PAGE], ids=lambda page: page.name)
def test_every_dotted_name_in_the_docs_exists_and_is_public(page: Path) -> None:
    for dotted in set(re.findall(r"`(regrade(?:\.\w+)+)", page.read_text("utf-8"))):
        module, _, name = dotted.rpartition(".")
        is_module = public_api.is_public_module(dotted)
        assert is_module or name in public_api.public_names(importlib.import_module(module)), f"{dotted} is private"
