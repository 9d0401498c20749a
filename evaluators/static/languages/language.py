"""A language of the dependency graph: its grammar, two queries, and the meaning of its imports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import tree_sitter
from tree_sitter import Node, Query

MAX_LINKS = 32
"""Most dots of an expression that may name a module or a member of one."""
Names = Iterable[tuple[str, str]]
"""(importable dotted name, path of the file or key of the package)"""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name."""

    dotted: str
    """The imported name, such as `a.b` or `a.b.name`, as the file writes it (see `Language.absolute`)."""
    alias: str
    """The local name that the import binds; `*` for a star import; empty without one."""
    bound: str
    """The name that the local name refers to: `import a.b` binds `a` to `a`."""
    is_lazy: bool = False
    """The statement does not run when its module is imported: in a function, under TYPE_CHECKING, or for types."""
    is_guarded: bool = False
    """The import is inside a `try`: the module handles its failure."""
    is_module: bool = False
    """The import can only name a module, not a member of one."""


@dataclass(frozen=True)
class Sources:
    """The files of one language in a tree, for `Language.names`."""

    texts: Mapping[str, str]
    """Path -> text."""
    manifests: Mapping[str, str]
    """Path -> text of the files that name packages, such as go.mod and Cargo.toml."""
    python_path: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Language:
    """One row of the table of languages."""

    name: str
    suffixes: tuple[str, ...]
    grammar: Callable[[], object]
    symbols: str
    """Query: `@definition` (nodes with a name and a body), `@assignment` (nodes with targets)."""
    uses: str
    """Query: `@import`, `@chain` (dotted expressions), `@attribute` and `@keyword` (names that are resolved in another
    object), `@name`, and `@alias` (exports under another name)."""
    functions: frozenset[str]
    """Types of definitions whose inner definitions are no symbols."""
    definitions: frozenset[str]
    """Types of nodes with a signature, which is the whole node except its field `body`."""
    comments: frozenset[str]
    """Types of nodes without behaviour: comments and imports."""
    imported: Callable[[Node], Iterator[Import]]
    targets: Callable[[Node], list[str]]
    """The names that an assignment defines."""
    names: Callable[[Sources], Names]
    """The names that import the files."""
    absolute: Callable[[str, str, str], str]
    """(name as imported, path of the importing file, that file's own name) -> name as in `names`."""
    tests: str
    """Regular expression that matches the names of test files."""
    test_folders: frozenset[str] = frozenset()
    """Names of the folders whose files are all tests."""
    beside: Callable[[str, str], str] | None = None
    """(name as imported, own name of the file) -> name of a neighbour, tried if `absolute` does not resolve."""
    name_of: Callable[[Node], str] = lambda node: text_of(node.child_by_field_name("name"))
    dotted: Callable[[Node], str] = lambda node: text_of(node)
    """A `@chain` as a dotted name; empty for other expressions."""
    aliases: Callable[[Node], Iterator[tuple[str, str]]] = lambda _: iter(())
    """(exported name, symbol of the same file)"""
    packages: Callable[[Sources], Mapping[str, str]] = lambda _: {}
    """Path -> key of its package, whose files share names without an import."""
    rooted: frozenset[str] = frozenset()
    """First names of dotted expressions that name modules without an import."""
    is_rooted_anywhere: bool = False
    """Can a dotted expression start with any package, as `shop::total` does where nothing imports `shop`?"""
    has_default: bool = False
    """Can code use a module itself as a value, as `require("./add")(1)` does?"""
    has_docstrings: bool = False
    block: str = ""
    """Type of the nodes that only layout ends: their end is a token of its own."""

    @cached_property
    def grammar_of(self) -> tree_sitter.Language:
        return tree_sitter.Language(self.grammar())

    @cached_property
    def symbols_query(self) -> Query:
        return Query(self.grammar_of, self.symbols)

    @cached_property
    def uses_query(self) -> Query:
        return Query(self.grammar_of, self.uses)

    @cached_property
    def test_pattern(self) -> re.Pattern[str]:
        return re.compile(self.tests)


def text_of(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape") if node is not None else ""


def inside(node: Node, *types: str) -> bool:
    """Is the node inside one of these types?"""
    parent = node.parent
    while parent is not None:
        if parent.type in types:
            return True
        parent = parent.parent
    return False


def plain_chain(node: Node, link: str, below: str, start: tuple[str, ...]) -> bool:
    """Does a dotted expression consist of `link` nodes, nested in their field `below`, down to one of the types?

    False for more than MAX_LINKS: each part of an expression is an expression, so the time would be quadratic.
    """
    part: Node | None = node
    for _ in range(MAX_LINKS):
        if part is None or part.type != link:
            break
        part = part.child_by_field_name(below)
    return part is not None and part.type in start
