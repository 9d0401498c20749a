"""What one Python file defines, imports and names, read from its tree-sitter syntax tree."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import tree_sitter_python
from tree_sitter import Language, Node, Parser, Query, QueryCursor, Tree

MODULE = "<module>"
"""Stands for the statements of a module outside its functions, classes and assignments."""
SYMBOLS = """
[(function_definition) (class_definition)] @definition
(assignment) @assignment
"""
USES = """
[(import_statement) (import_from_statement)] @import
(attribute attribute: (identifier) @attribute) @chain
(keyword_argument name: (identifier) @keyword)
(identifier) @name
"""


@dataclass(frozen=True)
class Import:
    """One imported name."""

    dotted: str
    """What is imported, such as `a.b` or `a.b.name`; relative imports keep their leading dots: `..b.name`."""
    alias: str
    """The local name that it binds; `*` for a star import."""
    bound: str
    """What the local name stands for: `import a.b` binds `a` to `a`."""
    is_lazy: bool
    """Inside a function or under TYPE_CHECKING: it is not run when the module is imported."""
    is_guarded: bool
    """Inside a `try`: the module expects that it may fail."""
    is_module: bool
    """`import a.b`, which can only name a module."""


@dataclass(frozen=True)
class Facts:
    """One file. Symbols are qualified names of functions, classes, methods and top-level assignments, and MODULE."""

    is_sound: bool
    """Did it parse without an error?"""
    imports: tuple[Import, ...]
    bound: frozenset[str]
    """Every name that the module may offer, as far as can be told: rather too many than too few."""
    texts: Mapping[str, tuple[bytes, ...]]
    """Symbol -> its source, less that of the symbols inside it; several pieces where it is defined several times."""
    names: Mapping[str, frozenset[str]]
    """Symbol -> identifiers that it uses, attributes left out."""
    chains: Mapping[str, frozenset[str]]
    """Symbol -> dotted expressions that it uses, such as `os.path.join`."""
    attributes: Mapping[str, frozenset[str]]
    """Symbol -> names of the attributes that it uses, of whatever object."""


@lru_cache(maxsize=1)
def language() -> Language:
    return Language(tree_sitter_python.language())


@lru_cache(maxsize=2)
def query(source: str) -> Query:
    return Query(language(), source)


def syntax_tree(text: str) -> Tree:
    return Parser(language()).parse(text.encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=2048)
def facts(text: str) -> Facts:
    """The facts of one file; they depend on its text alone."""
    root = syntax_tree(text).root_node
    source = text.encode("utf-8", "surrogateescape")
    captures = QueryCursor(query(USES)).captures(root)
    definitions = QueryCursor(query(SYMBOLS)).captures(root)
    owners = Owners(root, spans(definitions))
    imports = sorted(captures.get("import", []), key=lambda node: node.start_byte)
    inside = [(node.start_byte, node.end_byte) for node in imports]
    plain = {node.start_byte for key in ("attribute", "keyword") for node in captures.get(key, [])}
    names = _grouped(
        owners,
        source,
        (
            node
            for node in captures.get("name", [])
            if node.start_byte not in plain and not _within(node.start_byte, inside)
        ),
    )
    imported = tuple(each for node in imports for each in _imported(node))
    targets = {name for node in definitions.get("assignment", []) for name in _targets(node)}
    return Facts(
        is_sound=not root.has_error,
        imports=imported,
        bound=frozenset({*owners.pieces, *targets, *names.get(MODULE, ()), *(each.alias for each in imported)}),
        texts={name: tuple(source[start:end] for start, end in pieces) for name, pieces in owners.pieces.items()},
        names=names,
        chains=_grouped(owners, source, (node for node in captures.get("chain", []) if _is_chain(node))),
        attributes=_grouped(owners, source, captures.get("attribute", [])),
    )


def spans(captures: Mapping[str, list[Node]]) -> list[tuple[int, int, str]]:
    """(first byte, last byte + 1, qualified name) of each symbol, outer ones first; nothing inside a function."""
    nodes = [(*_extent(node), node) for node in captures.get("definition", [])]
    nodes.sort(key=lambda each: (each[0], -each[1]))
    found: list[tuple[int, int, str]] = []
    enclosing: list[tuple[int, str, bool]] = []
    for start, end, node in nodes:
        while enclosing and enclosing[-1][0] <= start:
            enclosing.pop()
        name = _text(node.child_by_field_name("name"))
        prefix = f"{enclosing[-1][1]}." if enclosing else ""
        hidden = any(is_function for _, _, is_function in enclosing)
        enclosing.append((end, f"{prefix}{name}", node.type == "function_definition"))
        if not hidden:
            found.append((start, end, f"{prefix}{name}"))
    tops = [(start, end) for start, end, name in found if "." not in name]
    for node in captures.get("assignment", []):
        if not _within(node.start_byte, tops) and not _is_nested_assignment(node):
            found.extend((node.start_byte, node.end_byte, name) for name in _targets(node)[:1])
    return sorted(found, key=lambda span: (span[0], -span[1]))


class Owners:
    """Which symbol each byte of a file belongs to: the innermost one."""

    def __init__(self, root: Node, symbols: list[tuple[int, int, str]]) -> None:
        self.pieces: dict[str, list[tuple[int, int]]] = {}
        self._starts: list[int] = []
        self._names: list[str] = []
        open_spans: list[tuple[int, str]] = [(root.end_byte, MODULE)]
        position = 0
        for start, end, name in symbols:
            while open_spans[-1][0] <= start:
                position = self._piece(position, *open_spans.pop())
            position = self._piece(position, start, open_spans[-1][1])
            open_spans.append((end, name))
        while open_spans:
            position = self._piece(position, *open_spans.pop())

    def _piece(self, start: int, end: int, name: str) -> int:
        if end > start:
            self._starts.append(start)
            self._names.append(name)
            self.pieces.setdefault(name, []).append((start, end))
        return max(start, end)

    def of(self, byte: int) -> str:
        index = bisect_right(self._starts, byte) - 1
        return self._names[index] if index >= 0 else MODULE


def _grouped(owners: Owners, source: bytes, nodes: Iterator[Node] | list[Node]) -> dict[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        start = node.start_byte
        found[owners.of(start)].add(source[start : node.end_byte].decode("utf-8", "surrogateescape"))
    return {name: frozenset(texts) for name, texts in found.items()}


def _extent(node: Node) -> tuple[int, int]:
    """The bytes of a definition, its decorators included."""
    parent = node.parent
    whole = parent if parent is not None and parent.type == "decorated_definition" else node
    return whole.start_byte, whole.end_byte


def _targets(assignment: Node) -> list[str]:
    left = assignment.child_by_field_name("left")
    if left is None:
        return []
    if left.type == "identifier":
        return [_text(left)]
    if left.type in ("pattern_list", "tuple_pattern"):
        return [_text(child) for child in left.named_children if child.type == "identifier"]
    return []


def _is_nested_assignment(node: Node) -> bool:
    """The inner one of `a = b = 1`."""
    return node.parent is not None and node.parent.type == "assignment"


def _is_chain(node: Node) -> bool:
    part: Node | None = node
    while part is not None and part.type == "attribute":
        part = part.child_by_field_name("object")
    return part is not None and part.type == "identifier"


def _imported(node: Node) -> Iterator[Import]:
    is_lazy, is_guarded = _circumstances(node)
    module = node.child_by_field_name("module_name")
    base = re.sub(r"\s", "", _text(module)) if module is not None else ""
    if any(child.type == "wildcard_import" for child in node.children):
        yield Import(base, "*", base, is_lazy, is_guarded, is_module=True)
    for child in node.children_by_field_name("name"):
        renamed = child.child_by_field_name("alias")
        name = _text(child.child_by_field_name("name") if renamed is not None else child)
        if module is None:
            first = name.partition(".")[0]
            alias, bound = (_text(renamed), name) if renamed is not None else (first, first)
            yield Import(name, alias, bound, is_lazy, is_guarded, is_module=True)
        else:
            dotted = base + name if base.endswith(".") else f"{base}.{name}"
            alias = _text(renamed) if renamed is not None else name
            yield Import(dotted, alias, dotted, is_lazy, is_guarded, is_module=False)


def _circumstances(node: Node) -> tuple[bool, bool]:
    is_lazy = is_guarded = False
    parent = node.parent
    while parent is not None:
        condition = _text(parent.child_by_field_name("condition")) if parent.type == "if_statement" else ""
        if parent.type == "function_definition" or "TYPE_CHECKING" in condition:
            is_lazy = True
        elif parent.type == "try_statement":
            is_guarded = True
        parent = parent.parent
    return is_lazy, is_guarded


def _within(byte: int, sorted_spans: list[tuple[int, int]]) -> bool:
    index = bisect_right(sorted_spans, (byte, 1 << 62)) - 1
    return index >= 0 and sorted_spans[index][0] <= byte < sorted_spans[index][1]


def _text(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape") if node is not None else ""
