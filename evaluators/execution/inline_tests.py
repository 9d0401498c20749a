"""Tests inside the file of the code under test, as in Rust: they are restored from the pristine tree."""

from __future__ import annotations

from tree_sitter import Node

from regrade.evaluators.static.dependencies.facts import syntax_tree
from regrade.evaluators.static.languages.rust import RUST


def with_pristine_tests(pristine: str | None, patched: str) -> str:
    """The patched text of a Rust file with the pristine file's `#[cfg(test)]` items in place of its own.

    They move to the end of the file, which makes no difference to Rust.
    """
    old, new = test_items(pristine or ""), test_items(patched)
    if old == new:
        return patched
    for item in new:
        patched = patched.replace(item, "", 1)
    return "\n".join((patched.rstrip("\n"), "", *old, "")) if old else patched


def test_items(text: str) -> list[str]:
    """The source of each top-level item under `#[cfg(test)]`, attributes included."""
    source = text.encode("utf-8", "surrogateescape")
    items: list[str] = []
    first: Node | None = None
    is_test = False
    for node in syntax_tree(text, RUST).root_node.children:
        if node.type == "attribute_item":
            first = first or node
            is_test = is_test or b"cfg(test)" in b"".join((node.text or b"").split())
            continue
        if is_test and first is not None:
            items.append(source[first.start_byte : node.end_byte].decode("utf-8", "surrogateescape"))
        first, is_test = None, False
    return items


test_items.__test__ = False  # type: ignore[attr-defined]  # not a test
