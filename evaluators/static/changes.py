"""Which symbols of a file a patch changes, and how much that matters to others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from tree_sitter import Node, QueryCursor

from regrade.evaluators.static.imports import MODULE, SYMBOLS, Owners, facts, query, spans, syntax_tree

REMOVED = 1.0
SIGNATURE = 1.0
BODY = 0.3
"""Weights of a change: of a name that is gone, of a signature, of a body alone. An unchanged syntax tree weighs 0."""

Shape = tuple[tuple[str, ...], tuple[str, ...]]
"""Tokens of the signature, tokens of the body."""


def changed_symbols(before: str | None, after: str | None) -> dict[str, float]:
    """Symbol -> weight, for the symbols that were there before and are not the same after.

    Comments, docstrings and layout are no part of the syntax tree that is compared. New symbols weigh nothing: nobody
    depends on them yet.
    """
    if before is None:
        return {}
    old = facts(before).texts
    if after is None:
        return dict.fromkeys(old, REMOVED)
    new, bound = facts(after).texts, facts(after).bound
    touched = frozenset(name for name in old if old[name] != new.get(name))
    # A function that the module now imports from elsewhere is still there.
    weights = {name: BODY if name in bound else REMOVED for name in touched if name not in new and name != MODULE}
    was, now = _shapes(before, touched), _shapes(after, touched)
    for name in touched - weights.keys():
        if was.get(name) != now.get(name):
            same_signature = was.get(name, ((), ()))[0] == now.get(name, ((), ()))[0]
            weights[name] = BODY if same_signature else SIGNATURE
    return weights


@lru_cache(maxsize=256)
def _shapes(text: str, wanted: frozenset[str]) -> dict[str, Shape]:
    root = syntax_tree(text).root_node
    owners = Owners(root, spans(QueryCursor(query(SYMBOLS)).captures(root)))
    pieces = [piece for name in wanted for piece in owners.pieces.get(name, ())]
    signatures: dict[str, list[str]] = {name: [] for name in wanted}
    bodies: dict[str, list[str]] = {name: [] for name in wanted}
    for byte, token, in_signature in _tokens(root, pieces):
        name = owners.of(byte)
        if name in wanted:
            (signatures if in_signature else bodies)[name].append(token)
    return {name: (tuple(signatures[name]), tuple(bodies[name])) for name in wanted}


def _tokens(root: Node, pieces: list[tuple[int, int]]) -> Iterator[tuple[int, str, bool]]:
    """(byte, token, is it part of a signature?) in source order, of the nodes that overlap one of the pieces.

    Comments, docstrings and imports are left out. The end of a block is a token of its own, since otherwise a line
    that leaves its block would look the same.
    """
    waiting: list[tuple[Node | None, int, bool]] = [(root, 0, False)]
    while waiting:
        node, byte, in_signature = waiting.pop()
        if node is None:
            yield byte, "</block>", in_signature
            continue
        start, end = node.start_byte, node.end_byte
        if _is_silent(node) or not any(start < last and end > first for first, last in pieces):
            continue
        yield start, f"<{node.type}>" if node.child_count else _leaf(node), in_signature
        if node.type == "block":
            waiting.append((None, start, in_signature))
        is_definition = node.type in ("function_definition", "class_definition")
        for child in reversed(node.children):
            part = is_definition and child.type in ("parameters", "type", "argument_list", "identifier", "async")
            waiting.append((child, child.start_byte, in_signature or part))


def _is_silent(node: Node) -> bool:
    if node.type == "expression_statement":
        return [child.type for child in node.children] == ["string"]
    return node.type in ("comment", "import_statement", "import_from_statement", "future_import_statement")


def _leaf(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape")
