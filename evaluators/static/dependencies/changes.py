"""The symbols of a file that a patch changes, with a weight for the effect on their users."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache

from tree_sitter import Node

from regrade.evaluators.static.dependencies.facts import MODULE, SymbolMap, captured, facts, spans, syntax_tree
from regrade.evaluators.static.languages import Language
from regrade.evaluators.static.languages.language import text_of

REMOVED = 1.0
SIGNATURE = 1.0
BODY = 0.3
"""Weights of a change: a removed name, a signature, a body alone. An unchanged syntax tree weighs 0."""

Shape = tuple[tuple[str, ...], tuple[str, ...]]
"""Tokens of the signature, tokens of the body."""


def changed_symbols(before: str | None, after: str | None, language: Language) -> dict[str, float]:
    """Symbol -> weight in (0, 1], for the symbols of `before` that `after` changes or removes.

    The comparison ignores comments, docstrings and layout. New symbols are left out: nothing depends on them yet.
    """
    if before is None:
        return {}
    old = facts(before, language).texts
    if after is None:
        return dict.fromkeys(old, REMOVED)
    new, importable = facts(after, language).texts, facts(after, language).importable
    touched = frozenset(name for name in old if old[name] != new.get(name))
    # Users still get a function that the module now imports from another one.
    weights = {name: BODY if name in importable else REMOVED for name in touched if name not in new and name != MODULE}
    old_shapes, new_shapes = _shapes(before, touched, language), _shapes(after, touched, language)
    for name in touched - weights.keys():
        if old_shapes.get(name) != new_shapes.get(name):
            has_same_signature = old_shapes.get(name, ((), ()))[0] == new_shapes.get(name, ((), ()))[0]
            weights[name] = BODY if has_same_signature else SIGNATURE
    return weights


@lru_cache(maxsize=256)
def _shapes(text: str, symbols: frozenset[str], language: Language) -> dict[str, Shape]:
    root = syntax_tree(text, language).root_node
    symbol_map = SymbolMap(root, spans(captured(language.symbols_query, root), language))
    pieces = [piece for name in symbols for piece in symbol_map.pieces.get(name, ())]
    signatures: dict[str, list[str]] = {name: [] for name in symbols}
    bodies: dict[str, list[str]] = {name: [] for name in symbols}
    for byte, token, in_signature in _tokens(root, pieces, language):
        name = symbol_map.of(byte)
        if name in symbols:
            (signatures if in_signature else bodies)[name].append(token)
    return {name: (tuple(signatures[name]), tuple(bodies[name])) for name in symbols}


def _tokens(root: Node, pieces: list[tuple[int, int]], language: Language) -> Iterator[tuple[int, str, bool]]:
    """(byte, token, is it part of a signature?) in source order, of the nodes that overlap one of the pieces.

    Comments, docstrings and imports are left out. The end of a block that only layout ends is a token of its own:
    without it, a line that leaves its block would not be a change.
    """
    pieces = sorted(pieces)  # they are disjoint
    firsts = [first for first, _ in pieces]
    pending: list[tuple[Node | None, int, bool]] = [(root, 0, False)]
    while pending:
        node, byte, in_signature = pending.pop()
        if node is None:
            yield byte, "</block>", in_signature
            continue
        start, end = node.start_byte, node.end_byte
        before_end = bisect_left(firsts, end)
        overlaps = before_end > 0 and pieces[before_end - 1][1] > start
        if not overlaps or _is_silent(node, language):
            continue
        yield start, f"<{node.type}>" if node.child_count else text_of(node), in_signature
        if node.type == language.block:
            pending.append((None, start, in_signature))
        body = node.child_by_field_name("body") if node.type in language.definitions else node
        is_part = [(child, in_signature or (body is not node and child != body)) for child in reversed(node.children)]
        pending.extend((child, child.start_byte, part) for child, part in is_part)


def _is_silent(node: Node, language: Language) -> bool:
    if node.type == "expression_statement" and language.has_docstrings:
        return [child.type for child in node.children] == ["string"]
    return node.type in language.comments
