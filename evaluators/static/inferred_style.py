"""The style of a project without lint settings, inferred from its own code.

A habit is a ruff rule that the project's code could often violate and hardly ever violates: quotes, names, docstrings,
import order, line length. A patch is linted by these habits, and by the default rules that the project follows.
"""

from __future__ import annotations

import ast
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from regrade.datasets.globs import ProtectedFiles
from regrade.datasets.plurals import listed
from regrade.datasets.process_identity import this_process
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.static.files import TreeKey, read
from regrade.evaluators.static.lint_settings import DEFAULT_RULES, LintSettings, as_options, first_party
from regrade.evaluators.static.ruff import RuffError, check_folder
from regrade.evaluators.static.syntax import parse

SAMPLE_FILES = 60
"""Most files in the sample; of a larger project, evenly spaced in its sorted paths."""
LARGEST = 200_000
"""Most characters of a file in the sample: longer files are mostly generated."""
MIN_OPPORTUNITIES = 10
"""Fewest opportunities to violate a rule that make it a habit."""
MIN_MODULES = 4
"""The same for rules that a module can violate only once."""
STRICT = 0.02
"""Violations per opportunity that a habit of quotes or names allows."""
LOOSE = 0.1
"""The same for docstrings and imports, which are forgotten more easily."""
VIOLATIONS_PER_LINE = 1 / 200
"""A default rule that the project violates more often is ignored (except Pyflakes' rules, which detect errors)."""
LENGTHS = (79, 80, 88, 90, 95, 99, 100, 110, 119, 120, 130, 140, 160)
"""Common limits of line length, in characters."""
WITHIN = 0.995
"""Share of the lines that a limit must cover."""
UNLIMITED = 320
"""ruff's largest limit."""
SHOWN = 4
"""Most habits that a reason names."""


@dataclass(frozen=True)
class _StyleRule:
    """A rule, its kind of opportunity (see `_opportunities`), and its name in a reason."""

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


def inferred_settings(tree: Tree, suite: TestSuite) -> LintSettings | None:
    """The settings that match the project's habits; None for a project that is too small or too mixed.

    The sample is from the repository's pristine files without its tests: neither the task's bug nor a patch is in it.
    """
    pristine = Tree(tree.root, known=tree.known)
    return _infer(TreeKey(pristine.digest, pristine), suite.python_path, suite.protected_files)


@lru_cache(maxsize=64)
def _infer(key: TreeKey, python_path: tuple[str, ...], protected: ProtectedFiles) -> LintSettings | None:
    texts = _sample(key.tree, protected)
    lines = [line for text in texts.values() for line in text.splitlines() if line.strip()]
    packages = first_party(key.tree, python_path)
    try:
        violations, quotes = _violations(texts, packages)
    except RuffError:
        return None
    habits = [*_habits(violations, _opportunities(texts)), *quotes]
    if not habits:
        return None
    length = _length(lines)
    most = max(1, VIOLATIONS_PER_LINE * len(lines))
    ignored = (rule for rule, count in violations.items() if count > most and not rule.startswith(("F", "I", "N", "D")))
    lint: dict[str, Any] = {
        "select": [*DEFAULT_RULES, *(code for code, _ in habits)],
        "ignore": sorted(ignored),
        "isort": {"known-first-party": packages},
    }
    if quotes:
        lint["flake8-quotes"] = {"inline-quotes": quotes[0][1].split()[0]}
    words = [*(words for _, words in habits), *([f"{length} columns"] if length < UNLIMITED else [])]
    options = as_options({"line-length": length, "lint": lint})
    return LintSettings(options, f"the project's habits ({listed(words, SHOWN)})")


def _sample(tree: Tree, protected: ProtectedFiles) -> dict[str, str]:
    """Path -> text of the files that the habits are inferred from."""
    paths = [path for path in tree.paths() if path.endswith(".py") and not protected.contains(path)]
    step = max(1.0, len(paths) / SAMPLE_FILES)
    chosen = [paths[int(index * step)] for index in range(min(SAMPLE_FILES, len(paths)))]
    texts = {path: read(tree, path) for path in chosen}
    return {path: text for path, text in texts.items() if text and len(text) <= LARGEST and parse(text) is not None}


def _violations(texts: dict[str, str], packages: list[str]) -> tuple[Counter[str], list[tuple[str, str]]]:
    """Rule -> number of violations in the texts; and the habit of quotes, or an empty list without one."""
    lint = {
        "select": [*DEFAULT_RULES, "Q000", *(rule.code for rule in RULES)],
        "ignore": ["E501"],
        "isort": {"known-first-party": packages},
    }
    with tempfile.TemporaryDirectory(prefix=f"regrade-{this_process()}-habits-") as name:
        for path, text in texts.items():
            target = Path(name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("utf-8", "surrogateescape"))
        violations = _count({**lint, "flake8-quotes": {"inline-quotes": "double"}}, Path(name))
        single = violations.pop("Q000", 0)
        double = _count({"select": ["Q000"], "flake8-quotes": {"inline-quotes": "single"}}, Path(name))["Q000"]
    quotes = []
    if single + double >= MIN_OPPORTUNITIES and min(single, double) <= STRICT * (single + double):
        quotes = [("Q000", "double quotes" if double > single else "single quotes")]
    return violations, quotes


def _count(lint: dict[str, Any], folder: Path) -> Counter[str]:
    return Counter(str(record["code"]) for record in check_folder(as_options({"lint": lint}), folder))


def _habits(violations: Counter[str], opportunities: Counter[str]) -> Iterator[tuple[str, str]]:
    for rule in RULES:
        possible = opportunities[rule.opportunity]
        least = MIN_MODULES if rule.opportunity.startswith("modules") else MIN_OPPORTUNITIES
        if possible >= least and violations[rule.code] <= rule.tolerance * possible:
            yield rule.code, rule.words


def _opportunities(texts: dict[str, str]) -> Counter[str]:
    """Kind -> number of places in the texts that could violate a rule of that kind."""
    totals: Counter[str] = Counter()
    for text in texts.values():
        tree = parse(text)
        assert tree is not None  # `_sample` has left out texts that do not parse
        totals["modules"] += 1
        totals["modules with imports"] += any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
        totals.update(_definitions(tree.body, "functions"))
    return totals


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
    """The smallest common limit that covers the lines."""
    for limit in LENGTHS:
        if sum(len(line) <= limit for line in lines) >= WITHIN * len(lines):
            return limit
    return UNLIMITED
