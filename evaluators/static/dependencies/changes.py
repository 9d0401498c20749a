"""Which symbols of a file a patch changes, and how much that matters to others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from tree_sitter import Node, QueryCursor

from regrade.evaluators.static.dependencies.facts import MODULE, Owners, facts, spans, syntax_tree
from regrade.evaluators.static.languages import Language

REMOVED = 1.0
SIGNATURE = 1.0
BODY = 0.3
"""Weights of a change: of a name that is gone, of a signature, of a body alone. An unchanged syntax tree weighs 0."""

Shape = tuple[tuple[str, ...], tuple[str, ...]]
"""Tokens of the signature, tokens of the body."""


def changed_symbols(before: str | None, after: str | None, language: Language) -> dict[str, float]:
    """Symbol -> weight, for the symbols that were there before and are not the same after.

    Comments, docstrings and layout are no part of the syntax tree that is compared. New symbols weigh nothing: nobody
    depends on them yet.
    """
    if before is None:
        return {}
    old = facts(before, language).texts
    if after is None:
        return dict.fromkeys(old, REMOVED)
    new, bound = facts(after, language).texts, facts(after, language).bound
    touched = frozenset(name for name in old if old[name] != new.get(name))
    # A function that the module now imports from elsewhere is still there.
    weights = {name: BODY if name in bound else REMOVED for name in touched if name not in new and name != MODULE}
    was, now = _shapes(before, touched, language), _shapes(after, touched, language)
    for name in touched - weights.keys():
        if was.get(name) != now.get(name):
            same_signature = was.get(name, ((), ()))[0] == now.get(name, ((), ()))[0]
            weights[name] = BODY if same_signature else SIGNATURE
    return weights


@lru_cache(maxsize=256)
def _shapes(text: str, wanted: frozenset[str], language: Language) -> dict[str, Shape]:
    root = syntax_tree(text, language).root_node
    owners = Owners(root, spans(QueryCursor(language.symbols_query).captures(root), language))
    pieces = [piece for name in wanted for piece in owners.pieces.get(name, ())]
    signatures: dict[str, list[str]] = {name: [] for name in wanted}
    bodies: dict[str, list[str]] = {name: [] for name in wanted}
    for byte, token, in_signature in _tokens(root, pieces, language):
        name = owners.of(byte)
        if name in wanted:
            (signatures if in_signature else bodies)[name].append(token)
    return {name: (tuple(signatures[name]), tuple(bodies[name])) for name in wanted}


def _tokens(root: Node, pieces: list[tuple[int, int]], language: Language) -> Iterator[tuple[int, str, bool]]:
    """(byte, token, is it part of a signature?) in source order, of the nodes that overlap one of the pieces.

    Comments, docstrings and imports are left out. Where layout alone ends a block its end is a token of its own, since
    otherwise a line that leaves its block would look the same.
    """
    waiting: list[tuple[Node | None, int, bool]] = [(root, 0, False)]
    while waiting:
        node, byte, in_signature = waiting.pop()
        if node is None:
            yield byte, "</block>", in_signature
            continue
        start, end = node.start_byte, node.end_byte
        if _is_silent(node, language) or not any(start < last and end > first for first, last in pieces):
            continue
        yield start, f"<{node.type}>" if node.child_count else _leaf(node), in_signature
        if node.type == language.block:
            waiting.append((None, start, in_signature))
        body = node.child_by_field_name("body") if node.type in language.definitions else node
        is_part = [(child, in_signature or (body is not node and child != body)) for child in reversed(node.children)]
        waiting.extend((child, child.start_byte, part) for child, part in is_part)


def _is_silent(node: Node, language: Language) -> bool:
    if node.type == "expression_statement" and language.has_docstrings:
        return [child.type for child in node.children] == ["string"]
    return node.type in language.comments


def _leaf(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape")
