"""Definitions, imports and names of one file, from its tree-sitter syntax tree."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from tree_sitter import Node, Parser, Query, QueryCursor, Tree

from regrade.evaluators.static.languages import Import, Language

MAX_DEPTH = 1000
"""Depth of a syntax tree up to which its names are read."""
MODULE = "<module>"
"""The symbol for a module's statements outside its functions, classes and assignments."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One file. A symbol is the qualified name of a function, class, method or top-level assignment, or MODULE."""

    is_sound: bool
    """Did it parse without an error?"""
    imports: tuple[Import, ...]
    importable: frozenset[str]
    """Every name that other modules may import from this one: an over-approximation."""
    texts: Mapping[str, tuple[bytes, ...]]
    """Symbol -> its source without the symbols inside it, in one or more pieces."""
    names: Mapping[str, frozenset[str]]
    """Symbol -> identifiers that it uses, attributes left out."""
    chains: Mapping[str, frozenset[str]]
    """Symbol -> dotted expressions that it uses, such as `os.path.join`."""
    attributes: Mapping[str, frozenset[str]]
    """Symbol -> names of the attributes that it uses, of any object."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(additional exported name, symbol)"""


def syntax_tree(text: str, language: Language) -> Tree:
    return Parser(language.grammar_of).parse(text.encode("utf-8", "surrogateescape"))


def captured(query: Query, root: Node) -> dict[str, list[Node]]:
    """The captures of a query, without nodes below MAX_DEPTH: tree-sitter takes time quadratic in the depth."""
    cursor = QueryCursor(query)
    cursor.set_max_start_depth(MAX_DEPTH)
    return cursor.captures(root)


@lru_cache(maxsize=1024)  # each patched file is a new text, and its facts are several times as large
def facts(text: str, language: Language) -> Facts:
    """The facts of one file, from its text and language alone."""
    root = syntax_tree(text, language).root_node
    source = text.encode("utf-8", "surrogateescape")
    captures = captured(language.uses_query, root)
    definitions = captured(language.symbols_query, root)
    symbols = SymbolMap(root, spans(definitions, language))
    import_nodes = sorted(captures.get("import", []), key=lambda node: node.start_byte)
    statements = [(node, tuple(language.imported(node))) for node in import_nodes]
    import_spans = [(node.start_byte, node.end_byte) for node, imports in statements if imports]
    lookups = {node.start_byte for key in ("attribute", "keyword") for node in captures.get(key, [])}
    name_nodes = (node for node in captures.get("name", []) if node.start_byte not in lookups)
    names = _grouped(symbols, source, (node for node in name_nodes if not _within(node.start_byte, import_spans)))
    imported = tuple(dict.fromkeys(item for _, imports in statements for item in imports))
    targets = {name for node in definitions.get("assignment", []) for name in language.targets(node)}
    aliases = tuple(
        pair for node in captures.get("alias", []) for pair in language.aliases(node) if pair[1] and pair[0] != pair[1]
    )
    offered = {*symbols.pieces, *targets, *names.get(MODULE, ()), *(item.alias for item in imported)}
    return Facts(
        is_sound=not root.has_error,
        imports=imported,
        importable=frozenset({*offered, *(alias for alias, _ in aliases)}),
        texts={name: tuple(source[start:end] for start, end in pieces) for name, pieces in symbols.pieces.items()},
        names=names,
        chains=_chains(symbols, captures.get("chain", []), language),
        attributes=_grouped(symbols, source, captures.get("attribute", [])),
        aliases=aliases,
    )


def spans(captures: Mapping[str, list[Node]], language: Language) -> list[tuple[int, int, str]]:
    """(first byte, last byte + 1, qualified name) of each symbol, outer ones first; none inside functions."""
    nodes = [(*_extent(node), node) for node in captures.get("definition", [])]
    nodes.sort(key=lambda extent: (extent[0], -extent[1]))
    symbols: list[tuple[int, int, str]] = []
    enclosing: list[tuple[int, str, bool]] = []
    for start, end, node in nodes:
        while enclosing and enclosing[-1][0] <= start:
            enclosing.pop()
        name = language.name_of(node)
        prefix = f"{enclosing[-1][1]}." if enclosing else ""
        is_local = any(is_function for _, _, is_function in enclosing)
        enclosing.append((end, f"{prefix}{name}", node.type in language.functions))
        if not is_local:
            symbols.append((start, end, f"{prefix}{name}"))
    outermost = _outermost([(start, end) for start, end, _ in symbols])
    last = 0
    for node in sorted(captures.get("assignment", []), key=lambda node: (node.start_byte, -node.end_byte)):
        if node.start_byte < last or _within(node.start_byte, outermost):
            continue  # inside another assignment, or inside a definition
        last = node.end_byte
        symbols.extend((node.start_byte, node.end_byte, name) for name in language.targets(node)[:1])
    return sorted(symbols, key=lambda span: (span[0], -span[1]))


class SymbolMap:
    """Maps each byte of a file to its innermost symbol; `pieces`: symbol -> its (first byte, last byte + 1) pairs."""

    def __init__(self, root: Node, symbols: list[tuple[int, int, str]]) -> None:
        self.pieces: dict[str, list[tuple[int, int]]] = {}
        self._starts: list[int] = []
        self._names: list[str] = []
        open_spans: list[tuple[int, str]] = [(root.end_byte, MODULE)]
        position = 0
        for start, end, name in symbols:
            while open_spans[-1][0] <= start:
                position = self._add_piece(position, *open_spans.pop())
            position = self._add_piece(position, start, open_spans[-1][1])
            open_spans.append((end, name))
        while open_spans:
            position = self._add_piece(position, *open_spans.pop())

    def _add_piece(self, start: int, end: int, name: str) -> int:
        if end > start:
            self._starts.append(start)
            self._names.append(name)
            self.pieces.setdefault(name, []).append((start, end))
        return max(start, end)

    def of(self, byte: int) -> str:
        index = bisect_right(self._starts, byte) - 1
        return self._names[index] if index >= 0 else MODULE


def _grouped(symbols: SymbolMap, source: bytes, nodes: Iterator[Node] | list[Node]) -> dict[str, frozenset[str]]:
    groups: defaultdict[str, set[bytes]] = defaultdict(set)
    for node in nodes:
        start = node.start_byte
        groups[symbols.of(start)].add(source[start : node.end_byte])
    decoded = partial(bytes.decode, encoding="utf-8", errors="surrogateescape")
    return {name: frozenset(map(decoded, texts)) for name, texts in groups.items()}


def _chains(symbols: SymbolMap, nodes: list[Node], language: Language) -> dict[str, frozenset[str]]:
    chains: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        dotted = language.dotted(node)
        if dotted:
            chains[symbols.of(node.start_byte)].add(dotted)
    return {name: frozenset(texts) for name, texts in chains.items()}


def _extent(node: Node) -> tuple[int, int]:
    """The bytes of a definition, its decorators included."""
    parent = node.parent
    whole = parent if parent is not None and parent.type == "decorated_definition" else node
    return whole.start_byte, whole.end_byte


def _outermost(sorted_spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans that no earlier span contains."""
    outermost: list[tuple[int, int]] = []
    for start, end in sorted_spans:
        if not outermost or start >= outermost[-1][1]:
            outermost.append((start, end))
    return outermost


def _within(byte: int, sorted_spans: list[tuple[int, int]]) -> bool:
    index = bisect_right(sorted_spans, (byte, 1 << 62)) - 1
    return index >= 0 and sorted_spans[index][0] <= byte < sorted_spans[index][1]
