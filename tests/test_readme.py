"""The README and the two pages that walk through the code: what they name exists, and their links lead somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("datasets", "rewards", "evaluators", "policy_training", "reports", "cli")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "docs/one-patch.md", "docs/one-grpo-step.md")
WALKS = PAGES[1:]
COLUMN = 28
"""Where the descriptions in the tree begin."""
LONGEST_TREE, LONGEST_LINE = 170, 120
LINK = re.compile(r"\]\(([^)\s]+)\)")
CITATION = re.compile(r"\[`[^`]+`\]\(([^)]+\.py)\)((?:,?(?: and)?\s+`[\w.]+`)+)")
"""A link to a file, and the names in it that follow."""


@cache
def tree_lines() -> tuple[str, ...]:
    (block,) = re.findall(r"^## Where things are\n\n```\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return tuple(block.splitlines())


def tree_entries() -> Iterator[tuple[str, str]]:
    """(path, description) of each line; a line that begins at the column of descriptions continues the one before."""
    folders: list[str] = []
    for line in tree_lines():
        if line.startswith(" " * COLUMN):
            continue
        indent = len(line) - len(line.lstrip())
        name, description = line.split(maxsplit=1)
        folders = [*folders[: indent // 2], name]
        yield "".join(folders), description


def test_every_path_in_the_tree_exists() -> None:
    entries = dict(tree_entries())
    assert len(entries) > 50
    for path in entries:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path


def test_every_file_that_a_line_of_the_tree_mentions_lies_in_its_folder() -> None:
    for path, description in tree_entries():
        folder = (ROOT / path) if path.endswith("/") else (ROOT / path).parent
        for name in re.findall(r"\b(\w+\.py)\b", description):
            assert (folder / name).is_file() or name == "__init__.py", f"{path}: {name}"


def test_every_sub_package_has_a_line_in_the_tree() -> None:
    packages = {
        f"{path.parent.relative_to(ROOT).as_posix()}/" for layer in LAYERS for path in (ROOT / layer).rglob("*.py")
    }
    assert packages - {path for path, _ in tree_entries()} == set()


def test_the_tree_is_aligned_and_short() -> None:
    assert len(tree_lines()) <= LONGEST_TREE
    for line in tree_lines():
        assert line[COLUMN - 1] == " ", line
        assert line[COLUMN] != " ", line


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert targets
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub makes of the headings of a page."""
    without_code = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("page", WALKS)
def test_the_names_that_follow_a_file_are_defined_in_it(page: str) -> None:
    cited = [
        ((ROOT / page).parent / target, name)
        for target, names in CITATION.findall((ROOT / page).read_text(encoding="utf-8"))
        for name in re.findall(r"`([\w.]+)`", names)
    ]
    assert len(cited) > 15
    for file, name in cited:
        assert name in names_in(file.resolve()), f"{page}: {name} is not in {file.resolve().relative_to(ROOT)}"


@cache
def names_in(module: Path) -> frozenset[str]:
    """Functions, methods, classes and constants that a file defines."""
    nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return frozenset(defined | assigned)


@pytest.mark.parametrize("page", PAGES)
def test_lines_fit_the_width(page: str) -> None:
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        assert len(line) <= LONGEST_LINE or line.startswith("<img"), line
