"""What a language is to the dependency graph: a grammar, two queries and how its imports name things."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import tree_sitter
from tree_sitter import Node, Query

Names = Iterable[tuple[str, str]]
"""(dotted name, path of the file or key of the package) of what can be imported."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name."""

    dotted: str
    """What is imported, such as `a.b` or `a.b.name`, as the file writes it (see `Language.absolute`)."""
    alias: str
    """The local name that it binds; `*` for a star import; empty where it binds none."""
    bound: str
    """What the local name stands for: `import a.b` binds `a` to `a`."""
    is_lazy: bool = False
    """Not run when the module is imported: inside a function, under TYPE_CHECKING, a type alone."""
    is_guarded: bool = False
    """Inside a `try`: the module expects that it may fail."""
    is_module: bool = False
    """It can only name a module, not something inside one."""


@dataclass(frozen=True)
class Sources:
    """The files of one language in a tree, to find out what they are imported by."""

    texts: Mapping[str, str]
    """Path -> text."""
    manifests: Mapping[str, str]
    """Path -> text of the files that say what packages are called, such as go.mod and Cargo.toml."""
    python_path: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Language:
    """One row of the table of languages."""

    name: str
    suffixes: tuple[str, ...]
    grammar: Callable[[], object]
    symbols: str
    """Query: `@definition` of what has a name and a body, `@assignment` of what has targets."""
    uses: str
    """Query: `@import`, `@chain` (dotted expressions), `@attribute` and `@keyword` (names that are looked up in
    something else), `@name`, and `@alias` (exports under another name)."""
    functions: frozenset[str]
    """Types of definitions inside which nothing is a symbol of its own."""
    definitions: frozenset[str]
    """Types of nodes that have a signature: all of them but the field `body`."""
    comments: frozenset[str]
    """Types of nodes that say nothing of what the code does: comments and imports."""
    imported: Callable[[Node], Iterator[Import]]
    targets: Callable[[Node], list[str]]
    """The names that an assignment defines."""
    names: Callable[[Sources], Names]
    """What the files are imported by."""
    absolute: Callable[[str, str, str], str]
    """(name as imported, path of the file, the name that the file itself is imported by) -> name as in `names`."""
    tests: str
    """Regular expression of the names of test files."""
    test_folders: frozenset[str] = frozenset()
    """Names of the folders whose files are tests, whatever they are called."""
    beside: Callable[[str, str], str] | None = None
    """(name as imported, own name of the file) -> the name of a neighbour, tried where `absolute` finds nothing."""
    name_of: Callable[[Node], str] = lambda node: text_of(node.child_by_field_name("name"))
    dotted: Callable[[Node], str] = lambda node: text_of(node)
    """A `@chain` as a dotted name; empty where it is none."""
    aliases: Callable[[Node], Iterator[tuple[str, str]]] = lambda _: iter(())
    """(exported name, symbol of the same file)"""
    packages: Callable[[Sources], Mapping[str, str]] = lambda _: {}
    """Path -> key of the package whose files see each other's names without an import."""
    rooted: frozenset[str] = frozenset()
    """First names of dotted expressions that name modules without an import."""
    is_rooted_anywhere: bool = False
    """May a dotted expression start with any package, as `shop::total` does where nothing imports `shop`?"""
    has_default: bool = False
    """May a module itself be what is used, as `require("./add")(1)` does?"""
    has_docstrings: bool = False
    block: str = ""
    """Type of the nodes that only layout ends, so that their end is a token of its own."""

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
    """Is a dotted expression made of `link` nodes alone, each over its field `below`, down to one of the types?"""
    part: Node | None = node
    while part is not None and part.type == link:
        part = part.child_by_field_name(below)
    return part is not None and part.type in start
