"""A file of tests as it is written: where its tests stand, how they are named, and what they expect."""

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

UNDEFINED = "its file does not define it as a function of its own"


class TestCopyError(ValueError):
    """No copy of a test can be made; says why."""

    __test__ = False


@dataclass(frozen=True)
class TestFunction:
    """A function of a test file, or several of one name, of which the last counts."""

    __test__ = False

    owner: str
    """Qualified name of its class; empty: it has none."""
    name: str
    names: tuple[tuple[int, int], ...]
    """Where its definitions have their name."""
    sites: tuple[Site, ...]
    """In the order of the file; the END is the last."""
    added: tuple[int, str] | None = None
    """Of a method that the class inherits from elsewhere: where one may be added that calls it, and the indent."""

    @property
    def key(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


class TestFile:
    """A test file and what may be changed in it."""

    __test__ = False

    def __init__(self, path: str, text: str) -> None:
        """Raises TestCopyError: it can't be read as Python that keeps its form."""
        self.path = path
        self.text = text.replace("\r\n", "\n")
        if re.search(r"[\r\f\ud800-\udfff]", self.text):
            raise TestCopyError("it holds bytes that are no plain text")
        try:
            self._module = parse_tree(self.text)
        except PARSE_ERRORS as error:
            raise TestCopyError(f"it is no Python: {error}") from error
        self._source = SourceText(self.text)
        self._definitions: dict[str, dict[str, list[Definition]]] = {}
        self._classes: dict[str, ast.ClassDef] = {}
        self._bases: dict[str, list[str]] = {}
        self._collect(self._module.body, "")
        self._functions: dict[tuple[str, str], TestFunction] = {}
        self._assigned = assigned_in(self._module)
        """Variable -> all that is assigned to it in the file."""
        self._named: dict[str, list[ast.Name]] = {}
        self._mentioned: set[str] = set()
        for each in ast.walk(self._module):
            if isinstance(each, ast.Name):
                self._named.setdefault(each.id, []).append(each)
            elif isinstance(each, ast.Attribute | ast.arg):
                self._mentioned.add(each.attr if isinstance(each, ast.Attribute) else each.arg)
        self._mentioned |= self._named.keys()

    def function(self, test: str) -> TestFunction:
        """The function of a test by its id. Raises TestCopyError where the file does not define it."""
        head, bracket, _ = test.partition("::")[2].partition("[")
        *owners, name = head.split("::")
        owner = self._owner_of(".".join(owners), name)
        if owner is None:
            if bracket or not name.isidentifier():
                raise TestCopyError(UNDEFINED)
            return self._inherited(".".join(owners), name)
        key = (owner, name)
        if key not in self._functions:
            nodes = self._definitions[owner][name]
            names = tuple(self._name_of(node) for node in nodes)
            expectations = Expectations(self._source, self._assigned, nodes[-1])
            self._functions[key] = TestFunction(owner, name, names, tuple(expectations.sites()))
        return self._functions[key]

    def uses_of(self, function: TestFunction) -> list[tuple[int, int]]:
        """Where else in the file a function of the module is named."""
        return [] if function.owner else [self._source.span(node) for node in self._named.get(function.name, ())]

    def others(self, kept: Iterable[TestFunction]) -> list[tuple[int, int]]:
        """Where tests stand that nothing in the file needs, but for some."""
        keys = {(function.owner, function.name) for function in kept}
        return [span for owner, name, span in self._spare if (owner, name) not in keys and name not in self._mentioned]

    @cached_property
    def _spare(self) -> list[tuple[str, str, tuple[int, int]]]:
        return [
            (owner, name, self._span_of_definition(node))
            for owner, named in self._definitions.items()
            for name, nodes in named.items()
            if name.startswith("test")
            for node in nodes
        ]

    def _span_of_definition(self, node: Definition) -> tuple[int, int]:
        line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        end = self._source.offset(node.end_lineno or line, node.end_col_offset or 0)
        return self._source.offset(line, node.col_offset), end

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
        """A method that a case of unittest has from another file: it takes no arguments."""
        node = self._classes.get(owner)
        bases = {base for each in self._lineage(owner) for base in self._bases.get(each, ())}
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
        found = [owner]
        for each in found:
            found += [base for base in self._bases.get(each, ()) if base in self._bases and base not in found]
        return found

    def _owner_of(self, owner: str, name: str) -> str | None:
        """The class that defines a test, among a class and its bases; None: no one here."""
        return next((each for each in self._lineage(owner) if name in self._definitions.get(each, ())), None)

    def _name_of(self, node: Definition) -> tuple[int, int]:
        start = self._source.offset(node.lineno, node.col_offset)
        found = re.compile(r"(?:async\s+)?def\s+(\w+)").match(self.text, start)
        if found is None or found[1] != node.name:
            raise TestCopyError("the place of its name is not clear")
        return found.span(1)


@lru_cache(maxsize=32)
def read_test_file(path: str, text: str) -> TestFile:
    """Raises TestCopyError: see `TestFile`."""
    return TestFile(path, text)


def _blocks_of(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        inner = getattr(statement, name, None)
        if inner:
            yield inner
    for handler in getattr(statement, "handlers", ()):
        yield handler.body
