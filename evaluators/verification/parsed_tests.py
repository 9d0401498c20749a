"""The source text of a test file: where its tests are, their names, and their expectations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from regrade.datasets.syntax_trees import PARSE_ERRORS, parse_tree
from regrade.evaluators.verification.expectations import (
    CompoundStatement,
    Definition,
    Expectations,
    Form,
    Site,
    SourceText,
    assigned_in,
)

UNDEFINED = "its file does not define it as a function"
DOCTEST = "it is a doctest, of which no copy can be made"


class TestCopyError(ValueError):
    """A test can't be copied; the message is the reason."""

    __test__ = False


@dataclass(frozen=True)
class TestFunction:
    """A function of a test file, or several of one name, of which Python runs the last."""

    __test__ = False

    owner: str
    """Qualified name of its class; empty: none."""
    name: str
    names: tuple[tuple[int, int], ...]
    """Spans of the name in its definitions."""
    sites: tuple[Site, ...]
    """In the order of the file; END is the last."""
    added: tuple[int, str] | None = None
    """Of a method inherited from another file: the offset for a new method that calls it, and the indent."""

    @property
    def key(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


class TestFile:
    """A test file and the spans that a copy changes."""

    __test__ = False

    def __init__(self, path: str, text: str) -> None:
        """Raises TestCopyError: the text does not parse, or has characters that move offsets."""
        self.path = path
        self.text = text.replace("\r\n", "\n")
        if re.search(r"[\r\f\ud800-\udfff]", self.text):
            raise TestCopyError("it contains form feeds, lone carriage returns or bytes that are not UTF-8")
        try:
            self._module = parse_tree(self.text)
        except PARSE_ERRORS as error:
            raise TestCopyError(f"it does not parse: {error}") from error
        self._source = SourceText(self.text)
        self._definitions: dict[str, dict[str, list[Definition]]] = {}
        self._classes: dict[str, ast.ClassDef] = {}
        self._bases: dict[str, list[str]] = {}
        self._collect(self._module.body, "")
        self._functions: dict[tuple[str, str], TestFunction] = {}
        self._assigned = assigned_in(self._module)
        """Variable -> all values assigned to it in the file."""
        self._named: dict[str, list[ast.Name]] = {}
        self._mentioned: set[str] = set()
        for node in ast.walk(self._module):
            if isinstance(node, ast.Name):
                self._named.setdefault(node.id, []).append(node)
            elif isinstance(node, ast.Attribute | ast.arg):
                self._mentioned.add(node.attr if isinstance(node, ast.Attribute) else node.arg)
        self._mentioned |= self._named.keys()

    def function(self, test: str) -> TestFunction:
        """The function of a test, by the test's id. Raises TestCopyError if the file does not define it."""
        head, bracket, _ = test.partition("::")[2].partition("[")
        *owners, name = head.split("::")
        owner = self._owner_of(".".join(owners), name)
        if owner is None:
            if bracket or not name.isidentifier():
                raise TestCopyError(UNDEFINED if bracket or owners else DOCTEST)
            return self._inherited(".".join(owners), name)
        key = (owner, name)
        if key not in self._functions:
            nodes = self._definitions[owner][name]
            names = tuple(self._name_of(node) for node in nodes)
            expectations = Expectations(self._source, self._assigned, nodes[-1])
            self._functions[key] = TestFunction(owner, name, names, tuple(expectations.sites()))
        return self._functions[key]

    def uses_of(self, function: TestFunction) -> list[tuple[int, int]]:
        """Spans of a module-level function's name outside of its definitions."""
        return [] if function.owner else [self._source.span(node) for node in self._named.get(function.name, ())]

    def spare_tests(self, copied: Iterable[TestFunction]) -> list[tuple[int, int]]:
        """Spans of the tests that are not copied, and that nothing in the file uses."""
        keys = {(function.owner, function.name) for function in copied}
        return [
            span for owner, name, span in self._test_spans if (owner, name) not in keys and name not in self._mentioned
        ]

    @cached_property
    def _test_spans(self) -> list[tuple[str, str, tuple[int, int]]]:
        return [
            (owner, name, self._span_of_definition(node))
            for owner, named in self._definitions.items()
            for name, nodes in named.items()
            if name.startswith("test")
            for node in nodes
        ]

    def _span_of_definition(self, node: Definition) -> tuple[int, int]:
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        end = self._source.offset(node.end_lineno or line, node.end_col_offset or 0)
        return self._source.offset(line, node.col_offset), end

    @cached_property
    def imported(self) -> frozenset[str]:
        """Names of the modules that it imports, and of what may be a module in them that it uses."""
        modules: dict[str, str] = {}
        for node in ast.walk(self._module):
            if isinstance(node, ast.Import):
                modules |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules[node.module] = node.module
                modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        parts = [
            f"{modules[node.value.id]}.{node.attr}"
            for node in ast.walk(self._module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        ]
        return frozenset((*modules.values(), *parts))

    def _collect(self, body: Sequence[ast.stmt], owner: str) -> None:
        self._definitions.setdefault(owner, {})
        for node in body:
            if isinstance(node, Definition):
                self._definitions[owner].setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                name = f"{owner}.{node.name}" if owner else node.name
                self._classes[name] = node
                self._bases[name] = [
                    base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases
                ]
                self._collect(node.body, name)
            elif isinstance(node, CompoundStatement):
                for inner in _blocks_of(node):
                    self._collect(inner, owner)

    def _inherited(self, owner: str, name: str) -> TestFunction:
        """A method that a unittest.TestCase inherits from another file: it takes no arguments."""
        node = self._classes.get(owner)
        bases = {base for name in self._lineage(owner) for base in self._bases.get(name, ())}
        if node is None or not any(base.endswith("TestCase") for base in bases):
            raise TestCopyError(UNDEFINED)
        first, last = node.body[0], node.body[-1]
        if first.lineno == node.lineno:
            raise TestCopyError("its class is a single line")
        indent = self._source.lines[first.lineno - 1][: first.col_offset]
        start = self._source.offset(last.end_lineno or last.lineno, last.end_col_offset or 0)
        end = Site(start, start, Form.END, node.lineno, certain=True)
        return TestFunction(owner, name, (), (end,), (start, indent))

    def _lineage(self, owner: str) -> list[str]:
        """A class and its bases in this file."""
        lineage = [owner]
        for name in lineage:
            lineage += [base for base in self._bases.get(name, ()) if base in self._bases and base not in lineage]
        return lineage

    def _owner_of(self, owner: str, name: str) -> str | None:
        """The class that defines a test, among a class and its bases; None: none in this file."""
        return next((owner for owner in self._lineage(owner) if name in self._definitions.get(owner, ())), None)

    def _name_of(self, node: Definition) -> tuple[int, int]:
        start = self._source.offset(node.lineno, node.col_offset)
        match = re.compile(r"(?:async\s+)?def\s+(\w+)").match(self.text, start)
        if match is None or match[1] != node.name:
            raise TestCopyError("its name does not directly follow `def`")
        return match.span(1)


@lru_cache(maxsize=32)
def read_test_file(path: str, text: str) -> TestFile:
    """The test file, parsed. Raises TestCopyError: see `TestFile`."""
    return TestFile(path, text)


def _blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        inner = getattr(statement, name, None)
        if inner:
            yield inner
    for handler in getattr(statement, "handlers", ()):
        yield handler.body
