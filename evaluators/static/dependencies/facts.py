"""What one file defines, imports and names, read from its tree-sitter syntax tree."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tree_sitter import Node, Parser, QueryCursor, Tree

from regrade.evaluators.static.languages import Import, Language

MODULE = "<module>"
"""Stands for the statements of a module outside its functions, classes and assignments."""


@dataclass(frozen=True, kw_only=True)
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
    aliases: tuple[tuple[str, str], ...] = ()
    """(name under which a symbol is exported as well, the symbol)"""


def syntax_tree(text: str, language: Language) -> Tree:
    return Parser(language.grammar_of).parse(text.encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=1024)  # each patched file is a new text, and what is kept of one is several times as long
def facts(text: str, language: Language) -> Facts:
    """The facts of one file; they depend on its text and language alone."""
    root = syntax_tree(text, language).root_node
    source = text.encode("utf-8", "surrogateescape")
    captures = QueryCursor(language.uses_query).captures(root)
    definitions = QueryCursor(language.symbols_query).captures(root)
    owners = Owners(root, spans(definitions, language))
    imports = sorted(captures.get("import", []), key=lambda node: node.start_byte)
    found = [(node, tuple(language.imported(node))) for node in imports]
    within = [(node.start_byte, node.end_byte) for node, each in found if each]
    plain = {node.start_byte for key in ("attribute", "keyword") for node in captures.get(key, [])}
    names = _grouped(
        owners,
        source,
        (
            node
            for node in captures.get("name", [])
            if node.start_byte not in plain and not _within(node.start_byte, within)
        ),
    )
    imported = tuple(dict.fromkeys(each for _, several in found for each in several))
    targets = {name for node in definitions.get("assignment", []) for name in language.targets(node)}
    aliases = tuple(
        pair for node in captures.get("alias", []) for pair in language.aliases(node) if pair[1] and pair[0] != pair[1]
    )
    offered = {*owners.pieces, *targets, *names.get(MODULE, ()), *(each.alias for each in imported)}
    return Facts(
        is_sound=not root.has_error,
        imports=imported,
        bound=frozenset({*offered, *(alias for alias, _ in aliases)}),
        texts={name: tuple(source[start:end] for start, end in pieces) for name, pieces in owners.pieces.items()},
        names=names,
        chains=_chains(owners, captures.get("chain", []), language),
        attributes=_grouped(owners, source, captures.get("attribute", [])),
        aliases=aliases,
    )


def spans(captures: Mapping[str, list[Node]], language: Language) -> list[tuple[int, int, str]]:
    """(first byte, last byte + 1, qualified name) of each symbol, outer ones first; nothing inside a function."""
    nodes = [(*_extent(node), node) for node in captures.get("definition", [])]
    nodes.sort(key=lambda each: (each[0], -each[1]))
    found: list[tuple[int, int, str]] = []
    enclosing: list[tuple[int, str, bool]] = []
    for start, end, node in nodes:
        while enclosing and enclosing[-1][0] <= start:
            enclosing.pop()
        name = language.name_of(node)
        prefix = f"{enclosing[-1][1]}." if enclosing else ""
        hidden = any(is_function for _, _, is_function in enclosing)
        enclosing.append((end, f"{prefix}{name}", node.type in language.functions))
        if not hidden:
            found.append((start, end, f"{prefix}{name}"))
    tops = _outermost([(start, end) for start, end, _ in found])
    last = 0
    for node in sorted(captures.get("assignment", []), key=lambda each: (each.start_byte, -each.end_byte)):
        if node.start_byte < last or _within(node.start_byte, tops):
            continue  # inside another assignment, or inside a definition
        last = node.end_byte
        found.extend((node.start_byte, node.end_byte, name) for name in language.targets(node)[:1])
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
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    for node in nodes:
        start = node.start_byte
        found[owners.of(start)].add(source[start : node.end_byte])
    return {name: frozenset(text.decode("utf-8", "surrogateescape") for text in texts) for name, texts in found.items()}


def _chains(owners: Owners, nodes: list[Node], language: Language) -> dict[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        dotted = language.dotted(node)
        if dotted:
            found[owners.of(node.start_byte)].add(dotted)
    return {name: frozenset(texts) for name, texts in found.items()}


def _extent(node: Node) -> tuple[int, int]:
    """The bytes of a definition, its decorators included."""
    parent = node.parent
    whole = parent if parent is not None and parent.type == "decorated_definition" else node
    return whole.start_byte, whole.end_byte


def _outermost(sorted_spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that no earlier one holds."""
    found: list[tuple[int, int]] = []
    for start, end in sorted_spans:
        if not found or start >= found[-1][1]:
            found.append((start, end))
    return found


def _within(byte: int, sorted_spans: list[tuple[int, int]]) -> bool:
    index = bisect_right(sorted_spans, (byte, 1 << 62)) - 1
    return index >= 0 and sorted_spans[index][0] <= byte < sorted_spans[index][1]
