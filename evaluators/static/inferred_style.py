"""The style that a project without lint settings keeps to, found in its own code.

Each habit is a ruff rule that the project's own code hardly ever breaks though it often could: quotes, names,
docstrings, order of imports, length of lines. A patch is then held to the rules that its neighbours keep, and to no
other.
"""

from __future__ import annotations

import ast
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from regrade.datasets.globs import is_protected
from regrade.datasets.plurals import listed
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.static.files import read
from regrade.evaluators.static.lint_settings import DEFAULT_RULES, LintSettings, as_options, first_party
from regrade.evaluators.static.ruff import RuffError, check_folder
from regrade.evaluators.static.syntax import parse

FILES = 60
"""Files that are looked at; of a larger project as many, evenly spread over its sorted paths."""
LARGEST = 200_000
"""Characters of a file that may stand for the project: longer ones are mostly made by programs."""
OPPORTUNITIES = 10
"""A rule that could not be broken so often is no habit yet."""
MODULES = 4
"""The same of rules that a module can break only once."""
STRICT = 0.02
"""Share of its opportunities at which the project itself may break a habit of quotes or names."""
LOOSE = 0.1
"""The same of docstrings and imports, which are forgotten more easily."""
BROKEN_PER_LINE = 1 / 200
"""A default rule that the project itself breaks more often is none of its rules (pyflakes' are: they find errors)."""
LENGTHS = (79, 80, 88, 90, 95, 99, 100, 110, 119, 120, 130, 140, 160)
"""Limits that projects set."""
WITHIN = 0.995
"""Share of the lines that must keep within a limit of length."""
UNLIMITED = 320
SHOWN = 4
"""Habits that are named in a reason."""
"""ruff's largest limit."""


@dataclass(frozen=True)
class _StyleRule:
    """A rule, the number of places that could break it (see `_opportunities`), and how it is called in a reason."""

    code: str
    opportunity: str
    tolerance: float
    words: str


RULES = (
    _StyleRule("N801", "classes", STRICT, "CapWords classes"),
    _StyleRule("N802", "functions", STRICT, "lower-case functions"),
    _StyleRule("N803", "functions", STRICT, "lower-case arguments"),
    _StyleRule("N806", "functions", STRICT, "lower-case variables"),
    _StyleRule("D100", "modules", LOOSE, "module docstrings"),
    _StyleRule("D101", "public classes", LOOSE, "class docstrings"),
    _StyleRule("D102", "public methods", LOOSE, "method docstrings"),
    _StyleRule("D103", "public functions", LOOSE, "function docstrings"),
    _StyleRule("I001", "modules with imports", LOOSE, "sorted imports"),
)


def kept_settings(tree: Tree, suite: TestSuite) -> LintSettings | None:
    """The settings that say what the project keeps to; None for a project too small or too mixed to tell.

    They are taken from the pristine files of the repository, tests left out: neither the task's bug nor a patch is
    among them.
    """
    pristine = Tree(tree.root, known=tree.known)
    return _kept(_Pristine(pristine.digest, pristine), suite.python_path, suite.protected)


@dataclass(frozen=True)
class _Pristine:
    """A tree that equals another where its content does."""

    digest: str
    tree: Tree = field(compare=False)


@lru_cache(maxsize=64)
def _kept(pristine: _Pristine, python_path: tuple[str, ...], protected: tuple[str, ...]) -> LintSettings | None:
    texts = _sample(pristine.tree, protected)
    lines = [line for text in texts.values() for line in text.splitlines() if line.strip()]
    packages = first_party(pristine.tree, python_path)
    try:
        found, quotes = _counts(texts, packages)
    except RuffError:
        return None
    kept = [*_kept_rules(found, _opportunities(texts)), *quotes]
    if not kept:
        return None
    length = _length(lines)
    broken = sorted(
        rule for rule, count in found.items() if not rule.startswith(("F", "I", "N", "D")) and _is_usual(count, lines)
    )
    lint: dict[str, Any] = {
        "select": [*DEFAULT_RULES, *(code for code, _ in kept)],
        "ignore": broken,
        "isort": {"known-first-party": packages},
    }
    if quotes:
        lint["flake8-quotes"] = {"inline-quotes": quotes[0][1].split()[0]}
    words = [*(words for _, words in kept), *([f"{length} columns"] if length < UNLIMITED else [])]
    return LintSettings(
        as_options({"line-length": length, "lint": lint}), f"the project's habits ({listed(words, SHOWN)})"
    )


def _sample(tree: Tree, protected: tuple[str, ...]) -> dict[str, str]:
    """Path -> text of the files that stand for the project."""
    paths = [path for path in tree.paths() if path.endswith(".py") and not is_protected(path, protected)]
    step = max(1.0, len(paths) / FILES)
    chosen = [paths[int(index * step)] for index in range(min(FILES, len(paths)))]
    texts = {path: read(tree, path) for path in chosen}
    return {path: text for path, text in texts.items() if text and len(text) <= LARGEST and parse(text) is not None}


def _counts(texts: dict[str, str], packages: list[str]) -> tuple[Counter[str], list[tuple[str, str]]]:
    """How often each rule is broken in the texts, and the habit of quotes where there is one."""
    lint = {
        "select": [*DEFAULT_RULES, "Q000", *(rule.code for rule in RULES)],
        "ignore": ["E501"],
        "isort": {"known-first-party": packages},
    }
    with tempfile.TemporaryDirectory(prefix="regrade-habits-") as name:
        for path, text in texts.items():
            target = Path(name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("utf-8", "surrogateescape"))
        found = _broken({**lint, "flake8-quotes": {"inline-quotes": "double"}}, Path(name))
        single = found.pop("Q000", 0)
        double = _broken({"select": ["Q000"], "flake8-quotes": {"inline-quotes": "single"}}, Path(name))["Q000"]
    quotes = []
    if single + double >= OPPORTUNITIES and min(single, double) <= STRICT * (single + double):
        quotes = [("Q000", "double quotes" if double > single else "single quotes")]
    return found, quotes


def _broken(lint: dict[str, Any], folder: Path) -> Counter[str]:
    return Counter(str(record["code"]) for record in check_folder(as_options({"lint": lint}), folder))


def _kept_rules(found: Counter[str], opportunities: Counter[str]) -> Iterator[tuple[str, str]]:
    for rule in RULES:
        places = opportunities[rule.opportunity]
        least = MODULES if rule.opportunity.startswith("modules") else OPPORTUNITIES
        if places >= least and found[rule.code] <= rule.tolerance * places:
            yield rule.code, rule.words


def _opportunities(texts: dict[str, str]) -> Counter[str]:
    """The places at which a file could break a rule, by kind."""
    found: Counter[str] = Counter()
    for text in texts.values():
        tree = parse(text)
        assert tree is not None  # those that do not parse were left out
        found["modules"] += 1
        found["modules with imports"] += any(isinstance(each, ast.Import | ast.ImportFrom) for each in tree.body)
        found.update(_definitions(tree.body, "functions"))
    return found


def _definitions(body: list[ast.stmt], kind: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield "classes"
            if not node.name.startswith("_"):
                yield "public classes"
                yield from _definitions(node.body, "methods")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield "functions"
            if not node.name.startswith("_"):
                yield f"public {kind}"


def _length(lines: list[str]) -> int:
    """The smallest usual limit that the lines keep within."""
    for limit in LENGTHS:
        if sum(len(line) <= limit for line in lines) >= WITHIN * len(lines):
            return limit
    return UNLIMITED


def _is_usual(count: int, lines: list[str]) -> bool:
    return count > max(1, BROKEN_PER_LINE * len(lines))
